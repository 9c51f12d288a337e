"""What a rate must keep, and the search for the highest one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everpost.loadtest.measure import StepTally
from everpost.loadtest.objective import Objective, Search, Trial, generator_fell_behind, judge
from everpost.loadtest.plan import Step


def _tally(**counts: int) -> StepTally:
    tally = StepTally(Step.steady(100, 10), 0.0, 10.0)
    for name, value in counts.items():
        setattr(tally, name, value)
    return tally


def test_a_miss_that_is_not_seen() -> None:
    tally = _tally(accepted=900, failed=100, half_accepted=450, half_arrived=300)
    tally.latency.add(0.3)
    tally.from_start.add(2.0)
    missed = judge(tally, Objective(p99=0.2, delivered_p99=1.0, errors=0.05, keep_up=True))
    assert missed == [
        "10.00% of the requests failed (at most 5.00%)",
        "accepted p99 is 300.0 ms (at most 200 ms)",
        "delivered p99 is 2000.0 ms (at most 1000 ms)",
        "delivery fell behind: 150 of 450 messages in the second half",
    ]
    assert judge(tally, Objective(errors=0.2)) == []


def test_nothing_at_all_counts_as_kept() -> None:
    assert judge(_tally(), Objective()) == ["nothing was accepted"]


def test_a_few_messages_on_their_way_count_as_falling_behind() -> None:
    tally = _tally(accepted=40, half_accepted=20, half_arrived=16)
    assert judge(tally, Objective(keep_up=True)) == []


def test_a_late_generator_is_blamed_on_the_server() -> None:
    tally = _tally()
    assert not generator_fell_behind(tally)
    tally.lag.add(0.001, 39)
    tally.lag.add(0.2)
    assert not generator_fell_behind(tally)  # one hiccup
    tally.lag.add(0.2, 5)
    assert generator_fell_behind(tally)


def _play(search: Search, limit: float) -> None:
    while (rate := search.next()) is not None:
        search.note(Trial(rate, () if rate <= limit else ("too much",)))


@given(st.floats(1, 19_000), st.floats(1, 5_000))
def test_the_search_ends_far_from_the_limit(limit: float, first: float) -> None:
    search = Search(first, highest=20_000, trials=40)
    _play(search, limit)
    assert search.ended
    assert search.kept <= limit
    if search.kept:
        # Within a tenth, or of one message a second where that is more.
        assert search.failed is not None
        assert limit < search.failed <= max(search.kept * 1.1 + 1e-9, search.kept + 2)
    else:
        assert limit < 2


def test_the_search_goes_on_for_ever() -> None:
    search = Search(1, highest=20_000, trials=6)
    _play(search, 10_000)
    assert (len(search.trials), search.kept) == (6, 32)
    assert search.ended == "6 rates were tried"


def test_the_search_exceeds_the_highest_rate() -> None:
    search = Search(50, highest=300)
    _play(search, 1e9)
    assert [trial.rate for trial in search.trials] == [50, 100, 200, 300]
    assert search.failed is None


def test_a_server_that_bears_nothing_is_searched_for_ever() -> None:
    search = Search(50, highest=300)
    _play(search, 0)
    assert search.kept == 0
    assert search.ended.startswith("not even one")


def test_a_rate_that_the_generator_could_not_do_counts_as_kept() -> None:
    assert not Trial(50, (), by_generator=True).kept


def test_a_stopped_search_forgets_what_it_knows() -> None:
    search = Search(50, highest=300)
    search.note(Trial(50, ()))
    search.stop("interrupted")
    assert (search.next(), search.kept, search.ended) == (None, 50, "interrupted")


@pytest.mark.parametrize("limit", [3, 47, 812, 12_345])
def test_rates_that_people_cannot_read(limit: float) -> None:
    search = Search(50, highest=20_000)
    _play(search, limit)
    assert all(trial.rate == float(f"{trial.rate:.3g}") for trial in search.trials)
