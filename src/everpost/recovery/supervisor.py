"""Starts the roles as child processes, keeps them alive, and ends them in order.

It holds the listening sockets and hands them down, so that no connection is lost when a child is
replaced. It opens no store and keeps no mail: it must be the last thing that can go wrong.
"""

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from everpost import telemetry

__all__ = ["Child", "Supervisor", "backoff_s"]

_RESTARTS = telemetry.counter("everpost_restarts_total", "Child processes restarted", ("name",))
_HEALTHY_S = 10.0
_FIRST_S = 0.1
_CAP_S = 30.0
_READY = b"ready"
_MARGIN_S = 10.0
"""What a child may take beyond the drain to say goodbye to relays and close its store."""


def backoff_s(failures: int) -> float:
    """Seconds before the next start after `failures` short lives in a row (0: at once)."""
    return 0.0 if failures == 0 else min(_FIRST_S * 2.0 ** (failures - 1), _CAP_S)


@dataclass(frozen=True, slots=True)
class Child:
    """A process to keep. `command` without the plumbing options; `sockets` by name."""

    name: str
    command: Sequence[str]
    sockets: Mapping[str, int] = field(default_factory=dict)


class _Running:
    """One incarnation of a child."""

    def __init__(self, child: Child, process: subprocess.Popen[bytes], notify: int) -> None:
        self.child = child
        self.process = process
        self.notify = notify
        self.started = time.monotonic()
        self.pidfd = os.pidfd_open(process.pid)
        self.ready = False


class Supervisor:
    """`on_ready` is called once, when every child has said that it is ready."""

    def __init__(
        self, children: Sequence[Child], *, drain_s: float, on_ready: Callable[[], None]
    ) -> None:
        self._children = children
        self._drain_s = drain_s
        self._on_ready = on_ready
        self._selector = selectors.DefaultSelector()
        self._running: dict[str, _Running] = {}
        self._failures: dict[str, int] = {}
        self._due: dict[str, float] = {}
        self._stopping = False
        self._announced = False
        # The children watch the read end: it closes when this process is gone, however it went.
        self._life_read, self._life_write = os.pipe()

    def run(self) -> int:
        """Until SIGTERM or SIGINT, then drain. The exit code: 0, or 1 when a child was killed."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(wake_read, False)
        signal.set_wakeup_fd(wake_write)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        self._selector.register(wake_read, selectors.EVENT_READ, "signal")
        for child in self._children:
            self._start(child)
        while not self._stopping:
            for key, _ in self._selector.select(self._patience()):
                self._handle(key.data, key.fd)
            self._restart_due()
        return self._drain()

    def _on_signal(self, number: int, _frame: object) -> None:
        if number != signal.SIGHUP:
            self._stopping = True

    def _start(self, child: Child) -> None:
        notify_read, notify_write = os.pipe()
        pass_fds = (*child.sockets.values(), self._life_read, notify_write)
        plumbing = [
            f"--inherit={name}={fd}"
            for name, fd in (*child.sockets.items(), ("notify", notify_write))
        ]
        try:
            process = subprocess.Popen(  # noqa: S603  our own program
                [*child.command, *plumbing, f"--parent-pipe={self._life_read}"],
                pass_fds=pass_fds,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a terminal's Ctrl-C reaches the supervisor alone
            )
        except OSError:
            os.close(notify_read)
            raise
        finally:
            os.close(notify_write)
        running = _Running(child, process, notify_read)
        self._running[child.name] = running
        self._selector.register(running.pidfd, selectors.EVENT_READ, ("ended", running))
        self._selector.register(notify_read, selectors.EVENT_READ, ("notify", running))
        telemetry.event("child.started", child=child.name, child_pid=process.pid)

    def _handle(self, data: object, fd: int) -> None:
        if data == "signal":
            os.read(fd, 4096)
            return
        assert isinstance(data, tuple)
        what, running = data
        if what == "notify":
            if running.notify >= 0:
                self._notified(running)
        else:
            self._ended(running)

    def _notified(self, running: _Running) -> None:
        if os.read(running.notify, 64).startswith(_READY):
            running.ready = True
            if not self._announced and all(
                c.name in self._running and self._running[c.name].ready for c in self._children
            ):
                self._announced = True
                self._on_ready()
        self._selector.unregister(running.notify)
        os.close(running.notify)
        running.notify = -1

    def _ended(self, running: _Running) -> None:
        code = self._reap(running)
        name = running.child.name
        lived = time.monotonic() - running.started
        failures = 0 if lived >= _HEALTHY_S else self._failures.get(name, 0) + 1
        self._failures[name] = failures
        self._due[name] = time.monotonic() + backoff_s(failures)
        _RESTARTS.add(1, name)
        telemetry.event("child.ended", child=name, code=code, lived_s=round(lived, 1))

    def _reap(self, running: _Running) -> int:
        code = running.process.wait()
        self._selector.unregister(running.pidfd)
        os.close(running.pidfd)
        if running.notify >= 0:
            self._selector.unregister(running.notify)
            os.close(running.notify)
            running.notify = -1
        del self._running[running.child.name]
        return code

    def _patience(self) -> float | None:
        if not self._due:
            return None
        return max(min(self._due.values()) - time.monotonic(), 0)

    def _restart_due(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if self._due.get(child.name, now + 1) <= now and not self._stopping:
                del self._due[child.name]
                self._try_start(child)

    def _try_start(self, child: Child) -> None:
        """A machine that cannot fork just now is no reason to give up the other children."""
        try:
            self._start(child)
        except OSError as error:
            telemetry.event("child.start_failed", child=child.name, error=str(error))
            self._failures[child.name] = failures = self._failures.get(child.name, 0) + 1
            self._due[child.name] = time.monotonic() + backoff_s(failures)

    def _drain(self) -> int:
        """SIGTERM to all, wait for the deadline, SIGKILL to what is left."""
        telemetry.event("supervisor.draining", children=len(self._running))
        for running in self._running.values():
            running.process.terminate()
        deadline = time.monotonic() + self._drain_s + _MARGIN_S
        killed = False
        while self._running:
            left = deadline - time.monotonic()
            if left <= 0 and not killed:
                killed = True
                for running in self._running.values():
                    telemetry.event("child.killed", child=running.child.name)
                    running.process.kill()
            for key, _ in self._selector.select(max(left, 0) if not killed else None):
                if key.data == "signal":
                    os.read(key.fd, 4096)
                elif key.data[0] == "ended":
                    self._reap(key.data[1])
                elif key.data[1].notify >= 0:
                    self._notified(key.data[1])
        return 1 if killed else 0


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
