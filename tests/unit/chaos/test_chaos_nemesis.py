"""A schedule that another run cannot repeat, that forgets a kind of fault, that lets faults meet
which undo each other, or that leaves something broken at the end."""

from collections import Counter
from itertools import combinations, pairwise

import pytest

from tests.chaos.nemesis import FAULTS, FEW, Fault, exclude, schedule

TEN_MINUTES = 600.0
SEEDS = (1, 2, 3, 7, 2026)


def meeting(plan: list[Fault]) -> list[tuple[str, str]]:
    return [(a.name, b.name) for a, b in combinations(plan, 2) if a.at <= b.at < a.end]


def test_the_same_seed_gives_another_schedule() -> None:
    assert schedule(7, 120.0) == schedule(7, 120.0)
    assert schedule(7, 120.0) != schedule(8, 120.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_of_ten_minutes_has_too_few_kills_or_power_cuts(seed: int) -> None:
    count = Counter(fault.name for fault in schedule(seed, TEN_MINUTES))
    children = 3  # one that accepts, two that dispatch
    kills = count["kill_api"] + count["kill_dispatch"]
    kills += (children - 1) * count["kill_dispatchers"]
    kills += children * count["kill_children"] + (children + 1) * count["kill_all"]
    assert kills >= 250
    assert count["power"] + 2 * count["power_twice"] + count["flip"] >= 24
    assert set(count) == set(FAULTS)
    assert min(count.values()) >= 4


@pytest.mark.parametrize("seed", SEEDS)
def test_faults_meet_that_exclude_each_other(seed: int) -> None:
    pairs = meeting(schedule(seed, TEN_MINUTES))
    assert not [pair for pair in pairs if exclude(*pair)]
    # A schedule without any meetings would be a poor one.
    families = [{name.partition("_")[0] for name in pair} for pair in pairs]
    for two in ({"kill", "sink"}, {"kill", "io"}, {"kill", "pause"}, {"power", "sink"}):
        assert two in families


@pytest.mark.parametrize("seconds", [12.0, 60.0, TEN_MINUTES])
def test_something_is_still_broken_at_the_end(seconds: float) -> None:
    plan = schedule(3, seconds)
    assert plan
    assert max(fault.end for fault in plan) <= seconds
    assert [fault.at for fault in plan] == sorted(fault.at for fault in plan)


def test_there_is_no_time_in_which_nothing_begins() -> None:
    starts = [fault.at for fault in schedule(3, TEN_MINUTES)]
    gaps = [b - a for a, b in pairwise(starts)]
    assert sum(gap >= 2.5 for gap in gaps) >= TEN_MINUTES / 20 - 3
    assert max(gaps) < 30


@pytest.mark.parametrize("kinds", [("kill_api",), FEW, ("flip", "power_twice", "pause_hung")])
def test_a_kind_that_nobody_asked_for_comes(kinds: tuple[str, ...]) -> None:
    assert {fault.name for fault in schedule(7, 60.0, faults=kinds)} == set(kinds)


def test_a_short_run_has_no_kill_or_no_power_cut() -> None:
    for seed in range(20):
        names = {fault.name for fault in schedule(seed, 20.0, faults=FEW)}
        assert names >= {"power", "kill_all"}
        assert names & {"kill_api", "kill_dispatch"}


@pytest.mark.parametrize(
    ("one", "other"),
    [("power", "clock_ahead"), ("power", "power"), ("flip", "sink_down"), ("io_slow", "pause_all"),
     ("disk_full", "power"), ("pause_lease", "pause_hung"), ("kill_all", "kill_api")],
)  # fmt: skip
def test_which_faults_never_meet(one: str, other: str) -> None:
    assert exclude(one, other)
    assert exclude(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [("power", "sink_swallow"), ("kill_api", "io_slow"), ("kill_dispatch", "pause_lease"),
     ("kill_all", "clock_back"), ("kill_children", "disk_full")],
)  # fmt: skip
def test_which_faults_may_meet(one: str, other: str) -> None:
    assert not exclude(one, other)
    assert not exclude(other, one)
