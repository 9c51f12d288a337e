"""Health: what takes a node out of the load balancer, and what must not."""

import asyncio
from typing import Any

import msgspec
import pytest

from everpost.monitoring import Facts, Health, HealthLimits, judge

GOOD = Facts(store_writable=True, free_bytes=1 << 40, relays=2, sandbox=False)
LIMITS = HealthLimits(free_bytes=1000, clock_off_ms=100)


class Clock:
    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> int:
        return 0

    def steady(self) -> int:
        return 0

    def monotonic(self) -> float:
        return self.at


@pytest.mark.parametrize(
    ("facts", "failing"),
    [
        (GOOD, ()),
        (Facts(store_writable=False, free_bytes=1 << 40, relays=1, sandbox=False), ("store",)),
        (
            Facts(
                store_writable=True, free_bytes=1 << 40, relays=1, sandbox=False, store_sound=False
            ),
            ("store",),
        ),
        (Facts(store_writable=True, free_bytes=999, relays=1, sandbox=False), ("disk",)),
        (Facts(store_writable=True, free_bytes=1000, relays=1, sandbox=False), ()),
        (
            Facts(store_writable=True, free_bytes=1 << 40, relays=1, sandbox=False, draining=True),
            ("draining",),
        ),
        (Facts(store_writable=False, free_bytes=0, relays=0, sandbox=False), ("store", "disk")),
    ],
    ids=str,
)
def test_only_what_prevents_accepting_makes_a_node_unready(
    facts: Facts, failing: tuple[str, ...]
) -> None:
    judgement = judge(facts, LIMITS)
    assert judgement.failing == failing
    assert judgement.ready is not bool(failing)


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        (Facts(store_writable=True, free_bytes=1 << 40, relays=0, sandbox=False), "way_out"),
        (
            Facts(
                store_writable=True, free_bytes=1 << 40, relays=1, sandbox=False, clock_off_ms=-101
            ),
            "clock",
        ),
    ],
    ids=str,
)
def test_trouble_beyond_accepting_is_shown_and_keeps_the_node_in(facts: Facts, name: str) -> None:
    judgement = judge(facts, LIMITS)
    assert judgement.ready
    assert [check.name for check in judgement.checks if not check.ok] == [name]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"store_writable": False}, "cannot be written"),
        ({"store_durable": False, "store_problems": ("one", "two")}, "not safe: one; two"),
    ],
    ids=["away", "not-safe"],
)
def test_a_journal_keeps_a_node_in_while_the_store_takes_nothing(
    change: dict[str, Any], says: str
) -> None:
    without = judge(msgspec.structs.replace(GOOD, **change), LIMITS)
    assert without.failing == ("store",)
    with_it = judge(msgspec.structs.replace(GOOD, journal=True, **change), LIMITS)
    assert with_it.ready
    store = with_it.checks[0]
    assert (store.ok, store.detail) == (False, f"{says} (the journal takes mail)")


def test_a_journal_does_not_stand_in_for_a_damaged_store() -> None:
    facts = msgspec.structs.replace(GOOD, store_sound=False, journal=True)
    assert judge(facts, LIMITS).failing == ("store",)


def test_sandbox_is_a_way_out() -> None:
    facts = Facts(store_writable=True, free_bytes=1 << 40, relays=0, sandbox=True)
    assert all(check.ok for check in judge(facts, LIMITS).checks)


def test_many_questions_gather_facts_once() -> None:
    clock, gathered = Clock(), 0

    async def gather() -> Facts:
        nonlocal gathered
        gathered += 1
        return GOOD

    async def main() -> None:
        health = Health(gather, clock)
        for _ in range(100):
            assert (await health.judgement()).ready
        assert gathered == 1
        clock.at = 1.5
        await health.judgement()
        assert gathered == 2
        health.drain()
        assert (await health.judgement()).failing == ("draining",)

    asyncio.run(main())


def test_facts_that_cannot_be_gathered_make_the_node_unready() -> None:
    async def gather() -> Facts:
        raise OSError("no such file")

    async def main() -> None:
        assert not (await Health(gather, Clock()).judgement()).ready

    asyncio.run(main())
