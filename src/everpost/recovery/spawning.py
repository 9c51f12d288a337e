"""One process of the supervisor's: how it is started, and the pipe on which it is heard."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from everpost import telemetry
from everpost.recovery.watching import Life

__all__ = ["BEAT", "DRAINING", "LEAVE", "READY", "Child", "Running", "die_with_parent", "spawn"]

READY = b"R"
"""What a child writes to its pipe once it serves,"""
BEAT = b"."
"""every second while its event loop turns,"""
DRAINING = b"D"
"""and when it was told to end: another may take its place at once."""

LEAVE = signal.SIGUSR1
"""The house is about to end: readiness fails, all else goes on. Ignored before a child listens for
it (the supervisor ignores it, and that is inherited)."""


@dataclass(frozen=True, slots=True)
class Child:
    """A process to keep. `command` without the plumbing options; `sockets` by name."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    sockets: Mapping[str, int] = field(default_factory=dict)


class Running:
    """One incarnation of a child. `label` tells it from others of the child that still run."""

    def __init__(
        self, child: Child, label: str, process: "subprocess.Popen[bytes]", notify: int
    ) -> None:
        self.child = child
        self.label = label
        self.process = process
        self.notify = notify
        self.pidfd = os.pidfd_open(process.pid)
        self.life = Life(started=time.monotonic())
        self.killed = False
        self.deadline: float | None = None
        """When it is killed, once it was told to end."""

    def hear(self) -> bytes:
        """What it said since; empty: it has closed its end."""
        said = os.read(self.notify, 4096)
        if said:
            ready = self.life.ready or READY in said
            self.life = replace(self.life, heard=time.monotonic(), ready=ready)
        return said

    def excuse(self, now: float) -> None:
        """Its silence until `now` is not its own."""
        self.life = replace(self.life, excused=now)

    def tell_to_leave(self) -> None:
        """Say so to whoever asks whether it is ready."""
        self.process.send_signal(LEAVE)

    def tell_to_end(self, deadline: float) -> None:
        """SIGTERM, and the time when its patience is over."""
        self.deadline = deadline
        self.process.terminate()

    def kill(self) -> None:
        """SIGKILL, once: what a hanging disk holds up ends when the disk lets it."""
        if not self.killed:
            self.killed = True
            self.process.kill()

    @property
    def state(self) -> str:
        """The kernel's word for what it does: R, S, D (in the disk's hands), T (stopped) …"""
        try:
            with open(f"/proc/{self.process.pid}/stat", encoding="ascii", errors="replace") as file:
                return file.read().rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            return "?"


def spawn(child: Child, label: str, life_pipe: int) -> Running:
    """Start it. Its `life_pipe` ends when this process does. Raises OSError."""
    notify_read, notify_write = os.pipe()
    inherited = (*child.sockets.items(), ("notify", notify_write))
    try:
        process = subprocess.Popen(  # noqa: S603  our own program
            [
                *child.command,
                f"--name={label}",
                *(f"--inherit={name}={fd}" for name, fd in inherited),
                f"--parent-pipe={life_pipe}",
            ],
            pass_fds=(*child.sockets.values(), life_pipe, notify_write),
            env=dict(child.environment),
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a terminal's Ctrl-C reaches the supervisor alone
        )
    except OSError:
        os.close(notify_read)
        raise
    finally:
        os.close(notify_write)
    try:
        running = Running(child, label, process, notify_read)
    except OSError:  # nobody would look after it
        os.close(notify_read)
        process.kill()
        process.wait()
        raise
    telemetry.event("child.started", child=child.name, label=label, child_pid=process.pid)
    return running


_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pipe: int | None = None) -> None:
    """In a child: be killed when the supervisor dies, also if it died before this call (then the
    pipe, where there is one, has ended)."""
    import ctypes
    import select

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if (
        parent_pipe is not None and select.select([parent_pipe], [], [], 0)[0]
    ):  # end of file: it is gone already
        sys.exit(0)
