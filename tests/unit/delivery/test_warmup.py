"""A source address that nobody knows sends no more on a day than its plan has."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everpost.delivery.warmup import plan_for
from everpost.model.relay import Relay, RelayKind

DAY = 86_400_000


def at(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text + "+00:00").timestamp() * 1000)


def relay(*plan: int, since: str = "2026-11-25T22:00") -> Relay:
    return Relay(
        id=b"r", name="r", host="mx", kind=RelayKind.MX, warmup=plan, warmup_from=at(since)
    )


@pytest.mark.parametrize(
    ("now", "allowance"),
    [
        ("2026-11-24T23:59", 0),
        ("2026-11-25T00:00", 50),
        ("2026-11-25T23:59", 50),
        ("2026-11-26T00:00", 100),
        ("2026-11-27T12:00", 500),
        ("2026-11-28T00:00", None),
    ],
)
def test_a_day_that_has_another_days_allowance(now: str, allowance: int | None) -> None:
    assert plan_for(relay(50, 100, 500), at(now)) == allowance


def test_a_relay_without_a_plan_is_held_back() -> None:
    assert plan_for(relay(), at("2026-11-25T00:00")) is None


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=60), st.integers(0, 200 * DAY))
def test_a_plan_that_never_ends(plan: list[int], after: int) -> None:
    warming = relay(*plan)
    allowed = plan_for(warming, warming.warmup_from + after)
    assert (allowed is None) == (
        (warming.warmup_from + after) // DAY - warming.warmup_from // DAY >= len(plan)
    )
    assert allowed is None or allowed in plan
