"""A schedule that another run cannot repeat, a row of the catalogue that no fault stands for, or
faults that undo each other and meet."""

from itertools import combinations

import pytest

from tests.chaos.nemesis import Fault, exclude
from tests.cluster.faults import Faults
from tests.cluster.nemesis import FAULTS, KINDS, OF_DATABASE, ROWS, schedule

FIVE_MINUTES = 300.0
SEEDS = (1, 2, 3, 7, 2026)


def meeting(plan: list[Fault]) -> list[tuple[str, str]]:
    return [(a.name, b.name) for a, b in combinations(plan, 2) if a.at <= b.at < a.end]


def test_the_same_seed_gives_another_schedule() -> None:
    assert schedule(7, FIVE_MINUTES) == schedule(7, FIVE_MINUTES)
    assert schedule(7, FIVE_MINUTES) != schedule(8, FIVE_MINUTES)


def test_a_row_of_the_catalogue_has_no_fault_or_a_fault_no_row() -> None:
    named = {name for names in ROWS.values() for name in names}
    assert named <= set(FAULTS)
    assert set(FAULTS) - named == {"switchover", "sink_swallow", "sink_down"}


def test_the_database_alone_is_asked_for_processes_that_it_has_not() -> None:
    assert set(FAULTS) - set(OF_DATABASE) == {
        *("node_kill", "node_pause", "node_restart", "leader_pause", "sink_swallow", "sink_down")
    }


def test_a_fault_that_nobody_can_do() -> None:
    for name in FAULTS:
        assert name.startswith("sink_") or callable(getattr(Faults, f"_{name}", None)), name


@pytest.mark.parametrize("seed", SEEDS)
def test_faults_meet_that_exclude_each_other_or_none_meet_at_all(seed: int) -> None:
    pairs = meeting(schedule(seed, FIVE_MINUTES))
    assert not [pair for pair in pairs if exclude(*pair, kinds=KINDS)]
    assert [pair for pair in pairs if "db" in KINDS[pair[0]].holds]  # F91


@pytest.mark.parametrize("seed", SEEDS)
def test_something_is_still_broken_at_the_end(seed: int) -> None:
    plan = schedule(seed, FIVE_MINUTES)
    assert plan
    assert max(fault.end for fault in plan) <= FIVE_MINUTES


def test_a_paused_host_wakes_before_its_lease_has_ended() -> None:
    names = ("hostkill", "partition", "freeze", "patronikill")
    plan = schedule(3, 600.0, faults=names)
    assert {fault.name for fault in plan} == set(names)
    assert min(fault.length for fault in plan) > 20
