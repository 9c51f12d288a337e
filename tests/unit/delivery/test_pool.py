"""Which relay comes next, by how much, and which tiers serve."""

import heapq
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everpost.delivery.meter import Meter
from everpost.delivery.pool import (
    LOOK_AGAIN,
    LOOK_AGAIN_SOON,
    Entry,
    Group,
    Turns,
    outlier,
    serving,
)


class Facts:
    """A relay that takes as long as it is told to."""

    def __init__(self, name: str, weight: int = 1, *, takes: float = 0.05, cap: int = 1000) -> None:
        self.name = name
        self.weight = weight
        self.takes = takes
        self.cap = cap
        self.in_flight = 0
        self.part = 1.0
        self.doubtful = False
        self.meter = Meter()

    @property
    def room(self) -> int:
        return self.cap - self.in_flight

    def share(self, now: float) -> float:
        return self.part

    def latency(self, now: float) -> float:
        return self.meter.average if self.in_flight else self.meter.latency(now)


class Pool:
    """Turns, and the relays' work: messages come and are done as time passes."""

    def __init__(self, *relays: Facts, seed: int = 1) -> None:
        self.rng = random.Random(seed)
        self.turns: Turns[Facts] = Turns(self.rng.random)
        self.entries = {relay: Entry(relay) for relay in relays}
        self.turns.serve(tuple(self.entries.values()))
        self.now = 1000.0
        self.ends: list[tuple[float, int, Facts, float]] = []
        self.carried: Counter[str] = Counter()
        self.count = 0

    def run(self, seconds: float, *, rate: float, varies: bool = True) -> dict[str, float]:
        """The share of each relay in so many messages a second."""
        self.carried.clear()
        until = self.now + seconds
        while self.now < until:
            self.now += self.rng.expovariate(rate)
            self.settle()
            relay = self.turns.choose(self.now)
            if relay is not None:
                self.start(relay, varies=varies)
        total = self.carried.total()
        return {name: count / total for name, count in self.carried.items()}

    def start(self, relay: Facts, *, varies: bool) -> None:
        relay.in_flight += 1
        self.carried[relay.name] += 1
        self.count += 1
        took = self.rng.expovariate(1 / relay.takes) if varies else relay.takes
        heapq.heappush(self.ends, (self.now + took, self.count, relay, took))

    def settle(self) -> None:
        while self.ends and self.ends[0][0] <= self.now:
            at, _, relay, took = heapq.heappop(self.ends)
            relay.in_flight -= 1
            relay.meter.worked(took, now=at)
            self.turns.wake(self.entries[relay])


# --- turns ----------------------------------------------------------------------------------------


def order(turns: Turns[Facts], count: int) -> str:
    return "".join(relay.name for _ in range(count) if (relay := turns.choose(0.0)) is not None)


def turns_of(*relays: Facts) -> Turns[Facts]:
    return Pool(*relays).turns


def test_equal_relays_take_turns() -> None:
    assert order(turns_of(Facts("a"), Facts("b"), Facts("c")), 7) == "abcabca"


def test_turns_are_smooth() -> None:
    assert Counter(order(turns_of(Facts("a", 3), Facts("b", 2), Facts("c", 1)), 600)) == {
        "a": 300, "b": 200, "c": 100,
    }  # fmt: skip
    assert "aaa" not in order(turns_of(Facts("a", 2), Facts("b", 2), Facts("c", 1)), 100)


def test_relay_whose_last_transaction_failed_is_passed_over_for_a_few_turns() -> None:
    a, b = Facts("a", 100), Facts("b")
    a.doubtful = True
    assert order(turns_of(a, b), 2 * LOOK_AGAIN_SOON) == ("b" * (LOOK_AGAIN_SOON - 1) + "a") * 2
    b.doubtful = True
    assert order(turns_of(a, b), 5) == "aaaaa"


def test_weight_zero_counts_as_one() -> None:
    assert order(turns_of(Facts("a", 0), Facts("b", 0)), 4) == "abab"


