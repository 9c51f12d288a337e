"""Where writers of several processes queue: a file lock taken before `BEGIN IMMEDIATE`, and a gate
before it.

SQLite's own busy handler sleeps and tries again, so whoever sleeps loses to whoever has just
written. A blocking `flock` wakes the next one at once, and the kernel releases it when its holder
dies. `bench.store_writers`, three processes of 32 callers: with the lock each got its third and
nobody waited longer than 36 ms; with the busy handler one got 3 % of its share and waited 2.4 s.

`flock` alone lets a writer that has just written take the lock again before the one that was woken
gets a CPU: on a busy machine an accept waited for four or five transactions of two processes
that deliver a broadcast. So whoever is next holds a gate while he waits, and the others stand
before it. It is a courtesy, no lock: one who was stopped while he held it (F35) holds nobody up for
longer than a moment.
"""

import fcntl
import os
import time
from pathlib import Path

__all__ = ["WriteLock"]

_LOOK_S = 0.0005
"""Between two looks at a gate that is held."""
_PATIENCE_S = 0.1
"""A transaction takes a few milliseconds; a gate that is held for so long …"""
_PASSED_S = 1.0
"""… is passed by for so long."""


class WriteLock:
    """`with lock: …`. One object a thread: it opens files of its own, so that threads of one
    process exclude each other too. Raises OSError when a file cannot be opened or locked."""

    __slots__ = ("_file", "_gate", "_passed_until")

    def __init__(self, database: Path) -> None:
        self._passed_until = 0.0
        self._file = _open(database.with_name(database.name + ".lock"))
        try:
            self._gate = _open(database.with_name(database.name + ".gate"))
        except OSError:
            os.close(self._file)
            raise

    def __enter__(self) -> None:
        if not self._at_the_gate():
            fcntl.flock(self._file, fcntl.LOCK_EX)
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._gate, fcntl.LOCK_UN)

    def _at_the_gate(self) -> bool:
        """Whether the gate is ours; False: its holder makes no use of it."""
        if _taken(self._gate):
            return True
        now = time.monotonic()
        if now < self._passed_until:
            return False
        until = now + _PATIENCE_S
        while now < until:
            time.sleep(_LOOK_S)
            if _taken(self._gate):
                return True
            now = time.monotonic()
        self._passed_until = now + _PASSED_S
        return False

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._gate)
        os.close(self._file)


def _taken(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(path: Path) -> int:
    return os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
