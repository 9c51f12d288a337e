"""A log-linear histogram of durations (the idea of HdrHistogram): cheap to add to, exact to 0.8 %
over its whole range, mergeable.

Our own, since the one library for Python is compiled and ships wheels for x86-64 only: with it
every ARM machine would need a compiler.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["Histogram"]

_BITS = 7
_HALF = 1 << _BITS
_EXACT = 2 * _HALF
_MICRO = 1_000_000


class Histogram:
    """Counts of durations, in microseconds. Below 256 µs each value has a cell of its own; above,
    each doubling is cut into 128 cells, so that a cell is never wider than 1/128 of its values."""

    __slots__ = ("_cells", "count", "maximum", "minimum", "total")

    def __init__(self) -> None:
        self._cells: dict[int, int] = {}
        self.count = 0
        self.total = 0
        self.minimum = 0
        self.maximum = 0

    def add(self, seconds: float, count: int = 1) -> None:
        """Count a duration; one below zero counts as zero."""
        value = int(seconds * _MICRO) if seconds > 0 else 0
        cells, cell = self._cells, _cell(value)
        cells[cell] = cells.get(cell, 0) + count
        if value < self.minimum or not self.count:
            self.minimum = value
        self.maximum = max(self.maximum, value)
        self.count += count
        self.total += value * count

    def merge(self, other: "Histogram") -> None:
        """Add all that `other` counted."""
        if not other.count:
            return
        for cell, count in other._cells.items():
            self._cells[cell] = self._cells.get(cell, 0) + count
        self.minimum = min(self.minimum, other.minimum) if self.count else other.minimum
        self.maximum = max(self.maximum, other.maximum)
        self.count += other.count
        self.total += other.total

    # -- reading -----------------------------------------------------------------------------------

    def at(self, quantile: float) -> float | None:
        """The duration in seconds that this share (0 to 1) of the values does not exceed, as the
        largest value of its cell; None while nothing was counted."""
        return self.all_at((quantile,))[0]

    def all_at(self, quantiles: Sequence[float]) -> list[float | None]:
        """As `at`, for several quantiles in rising order in one pass."""
        if not self.count:
            return [None] * len(quantiles)
        found: list[float | None] = []
        cells = iter(sorted(self._cells.items()))
        seen, highest = 0, 0
        for quantile in quantiles:
            wanted = max(1, -(-quantile * self.count // 1))  # the ceiling
            while seen < wanted and (pair := next(cells, None)) is not None:
                highest = _highest(pair[0])
                seen += pair[1]
            found.append(min(highest, self.maximum) / _MICRO)
        return found

    @property
    def mean(self) -> float | None:
        """Seconds; None while nothing was counted."""
        return self.total / self.count / _MICRO if self.count else None

    def percentiles(self) -> Iterator[tuple[float, float]]:
        """(share, seconds) for each cell that counted something, rising to 1."""
        seen = 0
        for cell, count in sorted(self._cells.items()):
            seen += count
            yield seen / self.count, min(_highest(cell), self.maximum) / _MICRO

    # -- keeping -----------------------------------------------------------------------------------

    def as_json(self) -> dict[str, Any]:
        """Builtins: `cells` are pairs of the lowest value of a cell in microseconds and its count;
        `cells_per_doubling` says how wide a cell is."""
        return {
            "unit": "us",
            "cells_per_doubling": _HALF,
            "count": self.count,
            "min": self.minimum,
            "max": self.maximum,
            "total": self.total,
            "cells": [[_lowest(cell), count] for cell, count in sorted(self._cells.items())],
        }

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "Histogram":
        """What `as_json` gave."""
        made = cls()
        cells: Iterable[tuple[int, int]] = kept["cells"]
        made._cells = {_cell(low): count for low, count in cells}
        made.count, made.total = kept["count"], kept["total"]
        made.minimum, made.maximum = kept["min"], kept["max"]
        return made


def _cell(value: int) -> int:
    if value < _EXACT:
        return value
    shift = value.bit_length() - _BITS - 1
    return (shift << _BITS) + (value >> shift)


def _lowest(cell: int) -> int:
    if cell < _EXACT:
        return cell
    shift = (cell >> _BITS) - 1
    return (cell - (shift << _BITS)) << shift


def _highest(cell: int) -> int:
    return _lowest(cell + 1) - 1
