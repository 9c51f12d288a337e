"""Overload (F14), simulated: stores of several kinds under twenty times what they can take. Goodput
is what is answered within the client's patience; the best that any fixed number in hand reaches on
that store is the measure."""

import heapq
import math
import random
from collections.abc import Callable
from functools import cache

import pytest

from everpost import telemetry
from everpost.api import Admission, AdmissionLimits
from everpost.api.admission import Reason
from everpost.monitoring.room import Room

PATIENCE_S = 5.0
SECONDS = 100.0
COUNTED_FROM_S = 70.0
BATCH = 1024


class Clock:
    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


def _admission(now: Callable[[], float] = lambda: 1.0, **limits: float) -> Admission:
    return Admission(AdmissionLimits(**limits), now=now, chance=lambda: 0.5)  # type: ignore[arg-type]


class Store:
    """A commit takes `flush_s` and `each_s` a verb, whatever is pending when it starts goes in."""

    def __init__(self, *, flush_s: float, each_s: float) -> None:
        self.flush_s = flush_s
        self.each_s = each_s

    @property
    def ideal(self) -> float:
        """Accepts a second with the fullest commit whose callers all still wait at its end."""
        n = min(BATCH, 512, int((PATIENCE_S - self.flush_s) / self.each_s))
        return n / (self.flush_s + n * self.each_s)


def _goodput(store: Store, admission: Admission, clock: Clock, *, rate: float) -> float:
    """Accepts a second answered in time, offered `rate` a second by clients that do not come back.
    What comes before COUNTED_FROM_S is not counted: finding the number takes some rounds, and a
    round of the slowest store takes four seconds."""
    rng = random.Random(7)
    arrivals: list[tuple[float, int]] = [(0.0, 0)]
    waiting: list[float] = []
    writing: list[float] = []
    done_at = math.inf
    good = 0
    while arrivals:
        at, _ = arrivals[0]
        if done_at <= at:
            clock.at = done_at
            for since in writing:
                admission.leave(since, accepted=2000)
                good += clock.at >= COUNTED_FROM_S and clock.at - since <= PATIENCE_S
            writing, waiting = waiting[:BATCH], waiting[BATCH:]
            done_at = clock.at + store.flush_s + store.each_s * len(writing)
            if not writing:
                done_at = math.inf
            continue
        heapq.heappop(arrivals)
        clock.at = at
        if admission.refusal(2000) is None:
            waiting.append(admission.enter())
            if done_at is math.inf:
                writing, waiting = waiting[:BATCH], waiting[BATCH:]
                done_at = at + store.flush_s + store.each_s * len(writing)
        if at < SECONDS:
            heapq.heappush(arrivals, (at + rng.expovariate(rate), 0))
    for since in writing + waiting:
        admission.leave(since, accepted=None)
    return good / (SECONDS - COUNTED_FROM_S)


STORES = {
    "fast": Store(flush_s=0.001, each_s=0.001),
    "flush of 200 ms": Store(flush_s=0.2, each_s=0.0003),
    "flush of 800 ms": Store(flush_s=0.8, each_s=0.0003),
    "flush of 2 s": Store(flush_s=2.0, each_s=0.0003),
    "100 a second": Store(flush_s=0.005, each_s=0.01),
    "25 a second": Store(flush_s=0.005, each_s=0.04),
    "flush of 200 ms, 100 a second": Store(flush_s=0.2, each_s=0.01),
}


@cache
def _best_fixed(name: str, rate: float) -> float:
    """The most that a number in hand that never changes reaches."""
    best = 0.0
    for requests in (16, 32, 64, 128, 256, 512):
        clock = Clock()
        fixed = _admission(clock, requests=requests, delay_s=math.inf)
        best = max(best, _goodput(STORES[name], fixed, clock, rate=rate))
    return best