def test_full_relays_are_not_chosen_and_come_back_without_arrears() -> None:
    a, b = Facts("a", cap=1), Facts("b")
    pool = Pool(a, b)
    assert order(pool.turns, 1) == "a"
    a.in_flight = 1
    assert order(pool.turns, 20) == "b" * 20
    a.in_flight = 0
    pool.turns.wake(pool.entries[a])
    pool.turns.wake(pool.entries[a])
    assert "aa" not in order(pool.turns, 10)
    a.in_flight, b.cap = 1, 0
    assert pool.turns.choose(0.0) is None
    assert Turns[Facts](random.Random(1).random).choose(0.0) is None


def test_who_does_not_fit_keeps_its_turn() -> None:
    pool = Pool(Facts("a"), Facts("b"))
    for _ in range(3):
        chosen = pool.turns.choose(0.0, lambda relay: relay.name == "b")
        assert chosen is not None
        assert chosen.name == "b"
    assert pool.turns.choose(0.0, lambda _: False) is None
    assert order(pool.turns, 2)[0] == "a"


def test_who_comes_waits_for_its_turn_and_who_is_tried_is_next() -> None:
    a, b, c = (Facts(name) for name in "abc")
    pool = Pool(a, b)
    order(pool.turns, 101)
    entries = [*pool.entries.values(), Entry(c)]
    pool.turns.serve(entries)
    assert sorted(order(pool.turns, 3)) == ["a", "b", "c"]
    pool.turns.serve(entries[:2])
    assert len(pool.turns) == 2
    assert "c" not in order(pool.turns, 10)
    pool.turns.serve(entries, at_once=[entries[2]])
    assert order(pool.turns, 1) == "c"


def test_share_that_grows_is_a_part_of_the_weight() -> None:
    a, b = Facts("a"), Facts("b")
    a.part = 0.1
    assert Counter(order(turns_of(a, b), 1100))["a"] == pytest.approx(100, abs=2)


@given(
    weights=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    busy=st.lists(st.integers(0, 9), min_size=8, max_size=8),
    seed=st.integers(0, 5),
)
def test_a_choice_has_room_and_nobody_starves(
    weights: list[int], busy: list[int], seed: int
) -> None:
    relays = [Facts(str(n), weight, cap=8) for n, weight in enumerate(weights)]
    for relay, in_flight in zip(relays, busy, strict=False):
        relay.in_flight = in_flight
    pool = Pool(*relays, seed=seed)
    free = {relay.name for relay in relays if relay.room > 0}
    seen = set()
    for _ in range(LOOK_AGAIN * sum(max(weight, 1) for weight in weights)):
        chosen = pool.turns.choose(0.0)
        assert (chosen is None) is (not free)
        if chosen is not None:
            assert chosen.name in free
            seen.add(chosen.name)
    at_ease = {r.name for r in relays if r.name in free and r.in_flight == 0}
    assert at_ease <= seen


# --- shares ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [20, 200, 2000])
@pytest.mark.parametrize("varies", [False, True], ids=["steady", "varying"])
def test_shares_follow_weights_when_all_are_equally_fast(rate: float, varies: bool) -> None:
    pool = Pool(Facts("a", 3), Facts("b", 2), Facts("c", 1))
    shares = pool.run(6000 / rate, rate=rate, varies=varies)
    for name, due in (("a", 3 / 6), ("b", 2 / 6), ("c", 1 / 6)):
        assert shares[name] == pytest.approx(due, rel=0.03)


@pytest.mark.parametrize("rate", [20, 200, 2000])
@pytest.mark.parametrize("weights", [(1, 1), (1, 1, 1), (100, 100), (1, 3, 2)], ids=str)
def test_a_relay_ten_times_slower_gets_little_and_is_looked_at_again(
    rate: float, weights: Sequence[int]
) -> None:
    slow, *others = (Facts(str(n), weight) for n, weight in enumerate(weights))
    slow.takes *= 10
    shares = Pool(slow, *others).run(6000 / rate, rate=rate)
    due = slow.weight / sum(weights)
    assert due / 50 < shares[slow.name] < due / 4


