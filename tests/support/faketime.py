"""A wall clock that the test sets, under a running server (libfaketime). Durations stay true."""

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["WallClock"]

_LIBRARY = "faketime/libfaketime.so.1"


class WallClock:
    """`House(…, settings=clock.environment, inside=clock.inside)`; then `clock.step(7200)`."""

    inside = ("tests.support.inside.sleeping",)

    def __init__(self, folder: Path) -> None:
        self._file = folder / "faketime"
        self._off = 0.0
        self.step(0.0)

    @property
    def environment(self) -> Mapping[str, str]:
        (library, *_) = [
            *Path("/usr/lib").glob(f"*/{_LIBRARY}"),
            Path("this test needs libfaketime: apt-get install libfaketime"),
        ]
        assert library.exists(), str(library)
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            # Seconds; without it each look at the clock reads the file.
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def step(self, seconds: float) -> None:
        """Set the clock so much forward (or back), from wherever it is; each process sees it within
        a second."""
        self._off += seconds
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{self._off:+f}\n")
        os.replace(fresh, self._file)
