"""What a write-ahead log holds, against what SQLite took of it: whether its end was lost (F10).

The format is that of sqlite.org/fileformat2.html §4. SQLite takes the log up to the last commit
before the first frame that does not fit, and says nothing of the rest. Only the headers are read
here: which frames fit is SQLite's to say, so that 64 MB take a tenth of a second.
"""

import os
import struct
from pathlib import Path

import msgspec

__all__ = ["Log", "Torn", "judge", "scan"]

_MAGIC = (0x377F0682, 0x377F0683)
_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">IIII8x")
_NOTHING = bytes(_FRAME.size)
_MEMORY_PAGE = 4096
"""The kernel copies a write by such pieces; a process that is killed may leave some of them."""


class Log(msgspec.Struct, frozen=True):
    """The frames of a log by their headers, counted from 1. `current`: those of this round of the
    log (older ones may follow); `commits`: of these the ones that end a transaction; `empty`: those
    whose header is all zeros. `partial`: bytes of a last frame that is not whole. `header_fits`:
    False makes SQLite pass over the whole log."""

    size: int
    frames: int
    current: tuple[int, ...] = ()
    commits: tuple[int, ...] = ()
    empty: tuple[int, ...] = ()
    partial: int = 0
    header_fits: bool = True


class Torn(msgspec.Struct, frozen=True):
    """What was in the log and is not in the database. `transactions` may have been acknowledged."""

    recovered: int
    dropped: int
    transactions: int
    said: str


def scan(path: Path) -> Log | None:
    """None: there is no log, or an empty one. Raises OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        size = os.fstat(fd).st_size
        return _scan(fd, size) if size else None
    finally:
        os.close(fd)


def _scan(fd: int, size: int) -> Log:
    first = os.pread(fd, _HEADER.size, 0)
    if len(first) < _HEADER.size:
        return Log(size, 0, header_fits=False)
    magic, _, page, _, *salt, sum1, sum2 = _HEADER.unpack(first)
    if magic not in _MAGIC or _checksum(first[:24], big=bool(magic & 1)) != (sum1, sum2):
        return Log(size, (size - _HEADER.size) // (_FRAME.size + _MEMORY_PAGE), header_fits=False)
    width = _FRAME.size + (page if page > 1 else 65536)
    frames, partial = divmod(size - _HEADER.size, width)
    current: list[int] = []
    commits: list[int] = []
    empty: list[int] = []
    for n in range(frames):
        header = os.pread(fd, _FRAME.size, _HEADER.size + n * width)
        _, pages_after, *found = _FRAME.unpack(header)
        if found == salt:
            current.append(n + 1)
            if pages_after:
                commits.append(n + 1)
        elif header == _NOTHING:
            empty.append(n + 1)
    return Log(size, frames, tuple(current), tuple(commits), tuple(empty), partial)


def _checksum(data: bytes, *, big: bool) -> tuple[int, int]:
    """SQLite's, of an even number of 32-bit words."""
    words = struct.unpack(f"{'>' if big else '<'}{len(data) // 4}I", data)
    one = two = 0
    for x, y in zip(words[::2], words[1::2], strict=True):
        one = (one + x + two) & 0xFFFFFFFF
        two = (two + y + one) & 0xFFFFFFFF
    return one, two


def judge(log: Log, *, recovered: int) -> Torn | None:
    """`recovered`: frames that SQLite took. None: nothing is missing that a process which was
    killed would not have left: frames of a transaction that it never ended, perhaps a piece of a
    last one. Pure."""
    if not log.header_fits:
        return Torn(
            0, log.frames, log.frames,
            f"the log's header is damaged: its {log.frames} frames were passed over",
        )  # fmt: skip
    dropped = sum(n > recovered for n in log.current)
    transactions = sum(n > recovered for n in log.commits)
    empty = sum(n > recovered for n in log.empty)
    whole = log.partial in (0, _FRAME.size) or log.size % _MEMORY_PAGE == 0
    if not (transactions or empty or not whole):
        return None
    parts = [f"{recovered} frames of the log fit and were kept"]
    if transactions:
        parts.append(f"{dropped} after them, with the ends of {transactions} transactions, did not")
    if empty:
        parts.append(f"{empty} were zeros")
    if not whole:
        parts.append(f"the last one is cut off after {log.partial} bytes")
    return Torn(recovered, dropped + empty + (log.partial > 0), transactions, "; ".join(parts))
