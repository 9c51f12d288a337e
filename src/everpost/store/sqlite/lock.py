"""Where writers of several processes queue: two file locks taken before `BEGIN IMMEDIATE`.

SQLite's own busy handler sleeps and tries again, so whoever sleeps loses to whoever has just
written. A blocking `flock` wakes the next one at once, and the kernel releases it when its holder
dies. `bench.store_writers`, three processes of 32 callers: with the lock each got its third and
nobody waited longer than 36 ms; with the busy handler one got 3 % of its share and waited 2.4 s.

`flock` alone lets a writer that has just written take the lock again before the one that was woken
gets a CPU: on a busy machine an accept waited for four or five transactions of two processes
that deliver a broadcast. So whoever is next holds a gate while he waits, and the last one has to
queue behind it.
"""

import fcntl
import os
from pathlib import Path

__all__ = ["WriteLock"]


class WriteLock:
    """`with lock: …`. One object a thread: it opens a file of its own, so that threads of one
    process exclude each other too. Raises OSError when the file cannot be opened or locked."""

    __slots__ = ("_file", "_gate")

    def __init__(self, database: Path) -> None:
        self._file = _open(database.with_name(database.name + ".lock"))
        try:
            self._gate = _open(database.with_name(database.name + ".gate"))
        except OSError:
            os.close(self._file)
            raise

    def __enter__(self) -> None:
        fcntl.flock(self._gate, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._gate, fcntl.LOCK_UN)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._gate)
        os.close(self._file)


def _open(path: Path) -> int:
    return os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
