"""What the server's processes take while it is tormented, and a line of progress now and then."""

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.house import House

__all__ = ["Peaks", "Watcher"]

_EVERY_S = 1.0
_SAID_EVERY_S = 15.0
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Peaks:
    """The most at one time, of all processes of the server together."""

    rss_mib: int = 0
    files: int = 0
    processes: int = 0


class Watcher(threading.Thread):
    """Samples until `ended`. `progress` is the text of a line."""

    def __init__(self, house: House, progress: Callable[[], str]) -> None:
        super().__init__(daemon=True)
        self._house = house
        self._progress = progress
        self.peaks = Peaks()
        self.ended = threading.Event()

    def run(self) -> None:
        began = said = time.monotonic()
        while not self.ended.wait(_EVERY_S):
            self._sample()
            if time.monotonic() - said >= _SAID_EVERY_S:
                said = time.monotonic()
                sys.stderr.write(f"{said - began:5.0f} s: {self._progress()}\n")

    def _sample(self) -> None:
        try:
            pids = [self._house.pid, *self._house.children()]
        except AssertionError:
            return  # it is down just now
        found = [each for pid in pids if (each := _of(pid)) is not None]
        self.peaks = Peaks(
            max(self.peaks.rss_mib, sum(rss for rss, _ in found) >> 20),
            max(self.peaks.files, sum(files for _, files in found)),
            max(self.peaks.processes, len(found)),
        )


def _of(pid: int) -> tuple[int, int] | None:
    """Resident bytes and open files; None when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * _PAGE, len(os.listdir(f"/proc/{pid}/fd"))
    except (OSError, IndexError):
        return None
