"""The dot log: how far this process had come with each claim, for whoever takes over.

One file a process, one fixed record a step, written before the step and never fsynced: it has to
outlive the process, not the host (RULINGS "In doubt"). The file is mapped: what is stored there
stays when the process is killed, and costs no system call (five a message cost a tenth of
dispatch, decision 0014). The process holds an exclusive lock on the file for as long as it lives,
so anyone can tell whether it does.
"""

import fcntl
import mmap
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from pathlib import Path

from everpost.ids import Id

__all__ = ["Dot", "DotLog", "DotsUnreadableError", "Step", "is_alive", "read_dots"]

Dot = tuple[Id, int, int]
"""Message, recipient number and claim term."""


class Step(IntEnum):
    """The last step that was begun. A claim without a record was not touched."""

    COMPOSING = 1
    """Its content is being read and composed: a crash now is its own doing (poison, F36)."""
    CARRYING = 2
    """Composed; nothing that commits the far end has left."""
    DOT = 3
    """The final dot may have left."""


_RECORD = struct.Struct(">B16sII")
_BEHIND_THE_STEP = struct.Struct(">16sII")
_FILE_BYTES = 1 << 20
_ROOM = 4
"""A fresh file has room for this many times what is outstanding."""


class DotsUnreadableError(Exception):
    """The log is missing or cannot be read: every claim of its process is in doubt."""


class _File:
    """A locked, mapped file of records. A record exists from the moment that its step is there:
    the step is stored last, and a step of 0 ends the log."""

    __slots__ = ("_fd", "_map", "_used", "size")

    def __init__(self, path: Path, size: int) -> None:
        """Raises OSError; the blocks are taken here, since a full disk under a mapping kills."""
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.posix_fallocate(fd, 0, size)
            self._map = mmap.mmap(fd, size)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        self._used = 0
        self.size = size

    def holds(self, records: int) -> bool:
        return self._used + records * _RECORD.size <= self.size

    def append(self, step: int, dot: Dot) -> None:
        at = self._used
        _BEHIND_THE_STEP.pack_into(self._map, at + 1, *dot)
        self._map[at] = step
        self._used = at + _RECORD.size

    def close(self) -> None:
        """Release the lock."""
        self._map.close()
        os.close(self._fd)


class DotLog:
    """The writing end, of one process. Raises OSError when the file cannot be made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._outstanding: dict[Dot, Step] = {}
        self._file = _File(path, _FILE_BYTES)

    def mark(self, step: Step, dots: Sequence[Dot]) -> None:
        """Before the step. Raises OSError: then the step must not be taken."""
        if not self._file.holds(len(dots)):
            self._rotate(len(dots))
        for dot in dots:
            self._file.append(step, dot)
            self._outstanding[dot] = step

    def settled(self, dots: Iterable[Dot]) -> None:
        """The store knows the outcome of these; the file forgets them in its own time."""
        for dot in dots:
            self._outstanding.pop(dot, None)

    def _rotate(self, more: int) -> None:
        """A fresh file with what is outstanding, locked, put in the old one's place."""
        fresh = self.path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        records = len(self._outstanding) + more
        file = _File(fresh, max(_FILE_BYTES, _ROOM * records * _RECORD.size))
        try:
            for dot, step in self._outstanding.items():
                file.append(step, dot)
            fresh.rename(self.path)
        except BaseException:
            file.close()
            raise
        self._file.close()
        self._file = file

    def close(self, *, remove: bool) -> None:
        """Release the lock. `remove` when nothing is outstanding and the worker is forgotten."""
        if remove:
            self.path.unlink(missing_ok=True)
        self._file.close()


def read_dots(path: Path) -> Mapping[Dot, Step]:
    """The last step of each claim in a dead process's log. A torn last record was never followed
    by its step. Raises DotsUnreadableError; any other OSError may pass with time."""
    found: dict[Dot, Step] = {}
    try:
        data = path.read_bytes()
        whole = len(data) - len(data) % _RECORD.size
        for step, message, n, term in _RECORD.iter_unpack(data[:whole]):
            if not step:
                break
            found[message, n, term] = Step(step)
    except (FileNotFoundError, ValueError) as error:
        raise DotsUnreadableError(str(error)) from error
    return found


def is_alive(path: Path) -> bool:
    """Whether the process that writes this log still lives (it holds the file's lock)."""
    while True:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.fstat(fd).st_ino == path.stat().st_ino:
                return False
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        finally:
            os.close(fd)
        # Its owner has put a fresh file in the place of the one we opened: look at that one.
