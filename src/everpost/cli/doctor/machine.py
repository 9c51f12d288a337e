"""Probes of this machine: program versions, disk, clock. They leave nothing behind."""

import ctypes
import os
import platform
import re
import resource
import sys
import tempfile
from pathlib import Path

from everpost.cli.doctor.facts import ClockFacts, DiskFacts, ProgramFacts
from everpost.clock import Clock

__all__ = ["clock", "disk", "mount_of", "program"]

BLOCK = 4096
SYNCS = 200
SYNC_S = 1.0


def program() -> ProgramFacts:
    """Versions of interpreter and SQLite, and the limit of open files."""
    import apsw

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ProgramFacts(
        python=tuple(sys.version_info[:3]),
        implementation=platform.python_implementation(),
        sqlite=tuple(int(part) for part in apsw.sqlite_lib_version().split(".")),
        files=files if files != resource.RLIM_INFINITY else 1 << 30,
    )


def disk(data: Path, time: Clock) -> DiskFacts:
    """The data directory, or where it would be made."""
    place = data.absolute()
    while not place.is_dir() and place != place.parent:
        place = place.parent
    space = os.statvfs(place)
    status = place.stat()
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    writable = os.access(place, os.W_OK | os.X_OK)
    mount = mount_of(place.resolve(), mounts)
    return DiskFacts(
        data=str(data),
        exists=data.is_dir(),
        measured=str(place),
        writable=writable,
        owned=status.st_uid == os.geteuid(),
        mode=status.st_mode & 0o7777,
        file_system=mount,
        read_only=bool(space.f_flag & os.ST_RDONLY),
        free_bytes=space.f_bavail * space.f_frsize,
        free_inodes=space.f_favail if space.f_files else None,
        syncs_per_s=_syncs(place, time) if writable else None,
    )


def _syncs(place: Path, time: Clock) -> float | None:
    """fdatasync calls a second, each after a block was appended; None when that fails."""
    block = os.urandom(BLOCK)
    try:
        with tempfile.TemporaryFile(dir=place, buffering=0) as file:
            file.write(block)
            os.fsync(file.fileno())
            began, done = time.monotonic(), 0
            while done < SYNCS and time.monotonic() - began < SYNC_S:
                file.write(block)
                os.fdatasync(file.fileno())
                done += 1
            return done / max(time.monotonic() - began, 1e-9)
    except OSError:
        return None


def mount_of(path: Path, mountinfo: str) -> str | None:
    """The type of the file system under `path` (proc(5): /proc/pid/mountinfo). Of several mounts on
    one point the last one counts; octal escapes stand for blanks in names."""
    best: tuple[int, str] | None = None
    for line in mountinfo.splitlines():
        left, separator, right = line.partition(" - ")
        fields, kinds = left.split(" "), right.split(" ")
        if not separator or len(fields) < 5:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4]))
        if path.is_relative_to(point) and (best is None or len(point.parts) >= best[0]):
            best = (len(point.parts), kinds[0])
    return best[1] if best else None


class _Timex(ctypes.Structure):
    """struct timex (adjtimex(2)) up to what is read here; `rest` is longer than the remainder."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 512),
    )


_STA_UNSYNC = 0x0040
_TIME_ERROR = 5


def clock() -> ClockFacts:
    """What the kernel's clock says of itself. `modes` 0 changes nothing (adjtimex(2))."""
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return ClockFacts(None, None)
    timex = _Timex()
    state = adjtimex(ctypes.byref(timex))
    if state < 0:
        return ClockFacts(None, None)
    synchronised = state != _TIME_ERROR and not timex.status & _STA_UNSYNC
    return ClockFacts(synchronised, timex.maxerror / 1e6)
