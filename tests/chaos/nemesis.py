"""Which fault comes when: decided by the seed alone."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["FAULTS", "FEW", "HUNG_S", "LEASE_S", "Fault", "exclude", "schedule"]

LEASE_S = 8.0
"""`dispatch.lease_s` of the server that is tormented."""
HUNG_S = 12.0
"""Its `node.hung_s`."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """`often`: times a round. `length`: seconds that it takes, with its healing, at least and at
    most. `pause`: seconds until the next fault may begin; less than `length` where it is to meet
    others. Two faults never meet where one `holds` what the other holds or `needs`."""

    often: int
    length: tuple[float, float]
    pause: float
    holds: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()


def _kind(often: int, length: tuple[float, float], pause: float, what: str) -> _Kind:
    """`what`: what it holds, a stroke, what it needs."""
    holds, _, needs = what.partition("/")
    return _Kind(often, length, pause, frozenset(holds.split()), frozenset(needs.split()))


# house: its processes; running: none of them stands still; disk, clock, sinks: they are as they
# should be; calls: the one tracer that may be attached.
_KINDS = {
    "kill_api": _kind(2, (0.1, 0.1), 1.6, "/ house"),
    "kill_dispatch": _kind(7, (0.1, 0.1), 1.4, "/ house"),
    "kill_dispatchers": _kind(4, (0.2, 0.2), 2.2, "/ house"),
    "kill_children": _kind(7, (0.3, 0.3), 3.0, "/ house"),
    "kill_all": _kind(3, (3.0, 3.0), 3.5, "house"),
    "term": _kind(1, (0.5, 0.5), 1.5, "/ house running"),
    "reload": _kind(1, (1.0, 4.0), 1.0, "reload / house running"),
    "pause_short": _kind(1, (0.5, LEASE_S / 2), 0.7, "running / house"),
    "pause_lease": _kind(1, (LEASE_S + 1, LEASE_S + 2), 0.7, "running / house"),
    "pause_hung": _kind(1, (HUNG_S + 3, HUNG_S + 3), 0.7, "running / house"),
    "pause_all": _kind(1, (1.0, LEASE_S + 1), 2.0, "house"),
    "power": _kind(2, (4.0, 4.0), 4.5, "house disk clock"),
    "power_twice": _kind(1, (6.0, 6.0), 6.5, "house disk clock"),
    "flip": _kind(1, (7.0, 7.0), 7.0, "house disk clock sinks"),
    "io_error": _kind(1, (0.7, 1.2), 0.4, "calls / house running disk"),
    "io_full": _kind(1, (0.7, 1.2), 0.4, "calls / house running disk"),
    "io_slow": _kind(1, (1.0, 1.5), 0.3, "calls / house running disk"),
    "disk_full": _kind(1, (2.0, 3.5), 1.0, "disk / house"),
    "clock_ahead": _kind(1, (2.0, 6.0), 0.3, "clock"),
    "clock_back": _kind(1, (2.0, 6.0), 0.3, "clock"),
    "clock_strobe": _kind(1, (2.0, 4.0), 0.3, "clock"),
    "sink_swallow": _kind(1, (1.0, 2.0), 0.3, "sinks"),
    "sink_refuse_421": _kind(1, (2.0, 5.0), 0.3, "sinks"),
    "sink_refuse_451": _kind(1, (2.0, 5.0), 0.3, "sinks"),
    "sink_reset_in_data": _kind(1, (1.0, 3.0), 0.3, "sinks"),
    "sink_slow_dot": _kind(1, (2.0, 8.0), 0.3, "sinks"),
    "sink_down": _kind(1, (2.0, 6.0), 0.3, "sinks"),
}

FAULTS = tuple(_KINDS)
FEW = ("kill_api", "kill_dispatch", "kill_all", "pause_short", "power", "sink_swallow")
"""For a run of a few seconds."""

_FIRST_AT = 1.0
_QUIET_EVERY_S = 20.0
_QUIET_S = 2.5
"""So often, for so long, no fault begins: children live long enough to be healthy again."""


_WAITING = 8
"""So many may have let others go first; with these alone nothing might begin for a while."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`at`: seconds after the start; `pick`: chooses what is open, in [0, 1); `length`: seconds
    after which it is healed."""

    at: float
    name: str
    pick: float
    length: float

    @property
    def end(self) -> float:
        return self.at + self.length


def exclude(one: str, other: str) -> bool:
    """Whether faults of these kinds must not meet."""
    a, b = _KINDS[one], _KINDS[other]
    return bool(a.holds & (b.holds | b.needs) or b.holds & a.needs)


def schedule(seed: int, seconds: float, *, faults: Sequence[str] = FAULTS) -> list[Fault]:
    """In order of `at`; the same arguments give the same. All is healed by `seconds`.

    Each round has each kind as often as its weight says, in an order of its own; a fault that
    would meet one that excludes it lets others go first.
    """
    rng = random.Random(seed)
    plan: list[Fault] = []
    bag: list[str] = []
    at, quiet = _FIRST_AT, _QUIET_EVERY_S
    while at < seconds:
        if at > quiet:
            at, quiet = at + _QUIET_S, quiet + _QUIET_EVERY_S
        if len(bag) <= _WAITING:
            bag += _round(rng, faults, first=not plan)
        fault = _next(rng, plan, bag, at=round(at, 3), seconds=seconds)
        if fault is None:
            at += 0.25
            continue
        bag.remove(fault.name)
        plan.append(fault)
        at += _KINDS[fault.name].pause * rng.uniform(0.8, 1.4)
    return plan


def _round(rng: random.Random, faults: Sequence[str], *, first: bool) -> list[str]:
    """In the first, each kind comes once before any comes again."""
    once, more = list(faults), [f for f in faults for _ in range(_KINDS[f].often - 1)]
    rng.shuffle(once)
    rng.shuffle(more)
    bag = once + more
    if not first:
        rng.shuffle(bag)
    return bag


def _next(
    rng: random.Random, plan: Sequence[Fault], bag: Sequence[str], *, at: float, seconds: float
) -> Fault | None:
    active = [fault for fault in plan if fault.end > at]
    for name in bag:
        if any(exclude(name, fault.name) for fault in active):
            continue
        fault = Fault(at, name, rng.random(), round(rng.uniform(*_KINDS[name].length), 3))
        if fault.end <= seconds:
            return fault
    return None
