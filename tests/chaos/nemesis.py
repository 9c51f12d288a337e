"""Which fault comes when: decided by the seed alone."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["FAULTS", "Fault", "schedule"]

FAULTS = ("kill", "kill_all", "pause", "power")
_WEIGHTS = {"kill": 10, "kill_all": 2, "pause": 3, "power": 2}
_COST_S = {"kill": 1.0, "kill_all": 3.0, "pause": 1.5, "power": 4.0}


@dataclass(frozen=True, slots=True)
class Fault:
    """`at`: seconds after the start; `pick`: chooses the target, in [0, 1); `length`: seconds."""

    at: float
    name: str
    pick: float
    length: float


def schedule(seed: int, seconds: float, *, faults: Sequence[str] = FAULTS) -> list[Fault]:
    """The same arguments give the same schedule. It begins with one fault of each kind."""
    rng = random.Random(seed)
    first = list(faults)
    rng.shuffle(first)
    plan: list[Fault] = []
    at = 1.0
    while at < seconds:
        weights = [_WEIGHTS[f] for f in faults]
        name = first.pop() if first else rng.choices(list(faults), weights)[0]
        plan.append(Fault(at, name, rng.random(), rng.choice((0.5, 1.0, 9.0))))
        at += _COST_S[name] * rng.uniform(0.8, 1.6)
    return plan
