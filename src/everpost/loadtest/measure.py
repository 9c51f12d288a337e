"""What was seen of each message, added up by step and by second.

Every duration of a message begins at its intended start: what the generator or a stalled server
made it wait is part of it (no coordinated omission). Times are monotonic seconds.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from everpost.loadtest.histogram import Histogram
from everpost.loadtest.plan import Step

__all__ = ["Measure", "Missing", "Second", "StepTally"]

_WAITED = frozenset({"timeout", "unsent", "unfinished"})
_MOST_SECONDS = 4 * 3600
"""Of a run with its drain; what a clock that is ahead puts later counts as the last one."""
KEPT_IDS = 100
"""How many missing messages are named."""


class Second:
    """One second of a run, counted from its start."""

    __slots__ = ("accepted", "arrived", "delivery", "failed", "latency", "planned", "sent")

    def __init__(self) -> None:
        self.planned = self.sent = self.accepted = self.failed = self.arrived = 0
        self.latency = Histogram()
        self.delivery = Histogram()

    def as_json(self) -> dict[str, Any]:
        latency = [_ms(value) for value in self.latency.all_at((0.5, 0.99, 1.0))]
        return {
            "planned": self.planned,
            "sent": self.sent,
            "accepted": self.accepted,
            "failed": self.failed,
            "arrived": self.arrived,
            "latency_ms": dict(zip(("p50", "p99", "max"), latency, strict=True)),
            "delivery_p99_ms": _ms(self.delivery.at(0.99)),
        }


@dataclass(slots=True)
class StepTally:
    """What became of a step's messages. `began` and `ended`: when its first was due, and its end as
    planned. `half_…`: of the second half, to tell whether delivery keeps up."""

    step: Step
    began: float
    ended: float = 0.0
    planned: int = 0
    sent: int = 0
    accepted: int = 0
    failed: int = 0
    arrived: int = 0
    last_sent: float = 0.0
    last_accepted: float = 0.0
    last_arrived: float = 0.0
    half_accepted: int = 0
    half_arrived: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    latency: Histogram = field(default_factory=Histogram)
    from_start: Histogram = field(default_factory=Histogram)
    from_accept: Histogram = field(default_factory=Histogram)
    lag: Histogram = field(default_factory=Histogram)
    queued: Histogram = field(default_factory=Histogram)

    @property
    def half(self) -> float:
        return self.began + self.step.seconds / 2

    def per_second(self, count: int, last: float) -> float:
        """The rate of `count` things of which the last was at `last`: over the step, or longer
        where they ended after it."""
        seconds = max(self.ended, last) - self.began
        return count / seconds if seconds > 0 else 0.0

    @property
    def error_share(self) -> float:
        """Failed among all that were decided, 0 to 1."""
        decided = self.accepted + self.failed
        return self.failed / decided if decided else 0.0


@dataclass(frozen=True, slots=True)
class Missing:
    """A message that was accepted and did not arrive in full. `id` is the API's."""

    number: int
    id: str
    recipients: int


class _Pending:
    """A message that has not arrived in full. `accepted` is 0.0 until it was."""

    __slots__ = ("accepted", "id", "intended", "last", "left", "tally")

    def __init__(self, tally: StepTally, intended: float, recipients: int) -> None:
        self.tally = tally
        self.intended = intended
        self.left = recipients
        self.accepted = 0.0
        self.last = 0.0
        self.id = ""


