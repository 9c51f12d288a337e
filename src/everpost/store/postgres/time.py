"""The database's time, which is the time of all its nodes.

Every transaction brings it along. In between it goes on by the host's own steady clock, which no
step of the wall clock touches: a node whose wall clock is two hours off behaves all the same.
"""

import time
from collections import deque
from collections.abc import Callable
from functools import partial

__all__ = ["DatabaseClock"]

_steady_ns = partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)

_RECENT = 32
"""Answers that are remembered; the one that took the shortest is believed."""
_SLACK_NS = 20_000_000
"""What clocks that run at different speeds, and whole milliseconds, may add to how far two answers
are apart. One of before that is further off tells of another time: this host was paused, or another
server took over, or the database's clock was set."""


class DatabaseClock:
    """A `Clock` whose `now` and `steady` are the database's time in milliseconds, as far as is
    known: `learn` tells it. Before the first answer it is the wall clock's. When no database
    answers it goes on. Safe to use from several threads."""

    __slots__ = ("_offset_ns", "_recent", "_steady_ns", "_wall_ns")

    def __init__(
        self,
        *,
        wall_ns: Callable[[], int] = time.time_ns,
        steady_ns: Callable[[], int] = _steady_ns,
    ) -> None:
        self._wall_ns = wall_ns
        self._steady_ns = steady_ns
        self._recent: deque[tuple[int, int]] = deque(maxlen=_RECENT)
        self._offset_ns = wall_ns() - steady_ns()

    def now(self) -> int:
        return (self._steady_ns() + self._offset_ns) // 1_000_000

    def steady(self) -> int:
        return self.now()

    def monotonic(self) -> float:
        return time.monotonic()

    def started(self) -> int:
        """What `learn` needs of the moment before a question."""
        return self._steady_ns()

    def learn(self, said_ms: int, *, since: int) -> None:
        """The database said its time, asked at `since` (of `started`), answered now."""
        at = self._steady_ns()
        took = at - since
        offset = said_ms * 1_000_000 + 500_000 - (since + took // 2)
        agreeing = (
            one
            for one in tuple(self._recent)
            if abs(one[1] - offset) <= (one[0] + took) // 2 + _SLACK_NS
        )
        self._recent = deque((*agreeing, (took, offset)), maxlen=_RECENT)
        self._offset_ns = min(self._recent)[1]

    @property
    def skew_ms(self) -> int:
        """The wall clock less the database's time."""
        return self._wall_ns() // 1_000_000 - self.now()
