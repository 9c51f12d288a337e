"""What a relay did in the last minute, counted in fixed steps. Pure; `now` is monotonic seconds."""

from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate

__all__ = ["Meter"]

_SLOTS = 6
_SLOT = 10.0
"""A minute, in slots that fall away one by one."""

_STEPS = tuple(0.001 * 1.25**n for n in range(61))
"""Upper bounds of the latencies counted together, 1 ms to 11 minutes: a percentile is exact to a
quarter."""

_NEW = 0.1
"""What the latest transaction counts in the average."""
_HALF_LIFE = 10.0
"""Seconds in which an average that gets no new evidence loses half of its weight: a relay that is
passed over for its slowness is looked at again."""
_LEAST = 0.001

_PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class _Slot:
    __slots__ = ("faults", "latencies", "tried", "worked")

    def __init__(self) -> None:
        self.tried = self.worked = self.faults = 0
        self.latencies = [0] * (len(_STEPS) + 1)


class Meter:
    """One relay's. Latencies are seconds of whole transactions that the relay did its work for."""

    __slots__ = ("_at", "_average", "_slot", "_slots")

    def __init__(self) -> None:
        self._average: float | None = None
        self._at = 0.0
        self._slot = 0
        self._slots = [_Slot() for _ in range(_SLOTS)]

    def worked(self, took: float, *, now: float) -> None:
        slot = self._now(now)
        slot.tried += 1
        slot.worked += 1
        slot.latencies[bisect_left(_STEPS, took)] += 1
        average = self._average
        self._average = took if average is None else average + _NEW * (took - average)
        self._at = now

    def failed(self, *, now: float) -> None:
        slot = self._now(now)
        slot.tried += 1
        slot.faults += 1

    def neither(self, *, now: float) -> None:
        """Tried, and nobody is to blame."""
        self._now(now).tried += 1

    @property
    def worked_at(self) -> float | None:
        """When the relay last did its work for a message."""
        return None if self._average is None else self._at

    def latency(self, now: float) -> float:
        """The moving average, in seconds, as far as it can still be trusted; 0 without any."""
        if self._average is None:
            return 0.0
        since = now - self._at
        decayed = self._average if since < 1.0 else self._average * 0.5 ** (since / _HALF_LIFE)
        return max(decayed, _LEAST)

    @property
    def average(self) -> float:
        """The moving average as it was when something last worked; 0 before."""
        return self._average or 0.0

    def forget(self) -> None:
        """The relay starts anew: how slow it was says nothing any more."""
        self._average = None

    def counts(self, now: float) -> tuple[int, int, int]:
        """Tried, worked, faults of the last minute."""
        self._now(now)
        return (
            sum(s.tried for s in self._slots),
            sum(s.worked for s in self._slots),
            sum(s.faults for s in self._slots),
        )

    def percentiles(self, now: float) -> Mapping[str, float]:
        """Milliseconds by name; nothing if nothing worked."""
        self._now(now)
        counts = [sum(column) for column in zip(*(s.latencies for s in self._slots), strict=True)]
        total = sum(counts)
        return {name: _at(counts, total * part) for name, part in _PERCENTILES.items() if total}

    def _now(self, now: float) -> _Slot:
        slot = int(now / _SLOT)
        if slot != self._slot:
            for stale in range(max(self._slot + 1, slot - _SLOTS + 1), slot + 1):
                self._slots[stale % _SLOTS] = _Slot()
            self._slot = slot
        return self._slots[slot % _SLOTS]


def _at(counts: list[int], rank: float) -> float:
    step = next(step for step, seen in enumerate(accumulate(counts)) if seen >= rank)
    return round(_STEPS[min(step, len(_STEPS) - 1)] * 1000, 3)
