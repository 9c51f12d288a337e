"""The dot log: how far this process had come with each claim, for whoever takes over.

One file a process, one fixed record a step, appended before the step and never fsynced: it has to
outlive the process, not the host (RULINGS "In doubt"). The process holds an exclusive lock on the
file for as long as it lives, so anyone can tell whether it does.
"""

import fcntl
import os
import struct
from collections.abc import Iterable, Mapping
from enum import IntEnum
from pathlib import Path

from everpost import telemetry
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
_ROTATE_BYTES = 1 << 20


class DotsUnreadableError(Exception):
    """The log is missing or cannot be read: every claim of its process is in doubt."""


class DotLog:
    """The writing end, of one process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._outstanding: dict[Dot, Step] = {}
        self._fd = self._open(path)
        self._size = 0

    @staticmethod
    def _open(path: Path) -> int:
        fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd

    def mark(self, step: Step, dots: Iterable[Dot]) -> None:
        """Append before the step. Raises OSError: then the step must not be taken."""
        rows = tuple(dots)
        data = b"".join([_RECORD.pack(step, *row) for row in rows])
        if os.write(self._fd, data) != len(data):
            os.ftruncate(self._fd, self._size)  # a torn record would hide all that follow it
            raise OSError("the dot log took only a part of a record")
        self._outstanding.update(dict.fromkeys(rows, step))
        self._size += len(data)

    def settled(self, dots: Iterable[Dot]) -> None:
        """The store knows the outcome of these; the file forgets them in its own time."""
        for dot in dots:
            self._outstanding.pop(dot, None)
        if self._size > _ROTATE_BYTES:
            try:
                self._rotate()
            except OSError as error:  # a long log is as good as a short one
                telemetry.event("dots.rotation_failed", error=str(error))

    def _rotate(self) -> None:
        """A fresh file with what is outstanding, locked, put in the old one's place."""
        fresh = self.path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        fd = self._open(fresh)
        data = b"".join([_RECORD.pack(step, *row) for row, step in self._outstanding.items()])
        if os.write(fd, data) != len(data):
            os.close(fd)
            return
        fresh.rename(self.path)
        os.close(self._fd)
        self._fd, self._size = fd, len(data)

    def close(self, *, remove: bool) -> None:
        """Release the lock. `remove` when nothing is outstanding and the worker is forgotten."""
        if remove:
            self.path.unlink(missing_ok=True)
        os.close(self._fd)


def read_dots(path: Path) -> Mapping[Dot, Step]:
    """The last step of each claim in a dead process's log. A torn last record was never followed
    by its step. Raises DotsUnreadableError; any other OSError may pass with time."""
    try:
        data = path.read_bytes()
        whole = len(data) - len(data) % _RECORD.size
        return {
            (message, n, term): Step(step)
            for step, message, n, term in _RECORD.iter_unpack(data[:whole])
        }
    except (FileNotFoundError, ValueError) as error:
        raise DotsUnreadableError(str(error)) from error


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
