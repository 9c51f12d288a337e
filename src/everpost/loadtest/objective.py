"""What a rate must keep, and the search for the highest rate that does. Decides, does nothing."""

import math
from dataclasses import dataclass

from everpost.loadtest.measure import StepTally

__all__ = ["Objective", "Search", "Trial", "generator_fell_behind", "judge"]

_LAG_S = 0.05
"""A generator that starts a twentieth of its requests later than this does not keep its rate; a
single hiccup of a busy machine is none."""
_SHARE = 0.05
_FEW = 5


@dataclass(frozen=True, slots=True)
class Objective:
    """Limits on a step: 99th percentiles in seconds (None: any), the share of requests that may
    fail, 0 to 1. `keep_up`: mail must be delivered as fast as it is accepted."""

    p99: float | None = None
    delivered_p99: float | None = None
    errors: float = 0.01
    keep_up: bool = False


def judge(tally: StepTally, objective: Objective) -> list[str]:
    """What the step missed, in words for people; nothing when the objective was kept."""
    missed = []
    if tally.error_share > objective.errors:
        missed.append(
            f"{tally.error_share:.2%} of the requests failed (at most {objective.errors:.2%})"
        )
    if not tally.accepted:
        missed.append("nothing was accepted")
    for name, found, limit in (
        ("accepted", tally.latency.at(0.99), objective.p99),
        ("delivered", tally.from_start.at(0.99), objective.delivered_p99),
    ):
        if limit is not None and found is not None and found > limit:
            missed.append(f"{name} p99 is {found * 1000:.1f} ms (at most {limit * 1000:g} ms)")
    if objective.keep_up and (late := tally.half_accepted - tally.half_arrived) > _slack(tally):
        missed.append(
            f"delivery fell behind: {late} of {tally.half_accepted} messages in the second half"
        )
    return missed


def _slack(tally: StepTally) -> float:
    """How far delivery may fall behind in half a step and still count as keeping up."""
    return max(_FEW, _SHARE * tally.half_accepted)


def generator_fell_behind(tally: StepTally) -> bool:
    """Whether the generator itself, not the server, limited the step."""
    lag = tally.lag.at(0.95)
    return lag is not None and lag > _LAG_S


@dataclass(frozen=True, slots=True)
class Trial:
    """One rate that was tried. `by_generator`: the generator could not do it."""

    rate: float
    missed: tuple[str, ...]
    by_generator: bool = False

    @property
    def kept(self) -> bool:
        return not self.missed and not self.by_generator


class Search:
    """Doubles the rate until it is too much, then halves the gap until it is below `precision`.

    `next` is the rate to try, None at the end; `note` takes what came of it.
    """

    def __init__(
        self, first: float, *, highest: float, trials: int = 14, precision: float = 0.1
    ) -> None:
        self.trials: list[Trial] = []
        self.kept = 0.0
        self.failed: float | None = None
        self._next: float | None = min(first, highest)
        self._highest = highest
        self._most = trials
        self._precision = precision
        self.ended = ""

    def next(self) -> float | None:
        """The rate to try now."""
        return self._next

    def note(self, trial: Trial) -> None:
        """The outcome of the rate that `next` gave."""
        self.trials.append(trial)
        if trial.kept:
            self.kept = max(self.kept, trial.rate)
        else:
            self.failed = min(self.failed or math.inf, trial.rate)
        self._next = self._choose()

    def stop(self, why: str) -> None:
        """End the search; what is known stands."""
        self._next, self.ended = None, why

    def _choose(self) -> float | None:
        if len(self.trials) >= self._most:
            self.ended = f"{self._most} rates were tried"
            return None
        if self.failed is None:
            if self.kept >= self._highest:
                self.ended = "the highest rate that may be tried was kept"
                return None
            return min(self.kept * 2, self._highest)
        if not self.kept:
            if self.failed <= 1:
                self.ended = "not even one message a second keeps the objective"
                return None
            return _round(max(self.failed / 2, 1.0))
        if self.failed / self.kept <= 1 + self._precision:
            self.ended = f"the answer is exact to {self._precision:.0%}"
            return None
        middle = _round((self.kept + self.failed) / 2)
        if not self.kept < middle < self.failed:
            self.ended = f"the answer is exact to {self.failed - self.kept:g} a second"
            return None
        return middle


def _round(rate: float) -> float:
    """A rate that people can read: two or three digits."""
    if rate < 100:
        return float(round(rate))
    digits = 10.0 ** (math.floor(math.log10(rate)) - 2)
    return round(rate / digits) * digits