class Measure:
    """Takes what the generator and the sink's feed report. `arrivals`: there is such a feed."""

    def __init__(self, run: str, *, began: float, arrivals: bool) -> None:
        self.run = run
        self.began = began
        self.arrivals = arrivals
        self.steps: list[StepTally] = []
        self.seconds: list[Second] = []
        self.retry_after: Counter[str] = Counter()
        self.planned = self.sent = self.accepted = self.failed = self.arrived = 0
        self.duplicates = 0
        self.foreign = 0
        self.unacknowledged = 0
        self._pending: dict[int, _Pending] = {}
        self._failed: dict[int, int] = {}
        self._next = 0

    # -- the generator -----------------------------------------------------------------------------

    def begin(self, step: Step, at: float) -> StepTally:
        """A step begins; its messages are counted in what this returns."""
        tally = StepTally(step, at, at + step.seconds)
        self.steps.append(tally)
        return tally

    def number(self, tally: StepTally, intended: float, recipients: int) -> int:
        """The number of the next message, which is due at `intended`."""
        n = self._next
        self._next += 1
        self.planned += 1
        tally.planned += 1
        self._second(intended).planned += 1
        if self.arrivals:
            self._pending[n] = _Pending(tally, intended, recipients)
        return n

    def was_sent(self, tally: StepTally, count: int, now: float) -> None:
        self.sent += count
        tally.sent += count
        tally.last_sent = now
        self._second(now).sent += count

    def was_accepted(
        self, tally: StepTally, first: int, ids: list[str], *, intended: float, now: float
    ) -> None:
        """The request with messages `first` and following was accepted under these ids."""
        count = len(ids)
        self.accepted += count
        tally.accepted += count
        tally.last_accepted = now
        if intended >= tally.half:
            tally.half_accepted += count
        tally.latency.add(now - intended, count)
        self._second(now).accepted += count
        self._second(intended).latency.add(now - intended, count)
        if not self.arrivals:
            return
        for n, id_ in enumerate(ids, first):
            pending = self._pending.get(n)
            if pending is None:
                continue
            pending.accepted, pending.id = now, id_
            if pending.left <= 0:
                self._complete(n, pending)

    def has_failed(
        self, tally: StepTally, first: int, count: int, kind: str, *, intended: float, now: float
    ) -> None:
        """The request was refused, or had no answer. One that waited in vain is in the latencies,
        too, with the time that it had: else a server that answers nothing would look fast."""
        self.failed += count
        tally.failed += count
        tally.errors[kind] += count
        self._second(now).failed += count
        if kind in _WAITED:
            tally.latency.add(now - intended, count)
            self._second(intended).latency.add(now - intended, count)
        if not self.arrivals:
            return
        for n in range(first, first + count):
            pending = self._pending.pop(n, None)
            if pending is not None:
                self._failed[n] = 0 if pending.last else pending.left
                if pending.last:
                    self.unacknowledged += 1

    # -- the far end -------------------------------------------------------------------------------

    def has_arrived(self, mark: str, recipients: int, at: float) -> None:
        """The sink took a message with this mark for so many recipients at this time."""
        run, dot, digits = mark.rpartition(".")
        if not dot or run != self.run or not digits.isdecimal():
            self.foreign += 1
            return
        n = int(digits)
        pending = self._pending.get(n)
        if pending is None:
            if n in self._failed:
                if self._failed.pop(n) > 0:
                    self.unacknowledged += 1
            else:
                self.duplicates += 1
            return
        pending.left -= recipients
        pending.last = at
        if pending.left <= 0 and pending.accepted:
            self._complete(n, pending)

    def _complete(self, n: int, pending: _Pending) -> None:
        del self._pending[n]
        if pending.left < 0:
            self.duplicates += 1
        tally, at = pending.tally, pending.last
        self.arrived += 1
        tally.arrived += 1
        tally.last_arrived = max(tally.last_arrived, at)
        if tally.half <= at < tally.ended:
            tally.half_arrived += 1
        tally.from_start.add(at - pending.intended)
        tally.from_accept.add(at - pending.accepted)
        self._second(at).arrived += 1
        self._second(pending.intended).delivery.add(at - pending.intended)

    # -- reading -----------------------------------------------------------------------------------

    @property
    def decided(self) -> bool:
        """Whether each message that was due has an answer."""
        return self.accepted + self.failed >= self.planned

    @property
    def backlog(self) -> int:
        """Accepted and not yet arrived in full."""
        return self.accepted - self.arrived

    def measured(self) -> list[StepTally]:
        return [tally for tally in self.steps if tally.step.measured]

    def missing(self) -> tuple[int, list[Missing]]:
        """How many accepted messages have not arrived in full, and the first of them."""
        gone = [(n, p) for n, p in self._pending.items() if p.accepted]
        return len(gone), [Missing(n, p.id, p.left) for n, p in gone[:KEPT_IDS]]

    def _second(self, at: float) -> Second:
        index = min(max(int(at - self.began), 0), _MOST_SECONDS)
        seconds = self.seconds
        while index >= len(seconds):
            seconds.append(Second())
        return seconds[index]


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
