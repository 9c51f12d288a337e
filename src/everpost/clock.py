"""Time, handed in, on two lines; durations in seconds.

`now` is wall time, for whatever has a date: schedules, ends of lifetimes, windows of budgets,
records, ids. A wall clock can be set wrong, so a step of it is not believed at once (`follow`).

`steady` counts while the host is up and no step touches it: for whatever is a lease, that is, what
one process holds for so long and another may take afterwards. It is the same in every process of
the host and starts anew with the host; what an earlier run of the host has left is far ahead or
over, and its owners are dead.
"""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

__all__ = [
    "DRIFT_MS",
    "SLACK_MS",
    "Anchor",
    "Anchors",
    "Clock",
    "SettlingClock",
    "SystemClock",
    "follow",
]

_steady_ns = partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)
"""Unlike CLOCK_MONOTONIC it counts while the host is suspended. A partial call costs less than a
function of ours, and these clocks are read several times a message."""

DRIFT_MS = 1_500
"""What is followed at once: slewing, a leap second, the small steps of a time daemon …"""
SLACK_MS = 100
"""… and below this it is not even noted."""
_CLOSE_MS = 20
"""Readings of the two clocks that are further apart in time say nothing of their difference."""
_READINGS = 5
_TOLD_FOR_MS = 300_000
"""So long after a step was adopted it is still told."""


class Clock(Protocol):
    """What a room may know of time. Rooms take one; only `assembly` makes one."""

    def now(self) -> int:
        """Wall time in milliseconds since 1970-01-01 UTC."""
        ...

    def steady(self) -> int:
        """Milliseconds since the host came up, for leases: the same in all its processes."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go backward, for durations and deadlines within this process."""
        ...


class SystemClock:
    """The machine's clocks as they are; `now` follows every step at once."""

    def now(self) -> int:
        return time.time_ns() // 1_000_000

    def steady(self) -> int:
        return _steady_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


# --- steps of the wall clock ----------------------------------------------------------------------


class Anchor(NamedTuple):
    """What is believed of the wall clock, in milliseconds. `offset`: wall time less steady time.
    `other`: where the wall clock has been since steady time `since`, and is not followed to yet."""

    offset: int
    other: int | None = None
    since: int = 0


def follow(was: Anchor, *, found: int, at: int, settle_ms: int) -> Anchor:
    """What to believe after the wall clock was `found` so far ahead of steady time `at`; `was`
    itself where nothing has changed. Pure.

    A step of more than `DRIFT_MS` is adopted when it has stood for `settle_ms`, counted anew with
    every further one. One that is taken back meanwhile has never been.
    """
    away = abs(found - was.offset)
    if away <= DRIFT_MS:
        calm = was.other is None and away < SLACK_MS
        return was if calm else Anchor(found)
    if was.other is None or abs(found - was.other) > DRIFT_MS:
        was = Anchor(was.offset, found, at)
    # Further ahead than now, `since` is none of this run's.
    return Anchor(found) if not 0 <= at - was.since < settle_ms else was


class Anchors(Protocol):
    """Where the processes of a host keep their common anchor. Neither raises."""

    def load(self) -> Anchor | None:
        """None: there is none of this run of the host, or it cannot be read."""
        ...

    def save(self, anchor: Anchor) -> None: ...


class SettlingClock:
    """The machine's clocks, where `now` does not follow a step of the wall clock before it has
    settled. Safe to use from several threads.

    `anchors` is read at the start and at each change, so that all processes go by the same time,
    and one that starts while a step is held off does not take it. `changed` is called with what
    was believed before and is now, when a step is first seen, is adopted or is taken back.
    """

    __slots__ = (
        "_adopted", "_anchor", "_anchors", "_changed", "_least_ns", "_looking", "_most_ns",
        "_settle_ms", "_steady_ns", "_wall_ns",
    )  # fmt: skip

    def __init__(
        self,
        anchors: Anchors,
        *,
        settle_s: float,
        changed: Callable[[Anchor, Anchor], None],
        wall_ns: Callable[[], int] = time.time_ns,
        steady_ns: Callable[[], int] = _steady_ns,
    ) -> None:
        self._anchors = anchors
        self._settle_ms = int(settle_s * 1000)
        self._changed = changed
        self._wall_ns = wall_ns
        self._steady_ns = steady_ns
        self._looking = threading.Lock()
        self._adopted = (0, -_TOLD_FOR_MS)
        kept = anchors.load()
        if kept is None:
            kept = Anchor((wall_ns() - steady_ns()) // 1_000_000)
            anchors.save(kept)
        self._believe(kept)
        self.now()

    def now(self) -> int:
        wall = self._wall_ns()
        if self._least_ns <= wall - self._steady_ns() < self._most_ns:
            return wall // 1_000_000
        return self._look()

    def steady(self) -> int:
        return self._steady_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    @property
    def off_ms(self) -> int:
        """The step that is held off, or was adopted within the last minutes, in milliseconds: how
        far the wall clock went from where it was; 0: none."""
        self.now()
        held = self._anchor
        if held.other is not None:
            return held.other - held.offset
        size, at = self._adopted
        return size if self.steady() - at < _TOLD_FOR_MS else 0

    # --- what happens rarely ----------------------------------------------------------------------

    def _believe(self, anchor: Anchor) -> None:
        """`now` is the wall clock's word from `_least_ns` to below `_most_ns` of difference; while
        a step is held off there is no such range."""
        self._anchor = anchor
        slack = SLACK_MS if anchor.other is None else 0
        self._least_ns = (anchor.offset - slack) * 1_000_000
        self._most_ns = (anchor.offset + slack) * 1_000_000

    def _look(self) -> int:
        """`now`, where the wall clock is not where it was."""
        # One thread decides; the others go on by what held, which is never wrong.
        if self._looking.acquire(blocking=False):
            try:
                found, at = self._read()
                if found is not None:
                    self._decide(found, at)
            finally:
                self._looking.release()
        return self.steady() + self._anchor.offset

    def _read(self) -> tuple[int | None, int]:
        """The wall clock less steady time, and steady time. A process that was stopped between two
        readings must not take that for a step."""
        at = self.steady()
        for _ in range(_READINGS):
            before, wall = self.steady(), self._wall_ns() // 1_000_000
            at = self.steady()
            if at - before <= _CLOSE_MS:
                return wall - at, at
        return None, at

    def _decide(self, found: int, at: int) -> None:
        was = self._anchor
        anchor = self._follow(was, found, at)
        if anchor is was:
            return
        known = self._anchors.load()
        if known is not None:  # another process may have seen it before
            joined = self._follow(known, found, at)
            if joined.other is None or anchor.other is not None:
                anchor = joined
        if anchor != known:
            self._anchors.save(anchor)
        step = anchor.offset - was.offset
        if abs(step) > DRIFT_MS:
            self._adopted = step, at
        self._believe(anchor)
        if was.other != anchor.other or abs(step) > DRIFT_MS:
            self._changed(was, anchor)

    def _follow(self, was: Anchor, found: int, at: int) -> Anchor:
        return follow(was, found=found, at=at, settle_ms=self._settle_ms)
