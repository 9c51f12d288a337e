"""When messages are due: decided before the first is sent, whatever the server does later."""

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

__all__ = [
    "MOST_MESSAGES",
    "MOST_RATE",
    "MOST_SECONDS",
    "Arrivals",
    "BadPlan",
    "Step",
    "check",
    "offsets",
    "parse_ramp",
    "parse_rates",
]

MOST_RATE = 20_000.0
"""Messages a second."""
MOST_SECONDS = 3_600.0
"""Of all steps together."""
MOST_MESSAGES = 2_000_000
"""What --messages may be raised to."""


class BadPlan(ValueError):
    """The plan cannot be carried out; the text says why."""


class Arrivals(StrEnum):
    """How messages are spread over a step: evenly, or independent of each other as those of many
    users are (a Poisson process of the same rate)."""

    UNIFORM = "uniform"
    POISSON = "poisson"


@dataclass(frozen=True, slots=True)
class Step:
    """`seconds` long, from `first` to `last` messages a second. What is not `measured` warms up."""

    first: float
    last: float
    seconds: float
    measured: bool = True

    @classmethod
    def steady(cls, rate: float, seconds: float, *, measured: bool = True) -> "Step":
        return cls(rate, rate, seconds, measured)

    @property
    def messages(self) -> float:
        """Expected number."""
        return (self.first + self.last) / 2 * self.seconds

    @property
    def label(self) -> str:
        if self.first == self.last:
            return f"{self.first:g}/s"
        return f"{self.first:g}-{self.last:g}/s"


def check(steps: Sequence[Step], *, messages: int) -> None:
    """Raise BadPlan unless the steps are possible and together within the bounds."""
    if not steps:
        raise BadPlan("there is no step")
    for step in steps:
        rates = (step.first, step.last)
        if not all(map(math.isfinite, (*rates, step.seconds))) or min(rates) < 0:
            raise BadPlan("rates and durations are positive numbers")
        if max(rates) <= 0 or step.seconds <= 0:
            raise BadPlan("a step needs a rate and a duration above zero")
        if max(rates) > MOST_RATE:
            raise BadPlan(f"{max(rates):g} messages a second; at most {MOST_RATE:g} are possible")
    seconds = sum(step.seconds for step in steps)
    if seconds > MOST_SECONDS:
        raise BadPlan(f"the steps last {seconds:g} s; at most {MOST_SECONDS:g} s are possible")
    wanted = math.ceil(sum(step.messages for step in steps))
    if wanted > messages:
        raise BadPlan(
            f"the plan sends {wanted} messages, and {messages} are allowed; "
            f"--messages raises that, to {MOST_MESSAGES} at most"
        )


def offsets(step: Step, arrivals: Arrivals, chance: Random, *, batch: int = 1) -> "array[float]":
    """Seconds from the start of the step at which each request of `batch` messages is due."""
    due: array[float] = array("d")
    first, last = step.first / batch, step.last / batch
    total = (first + last) / 2 * step.seconds
    if arrivals is Arrivals.UNIFORM:
        for k in range(math.floor(total + 1e-6)):
            due.append(_when(k, first, last, step.seconds))
        return due
    # A Poisson process of changing rate is one of rate 1 whose time was stretched.
    passed = chance.expovariate(1.0)
    while passed < total:
        due.append(_when(passed, first, last, step.seconds))
        passed += chance.expovariate(1.0)
    return due


def _when(k: float, first: float, last: float, seconds: float) -> float:
    """When `k` requests are due, of a rate that goes in a straight line from `first` to `last`."""
    slope = (last - first) / seconds
    if abs(slope) < 1e-12:
        return k / first
    # k = first·t + slope/2·t², solved for t in the form that does not cancel out.
    return 2 * k / (first + math.sqrt(max(first * first + 2 * slope * k, 0.0))) if k else 0.0


def parse_rates(text: str, seconds: float) -> list[Step]:
    """`100,200,400`: a step of each rate. Raises BadPlan."""
    return [Step.steady(_rate(word), seconds) for word in text.split(",")]


def parse_ramp(text: str, seconds: float) -> list[Step]:
    """`100:1000`: one step from a rate to another. Raises BadPlan."""
    first, colon, last = text.partition(":")
    if not colon:
        raise BadPlan(f"{text!r} is no ramp: say it as in 100:1000")
    return [Step(_rate(first), _rate(last), seconds)]


def _rate(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise BadPlan(f"{word!r} is no rate") from None
