"""Plans: when messages are due, and what is refused before the first one."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everpost.loadtest.plan import (
    MOST_RATE,
    MOST_SECONDS,
    Arrivals,
    BadPlan,
    Step,
    check,
    offsets,
    parse_ramp,
    parse_rates,
)

UNIFORM, POISSON = Arrivals.UNIFORM, Arrivals.POISSON


def _due(step: Step, arrivals: Arrivals = UNIFORM, *, seed: int = 1, batch: int = 1) -> list[float]:
    return list(offsets(step, arrivals, random.Random(seed), batch=batch))


def test_a_steady_rate_is_not_steady() -> None:
    due = _due(Step.steady(200, 2))
    assert len(due) == 400
    gaps = {round(b - a, 9) for a, b in itertools.pairwise(due)}
    assert (due[0], gaps) == (0.0, {0.005})


@given(
    first=st.floats(0, 500), last=st.floats(0.1, 500), seconds=st.floats(0.1, 20),
    arrivals=st.sampled_from(Arrivals),
)  # fmt: skip
def test_a_message_is_due_outside_its_step_or_out_of_order(
    first: float, last: float, seconds: float, arrivals: Arrivals
) -> None:
    step = Step(first, last, seconds)
    due = _due(step, arrivals)
    assert due == sorted(due)
    assert all(0 <= at <= seconds * (1 + 1e-9) for at in due)
    if arrivals is UNIFORM:
        assert abs(len(due) - step.messages) <= 1


def test_a_ramp_sends_as_much_in_its_first_half_as_in_its_second() -> None:
    due = _due(Step(0, 400, 10))
    assert len(due) == 2000
    assert sum(at < 5 for at in due) == 500  # a quarter of the triangle
    falling = _due(Step(400, 0, 10))
    assert sum(at < 5 for at in falling) == 1500


def test_chance_arrivals_that_are_evenly_spread_or_of_another_rate() -> None:
    due = _due(Step.steady(500, 20), POISSON)
    gaps = [b - a for a, b in itertools.pairwise(due)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(1 / 500, rel=0.05)
    assert deviation == pytest.approx(mean, rel=0.05)  # as of an exponential distribution


def test_a_seed_that_does_not_repeat_its_arrivals() -> None:
    step = Step(10, 100, 5)
    assert _due(step, POISSON, seed=7) == _due(step, POISSON, seed=7)
    assert _due(step, POISSON, seed=7) != _due(step, POISSON, seed=8)


def test_a_batch_that_counts_as_one_message() -> None:
    assert len(_due(Step.steady(1000, 2), batch=50)) == 40


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([], "no step"),
        ([Step.steady(MOST_RATE + 1, 1)], "at most 20000"),
        ([Step.steady(1, MOST_SECONDS), Step.steady(1, 1)], "at most 3600 s"),
        ([Step.steady(100, 11)], "1100 messages, and 1000 are allowed"),
        ([Step.steady(0, 5)], "above zero"),
        ([Step.steady(5, 0)], "above zero"),
        ([Step.steady(-5, 5)], "positive"),
        ([Step.steady(float("nan"), 5)], "positive"),
        ([Step.steady(5, float("inf"))], "positive"),
    ],
)
def test_a_plan_without_bounds_is_carried_out(steps: list[Step], said: str) -> None:
    with pytest.raises(BadPlan, match=said):
        check(steps, messages=1000)


def test_a_plan_within_its_bounds_is_refused() -> None:
    check([Step.steady(100, 5), Step(0, 200, 5)], messages=1000)


def test_rates_and_ramps_are_read_wrongly() -> None:
    assert [step.label for step in parse_rates("100,250.5", 3)] == ["100/s", "250.5/s"]
    assert parse_ramp("100:1000", 3) == [Step(100, 1000, 3)]
    for parse, text in ((parse_rates, "1,x"), (parse_rates, ""), (parse_ramp, "1-2")):
        with pytest.raises(BadPlan):
            parse(text, 3)