@pytest.mark.parametrize("name", STORES)
def test_far_more_mail_arrives_than_the_store_can_take(name: str) -> None:
    store = STORES[name]
    rate = min(20 * store.ideal, 2000.0)
    clock = Clock()
    reached = _goodput(store, _admission(clock), clock, rate=rate)
    best = _best_fixed(name, rate)
    assert reached >= 0.9 * best, (reached, best, store.ideal)


def test_what_is_taken_in_hand_never_ends_when_nothing_adapts() -> None:
    """The measure can fail: a number in hand that never changes loses nearly all."""
    clock = Clock()
    fixed = _admission(clock, requests=512, delay_s=math.inf)
    store = STORES["25 a second"]
    assert _goodput(store, fixed, clock, rate=500) < 0.2 * store.ideal


def test_the_number_grows_back_when_the_disk_is_well_again() -> None:
    clock = Clock()
    admission = _admission(clock)
    _goodput(STORES["25 a second"], admission, clock, rate=500)
    assert admission.limit < 150
    start = clock.at
    while admission.limit < 512:
        assert clock.at < start + 20, admission.limit
        taken = []
        while admission.refusal(2000) is None:
            taken.append(admission.enter())
        clock.at += 0.1
        for since in taken:
            admission.leave(since, accepted=2000)


def test_slow_answers_to_few_requests_are_no_queue() -> None:
    clock = Clock()
    admission = _admission(clock)
    for _ in range(200):
        assert admission.refusal() is None
        since = admission.enter()
        clock.at += 3.0
        admission.leave(since, accepted=10)
    assert admission.limit == 128


def test_quick_refusals_do_not_hide_a_queue() -> None:
    """A flood of bad requests, answered 422 at once, among accepts that wait."""
    clock = Clock()
    admission = _admission(clock)
    for _ in range(10):
        taken = []
        while admission.refusal() is None:
            taken.append(admission.enter())
        admission.leave(admission.enter(), accepted=None)
        clock.at += 0.1 * len(taken)
        for since in taken:
            admission.leave(since, accepted=10)
    assert admission.limit < 150


@pytest.mark.parametrize(
    ("taken", "length", "reason"),
    [(0, 1000, None), (0, 1001, Reason.BYTES), (400, 600, None), (400, 601, Reason.BYTES)],
)
def test_bodies_in_hand_would_be_too_many_bytes(
    taken: int, length: int, reason: Reason | None
) -> None:
    admission = _admission(body_bytes=1000)
    admission.hold(taken)
    assert admission.refusal(length) is reason
    admission.release(taken)
    assert admission.held == 0


def test_one_email_too_many_is_in_hand() -> None:
    admission = _admission(requests=2)
    for _ in range(2):
        assert admission.refusal() is None
        admission.enter()
    assert admission.refusal() is Reason.BUSY
    admission.leave(1.0, accepted=None)
    assert admission.refusal() is None


def test_a_low_disk_comes_first_and_asks_for_a_longer_wait() -> None:
    room = Room(100)
    admission = Admission(
        AdmissionLimits(requests=0), now=lambda: 1.0, chance=lambda: 0.0, room=room
    )
    assert admission.refusal() is Reason.BUSY
    room.look(99)
    assert admission.refusal() is Reason.DISK
    assert admission.refuse(Reason.DISK) == 10
    assert admission.refuse(Reason.BUSY) == 1


def test_all_who_were_refused_come_back_at_once() -> None:
    rng = random.Random(1)
    admission = Admission(AdmissionLimits(), now=lambda: 1.0, chance=rng.random)
    assert {admission.refuse(Reason.BUSY) for _ in range(200)} == {1, 2, 3, 4, 5}


def test_refusals_are_counted_by_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, ...]] = []
    metric = telemetry.METRICS["everpost_admission_refused_total"]
    monkeypatch.setattr(metric, "add", lambda *values: seen.append(values))
    _admission().refuse(Reason.BYTES)
    assert seen == [(1, "bytes")]
