"""The histogram: quantiles as exact as promised, merging, keeping."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everpost.loadtest.histogram import Histogram

SECONDS = st.lists(st.floats(0, 5000), min_size=1, max_size=200)


def _of(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(SECONDS, st.floats(0.001, 1))
def test_a_quantile_is_further_off_than_a_cell_is_wide(values: list[float], share: float) -> None:
    found = _of(values).at(share)
    exact = sorted(values)[max(math.ceil(share * len(values)), 1) - 1]
    assert found is not None
    assert exact - 2e-6 <= found <= exact * (1 + 1 / 128) + 2e-6


@given(SECONDS, SECONDS)
def test_merging_differs_from_counting_everything_in_one(a: list[float], b: list[float]) -> None:
    merged = _of(a)
    merged.merge(_of(b))
    assert merged.as_json() == _of(a + b).as_json()


@given(SECONDS)
def test_a_kept_histogram_comes_back_different(values: list[float]) -> None:
    whole = _of(values)
    again = Histogram.from_json(json.loads(json.dumps(whole.as_json())))
    assert again.as_json() == whole.as_json()
    assert list(again.percentiles()) == list(whole.percentiles())
    assert list(whole.percentiles())[-1] == (1.0, whole.at(1.0))


def test_an_empty_histogram_claims_something() -> None:
    empty = Histogram()
    assert (empty.at(0.99), empty.mean, list(empty.percentiles())) == (None, None, [])
    full = _of([0.5])
    full.merge(empty)
    assert (full.count, full.minimum) == (1, 500_000)


def test_time_below_zero_and_counts() -> None:
    histogram = Histogram()
    histogram.add(-1.0)
    histogram.add(2.0, 3)
    assert (histogram.count, histogram.minimum, histogram.at(1.0)) == (4, 0, 2.0)
    assert histogram.mean == pytest.approx(1.5)