def test_a_relay_that_turns_slow_is_relieved_and_gets_its_share_back() -> None:
    a, b, c = (Facts(name) for name in "abc")
    pool = Pool(a, b, c)
    assert pool.run(10, rate=100)["a"] == pytest.approx(1 / 3, rel=0.03)
    a.takes = 1.0
    pool.run(5, rate=100)
    assert pool.run(10, rate=100)["a"] < 1 / 12
    a.takes = 0.05
    pool.run(60, rate=100)
    assert pool.run(30, rate=100)["a"] == pytest.approx(1 / 3, rel=0.1)


def test_a_relay_that_hangs_holds_little() -> None:
    """It takes mail and never ends it; nothing tells of it but what is in flight."""
    dead, *others = (Facts(name) for name in "abc")
    pool = Pool(dead, *others)
    pool.run(10, rate=100)
    dead.takes = 1e9
    pool.run(30, rate=100, varies=False)
    assert dead.in_flight < 20  # of a thousand that were its due


def test_too_many_in_flight_pass_a_relay_over_before_any_latency_is_known() -> None:
    a, b = Facts("a"), Facts("b")
    a.in_flight = 10
    assert order(turns_of(a, b), LOOK_AGAIN) == "b" * LOOK_AGAIN


# --- tiers ----------------------------------------------------------------------------------------


def groups(*given: tuple[int, float, float]) -> list[Group]:
    return [Group(*each) for each in given]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([(0, 10, 10), (1, 10, 10)], 1),
        ([(0, 10, 5), (1, 10, 10)], 1),
        ([(0, 10, 4.9), (1, 10, 10)], 2),
        ([(0, 10, 4), (1, 10, 1), (2, 10, 10)], 2),
        ([(0, 10, 0), (1, 10, 4), (2, 10, 10)], 3),
        ([(0, 10, 0), (1, 10, 0)], 2),  # who knows
        ([(1, 10, 10), (2, 10, 10)], 1),  # nothing of the first tier is enabled
        ([(0, 6, 6), (0, 4, 4), (1, 10, 10)], 1),  # our own site first
        ([(0, 6, 2.9), (0, 4, 4), (1, 10, 10)], 2),
        ([(0, 6, 0), (0, 4, 4), (1, 10, 10)], 3),  # too little of the whole tier
    ],
    ids=str,
)
def test_the_next_ones_help_when_health_is_below_the_share(given: Any, expected: int) -> None:
    assert serving(groups(*given), spill_below=0.5) == expected


def test_helpers_go_when_there_is_a_little_more_than_enough() -> None:
    def now(healthy: float, before: int, spill_below: float = 0.5) -> int:
        return serving(
            groups((0, 10, healthy), (1, 10, 10)), spill_below=spill_below, now_serving=before
        )

    assert (now(4.9, 1), now(5.2, 1), now(5.2, 2), now(5.6, 2)) == (2, 1, 2, 1)
    assert (now(9.9, 2, 1.0), now(10, 2, 1.0)) == (2, 1)
    assert now(0.1, 1, 0.0) == 1
    assert now(0.0, 1, 0.0) == 2


# --- outliers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("latency", "others", "expected"),
    [
        (30.0, [1.0, 1.0], True),
        (30.0, [1.0], False),
        (9.0, [1.0, 1.0], False),
        (1.0, [0.01, 0.01], False),  # slow beside them, and quick enough
        (2.5, [0.01, 0.02, 3.0], True),
        (30.0, [1.0, 20.0, 20.0], False),
    ],
)
def test_outlier_is_far_slower_than_the_others(
    latency: float, others: Sequence[float], expected: bool
) -> None:
    assert outlier(latency, others) is expected
