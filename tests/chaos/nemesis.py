"""Which fault comes when: decided by the seed alone."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "FAULTS",
    "FEW",
    "HUNG_S",
    "KINDS",
    "LEASE_S",
    "Fault",
    "Kind",
    "exclude",
    "kind",
    "schedule",
]

LEASE_S = 8.0
"""`dispatch.lease_s` of the server that is tormented."""
HUNG_S = 12.0
"""Its `node.hung_s`."""


@dataclass(frozen=True, slots=True)
class Kind:
    """`often`: times a round. `length`: seconds that it takes, with its healing, at least and at
    most. `pause`: seconds until the next fault may begin; less than `length` where it is to meet
    others. Two faults never meet where one `holds` what the other holds or `needs`."""

    often: int
    length: tuple[float, float]
    pause: float
    holds: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()


def kind(often: int, length: tuple[float, float], pause: float, what: str) -> Kind:
    """`what`: what it holds, a stroke, what it needs."""
    holds, _, needs = what.partition("/")
    return Kind(often, length, pause, frozenset(holds.split()), frozenset(needs.split()))


# house: its processes; running: none of them stands still; disk, clock, sinks: they are as they
# should be; calls: the one tracer that may be attached.
KINDS = {
    "kill_api": kind(2, (0.1, 0.1), 1.6, "/ house"),
    "kill_dispatch": kind(7, (0.1, 0.1), 1.4, "/ house"),
    "kill_dispatchers": kind(4, (0.2, 0.2), 2.2, "/ house"),
    "kill_children": kind(7, (0.3, 0.3), 3.0, "/ house"),
    "kill_all": kind(3, (3.0, 3.0), 3.5, "house"),
    "term": kind(1, (0.5, 0.5), 1.5, "/ house running"),
    "reload": kind(1, (1.0, 4.0), 1.0, "reload / house running"),
    "pause_short": kind(1, (0.5, LEASE_S / 2), 0.7, "running / house"),
    "pause_lease": kind(1, (LEASE_S + 1, LEASE_S + 2), 0.7, "running / house"),
    "pause_hung": kind(1, (HUNG_S + 3, HUNG_S + 3), 0.7, "running / house"),
    "pause_all": kind(1, (1.0, LEASE_S + 1), 2.0, "house"),
    "power": kind(2, (4.0, 4.0), 4.5, "house disk clock"),
    "power_twice": kind(1, (6.0, 6.0), 6.5, "house disk clock"),
    "flip": kind(1, (7.0, 7.0), 7.0, "house disk clock sinks"),
    "io_error": kind(1, (0.7, 1.2), 0.4, "calls / house running disk"),
    "io_full": kind(1, (0.7, 1.2), 0.4, "calls / house running disk"),
    "io_slow": kind(1, (1.0, 1.5), 0.3, "calls / house running disk"),
    "disk_full": kind(1, (2.0, 3.5), 1.0, "disk / house"),
    "clock_ahead": kind(1, (2.0, 6.0), 0.3, "clock"),
    "clock_back": kind(1, (2.0, 6.0), 0.3, "clock"),
    "clock_strobe": kind(1, (2.0, 4.0), 0.3, "clock"),
    "sink_swallow": kind(1, (1.0, 2.0), 0.3, "sinks"),
    "sink_refuse_421": kind(1, (2.0, 5.0), 0.3, "sinks"),
    "sink_refuse_451": kind(1, (2.0, 5.0), 0.3, "sinks"),
    "sink_reset_in_data": kind(1, (1.0, 3.0), 0.3, "sinks"),
    "sink_slow_dot": kind(1, (2.0, 8.0), 0.3, "sinks"),
    "sink_down": kind(1, (2.0, 6.0), 0.3, "sinks"),
}

FAULTS = tuple(KINDS)
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


def exclude(one: str, other: str, *, kinds: Mapping[str, Kind] = KINDS) -> bool:
    """Whether faults of these kinds must not meet."""
    a, b = kinds[one], kinds[other]
    return bool(a.holds & (b.holds | b.needs) or b.holds & a.needs)


def schedule(
    seed: int,
    seconds: float,
    *,
    faults: Sequence[str] = FAULTS,
    kinds: Mapping[str, Kind] = KINDS,
) -> list[Fault]:
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
            bag += _round(rng, faults, kinds, first=not plan)
        fault = _next(rng, plan, bag, kinds, at=round(at, 3), seconds=seconds)
        if fault is None:
            at += 0.25
            continue
        bag.remove(fault.name)
        plan.append(fault)
        at += kinds[fault.name].pause * rng.uniform(0.8, 1.4)
    return plan


def _round(
    rng: random.Random, faults: Sequence[str], kinds: Mapping[str, Kind], *, first: bool
) -> list[str]:
    """In the first, each kind comes once before any comes again."""
    once, more = list(faults), [f for f in faults for _ in range(kinds[f].often - 1)]
    rng.shuffle(once)
    rng.shuffle(more)
    bag = once + more
    if not first:
        rng.shuffle(bag)
    return bag


def _next(
    rng: random.Random,
    plan: Sequence[Fault],
    bag: Sequence[str],
    kinds: Mapping[str, Kind],
    *,
    at: float,
    seconds: float,
) -> Fault | None:
    active = [fault for fault in plan if fault.end > at]
    for name in bag:
        if any(exclude(name, fault.name, kinds=kinds) for fault in active):
            continue
        fault = Fault(at, name, rng.random(), round(rng.uniform(*kinds[name].length), 3))
        if fault.end <= seconds:
            return fault
    return None
