"""What the supervisor starts and cannot look after, or cannot make sense of, does not end it."""

import os
import select
import sys

import pytest

from everpost.recovery.reloading import Plan, Reader, Reading
from everpost.recovery.spawning import Child, spawn

SLEEPER = [sys.executable, "-c", "import signal; signal.pause()"]


def no_descriptor(pid: int) -> int:
    raise OSError(24, "Too many open files")


def test_no_descriptor_is_left_to_watch_a_child_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ended: a second one would be started beside it."""
    started: list[int] = []

    def failing(pid: int) -> int:
        started.append(pid)
        return no_descriptor(pid)

    life_read, life_write = os.pipe()
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr("everpost.recovery.spawning.os.pidfd_open", failing)
    with pytest.raises(OSError, match="Too many"):
        spawn(Child("a", SLEEPER, dict(os.environ)), "a", life_read)
    (pid,) = started
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    for fd in (life_read, life_write):
        os.close(fd)


def test_no_descriptor_is_left_to_watch_the_reader_by(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr("everpost.recovery.reloading.os.pidfd_open", no_descriptor)
    with pytest.raises(OSError, match="Too many"):
        Reading(Reader(SLEEPER, dict(os.environ), lambda _: ()))
    assert len(os.listdir("/proc/self/fd")) == len(before)


def _cannot(said: bytes) -> Plan | tuple[str, ...]:
    raise KeyError(said.decode())


def test_the_program_was_upgraded_beneath_the_server() -> None:
    """What the new release prints, this one does not understand: refused, and it goes on."""
    command = [sys.executable, "-c", "print('new')"]
    reading = Reading(Reader(command, dict(os.environ), _cannot))
    select.select([reading.pidfd], [], [], 10)
    said = reading.result()
    assert isinstance(said, tuple)
    assert "restart Everpost" in said[0]
