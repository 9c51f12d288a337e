"""Identifiers sort by age and never repeat."""

from hypothesis import given
from hypothesis import strategies as st

from everpost.ids import DAY_MS, IdMaker, day, made_at, parse, text


def test_ids_of_one_millisecond_stay_in_order() -> None:
    make = IdMaker(lambda: 1_700_000_000_000)
    made = [make() for _ in range(10_000)]
    assert made == sorted(set(made))


def test_a_clock_that_steps_back_does_not_repeat_ids() -> None:
    times = iter([5_000, 4_000, 4_001, 5_000])
    make = IdMaker(lambda: next(times))
    made = [make() for _ in range(4)]
    assert made == sorted(set(made))


def test_a_clock_that_is_set_back_by_hours_is_not_belied_for_hours() -> None:
    times = iter([10_000_000, 2_800_000, 2_800_001])
    make = IdMaker(lambda: next(times))
    assert [made_at(make()) for _ in range(3)] == [10_000_000, 2_800_000, 2_800_001]


@given(st.integers(1, 2**48 - 1), st.binary(min_size=8, max_size=8))
def test_an_id_tells_when_it_was_made(now: int, noise: bytes) -> None:
    id_ = IdMaker(lambda: now, lambda n: noise * (n // 8))()
    assert made_at(id_) == now
    assert day(id_) == now // DAY_MS
    assert parse(text(id_)) == id_
    assert id_[6] >> 4 == 7  # version
    assert id_[8] >> 6 == 2  # variant


@given(st.text(max_size=40))
def test_what_is_no_id_is_refused(value: str) -> None:
    found = parse(value)
    assert found is None or text(found) == value.lower()
