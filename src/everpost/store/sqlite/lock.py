"""Where writers of several processes queue: a file lock taken before `BEGIN IMMEDIATE`.

SQLite's own busy handler sleeps and tries again, so whoever sleeps loses to whoever has just
written. A blocking `flock` wakes the next one at once, and the kernel releases it when its holder
dies. Two locks make it fair: a process waits for the lock while it holds the turnstile, so one that
has just released the lock meets the waiting one there and cannot overtake it.
"""

import fcntl
import os
from pathlib import Path

__all__ = ["WriteLock"]


class WriteLock:
    """`with lock: …`. One object a thread: it opens files of its own, so that threads of one
    process exclude each other too."""

    __slots__ = ("_door", "_turnstile")

    def __init__(self, database: Path) -> None:
        self._door = _open(database.with_name(database.name + ".lock"))
        self._turnstile = _open(database.with_name(database.name + ".turn"))

    def __enter__(self) -> None:
        fcntl.flock(self._turnstile, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._door, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._turnstile, fcntl.LOCK_UN)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._door, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._door)
        os.close(self._turnstile)


def _open(path: Path) -> int:
    return os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
