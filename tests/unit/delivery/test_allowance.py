"""What a process asks for of a relay's limits, and what it may use of what it got."""

from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from everpost.delivery.allowance import SLICE_S, TERM_MS, Allowance, Load
from everpost.model.relay import Relay, RelayKind
from everpost.model.shares import Ask, Grant

ID = bytes(range(16))
NAME = "relay/00010203-0405-0607-0809-0a0b0c0d0e0f"
DAY = 86_400_000
HOUR = 3_600_000
NOON = 20_000 * DAY + DAY // 2
BUSY = Load(sessions=1, widest=1, peak=1, waiting=True)


def _relay(**fields: Any) -> Relay:
    return Relay(**{"id": ID, "name": "r", "host": "h", "connections": 10, **fields})


class Scene:
    """An allowance with a granter that knows no other process: monotonic and wall time go
    together."""

    def __init__(self, wall: int = NOON, **fields: Any) -> None:
        self.wall = wall
        self.now = 1_000.0
        self.allowance = Allowance(_relay(**fields), wall)
        self.granted: dict[tuple[str, int], int] = {}
        self.others: dict[str, int] = {}

    def pass_(self, seconds: float) -> None:
        self.now += seconds
        self.wall += round(seconds * 1000)
        self.allowance.lapse(self.now)

    def asks(self, load: Load = BUSY, *, wanted: bool = True) -> dict[str, Ask]:
        found = self.allowance.asks(load, now=self.now, wall=self.wall, wanted=wanted)
        return {wish.name: wish for wish in found}

    def ask(self, load: Load = BUSY, *, wanted: bool = True) -> Sequence[Ask]:
        wishes = list(self.asks(load, wanted=wanted).values())
        parts = {wish.name: self._part(wish) for wish in wishes}
        self.allowance.granted(parts, asked_at=self.now, wall=self.wall)
        return wishes

    def _part(self, wish: Ask) -> Grant:
        if wish.kind == "seats":
            free = max(wish.cap - self.others.get(wish.name, 0), 0)
            amount = min(wish.want, free)
            return Grant(wish.name, amount, self.wall + TERM_MS, free - amount)
        end = (self.wall // wish.window_ms + 1) * wish.window_ms
        spent = self.granted.get((wish.name, end), 0)
        amount = min(wish.want, max(wish.cap - spent, 0))
        self.granted[wish.name, end] = spent + amount
        return Grant(wish.name, amount, end, max(wish.cap - spent, 0) - amount)

    def ask_in(self, load: Load = BUSY) -> float:
        return self.allowance.ask_at(load, now=self.now, wall=self.wall) - self.now


# --- seats ----------------------------------------------------------------------------------------


def test_nothing_is_held_before_it_was_granted() -> None:
    scene = Scene()
    assert (scene.allowance.cap, scene.allowance.uses) == (0, None)
    assert not scene.allowance.holds
    assert scene.ask_in() < 0
    assert scene.ask() == [Ask(NAME, "seats", 10, 10, used=1)]
    assert (scene.allowance.cap, scene.allowance.site_cap) == (10, 10)
    assert scene.ask_in() == SLICE_S


def test_a_store_that_is_silent_ends_our_trust_before_its_own_term() -> None:
    scene = Scene()
    scene.ask()
    assert scene.allowance.lapse_at(scene.now) < scene.now + TERM_MS / 1000 - 0.5
    scene.pass_(4.9)
    assert scene.allowance.cap == 10
    scene.allowance.refused(scene.now)
    assert 0 < scene.ask_in() <= 0.5
    scene.pass_(0.2)
    assert scene.allowance.cap == 0


def test_seats_that_others_want_are_asked_for_as_needed() -> None:
    scene = Scene()
    scene.others[NAME] = 7
    scene.ask()
    assert scene.allowance.cap == 3
    assert 0 < scene.ask_in(BUSY) < SLICE_S  # somebody waits: again soon
    assert scene.ask_in(Load(sessions=2, peak=2)) == SLICE_S  # nobody does
    scene.pass_(SLICE_S)
    assert scene.asks(Load(sessions=2, peak=2))[NAME].want == 3
    assert scene.asks(Load(sessions=3, peak=3))[NAME].want == 10  # all in use
    scene.others.clear()
    scene.ask(Load(sessions=2, peak=2))
    scene.pass_(60)
    assert scene.asks(Load(sessions=1, peak=1))[NAME].want == 10


def test_seats_taken_away_in_use_are_given_back_as_soon_as_they_are_free() -> None:
    scene = Scene()
    scene.ask()
    scene.pass_(SLICE_S)
    scene.others[NAME] = 8
    scene.ask(Load(sessions=6, peak=6))
    assert scene.allowance.cap == 2
    assert not scene.allowance.owes(Load(sessions=6))
    assert scene.ask_in(Load(sessions=6, peak=1)) == SLICE_S
    assert scene.allowance.owes(Load(sessions=4))
    assert scene.ask_in(Load(sessions=4, peak=1)) < 0.11


def test_sessions_that_rest_go_when_others_lack_seats() -> None:
    scene = Scene()
    scene.ask()
    resting = Load(sessions=3)
    assert scene.ask_in(resting) == SLICE_S
    assert scene.asks(resting)[NAME].want == 10
    part = Grant(NAME, 10, scene.wall + TERM_MS, left=-2)
    scene.allowance.granted({NAME: part}, asked_at=scene.now, wall=scene.wall)
    assert 0 < scene.ask_in(resting) < SLICE_S
    assert scene.asks(resting)[NAME].want == 0
    assert scene.asks(Load())[NAME].want == 1  # of a pool that others are at work in


def test_a_relay_without_work_gives_its_seats_back_once() -> None:
    scene = Scene(kind=RelayKind.MX)
    scene.ask()
    assert scene.allowance.holds
    released = scene.ask(Load(), wanted=False)
    assert [(w.want, w.used) for w in released] == [(0, 0), (0, 0)]
    assert not scene.allowance.holds
    assert (scene.allowance.cap, scene.allowance.site_cap) == (0, 0)


def test_direct_delivery_has_a_part_of_the_connections_to_any_site() -> None:
    scene = Scene(kind=RelayKind.MX, connections=50, destination_connections=8)
    scene.others[f"{NAME}/sites"] = 4
    wishes = scene.ask(Load(sessions=9, widest=5, peak=9, waiting=True))
    assert wishes[1] == Ask(f"{NAME}/sites", "seats", 8, 8, used=5)
    assert (scene.allowance.cap, scene.allowance.site_cap) == (50, 4)
    scene.allowance.adopt(_relay(), scene.wall)
    assert scene.allowance.site_cap == scene.allowance.cap == 10


# --- budgets --------------------------------------------------------------------------------------


def test_a_second_is_used_up_and_the_next_one_asked_for_at_its_start() -> None:
    scene = Scene(messages_per_second=20)
    scene.pass_(0.3)
    scene.ask()
    assert scene.allowance.uses == 20
    scene.allowance.started(20)
    assert scene.allowance.uses == 0
    scene.ask()  # nothing is left
    assert scene.allowance.uses == 0
    assert scene.allowance.spent(scene.now) is None  # so soon over that mail waits
    assert scene.ask_in() == pytest.approx(0.7)
    scene.pass_(0.7)
    assert scene.ask_in() <= 0
    scene.ask()
    assert scene.allowance.uses == 20


def test_what_was_not_used_in_a_window_is_void_in_the_next() -> None:
    scene = Scene(messages_per_second=20)
    scene.ask()
    scene.allowance.started(5)
    assert scene.allowance.lapse_at(scene.now) == pytest.approx(scene.now + 1)
    scene.pass_(1)
    assert scene.allowance.uses == 0
    scene.ask()
    assert scene.allowance.uses == 20


def test_an_answer_about_a_new_window_voids_what_is_left_of_the_old_one() -> None:
    """The granter's clock is a little ahead of ours."""
    scene = Scene(messages_per_minute=100)
    scene.ask()
    name = f"{NAME}/minute"
    scene.asks()
    part = Grant(name, 7, scene.wall + 120_000, left=93)
    scene.allowance.granted({name: part}, asked_at=scene.now, wall=scene.wall)
    assert scene.allowance.uses == 7


def test_the_tightest_budget_decides() -> None:
    scene = Scene(messages_per_second=30, messages_per_minute=50, messages_per_day=10)
    scene.ask()
    assert scene.allowance.uses == 10


def test_a_budget_is_asked_for_in_growing_parts() -> None:
    scene = Scene(messages_per_day=100_000)
    got = []
    for _ in range(5):
        before = scene.allowance.uses or 0
        scene.ask()
        got.append((scene.allowance.uses or 0) - before)
        scene.allowance.started(scene.allowance.uses or 0)
    assert got == [16, 32, 64, 128, 256]
    assert f"{NAME}/day" not in scene.asks(Load()) or scene.allowance.uses == 0


def test_a_budget_that_is_used_slowly_is_not_hoarded() -> None:
    scene = Scene(messages_per_day=100_000)
    for _ in range(5):
        scene.ask()
        assert scene.allowance.uses == 16
        scene.allowance.started(16)
        scene.pass_(600)


def test_nothing_more_is_asked_for_while_there_is_enough() -> None:
    scene = Scene(messages_per_day=1000)
    scene.ask()
    scene.allowance.started(3)
    assert f"{NAME}/day" not in scene.asks()


def test_a_spent_day_says_so_and_until_when() -> None:
    scene = Scene(messages_per_day=10)
    scene.ask()
    assert scene.allowance.spent(scene.now) is None
    scene.allowance.started(10)
    spent = scene.allowance.spent(scene.now)
    assert spent is not None
    assert spent.until == (NOON // DAY + 1) * DAY
    assert spent.words == "has sent its 10 of this day"
    assert scene.allowance.turn_away(scene.now) == spent.until
    assert f"{NAME}/day" not in scene.asks()
    assert scene.allowance.lapse_at(scene.now + 6) > scene.now + DAY / 2000 - 10
    scene.pass_(DAY / 2000)
    assert scene.allowance.spent(scene.now) is None
    scene.ask()
    assert scene.allowance.uses == 10


def test_who_is_turned_away_comes_back_one_window_after_the_other() -> None:
    scene = Scene(messages_per_minute=10)
    scene.ask()
    scene.allowance.started(10)
    spent = scene.allowance.spent(scene.now)
    assert spent is not None
    assert spent.words == "has sent its 10 of this minute"
    moments = [scene.allowance.turn_away(scene.now) for _ in range(10_000)]
    assert moments[9] == spent.until
    assert moments[10] == spent.until + 60_000
    assert moments[25] == spent.until + 120_000
    assert moments[-1] == spent.until + HOUR  # no later: the limit may change
    scene.pass_(60)
    scene.ask()
    scene.allowance.started(10)
    assert scene.allowance.turn_away(scene.now) == spent.until + 60_000  # a new line


def test_nobody_is_turned_away_where_nothing_is_spent() -> None:
    scene = Scene(messages_per_day=10)
    assert scene.allowance.turn_away(scene.now) is None


def test_a_granter_that_gives_nothing_though_some_is_left_is_asked_again_later() -> None:
    scene = Scene(messages_per_day=10)
    name = f"{NAME}/day"
    scene.ask()
    scene.allowance.started(10)
    scene.asks()
    part = Grant(name, 0, scene.wall + HOUR, left=5)
    scene.allowance.granted({name: part}, asked_at=scene.now, wall=scene.wall)
    assert scene.allowance.spent(scene.now) is None
    assert 0 < scene.ask_in() <= 0.5


# --- the wall clock is set ------------------------------------------------------------------------


def test_a_clock_that_is_set_past_the_day_leaves_its_budget_spent() -> None:
    """I22: the new day's is asked for as soon as the clock says so."""
    scene = Scene(messages_per_day=10)
    scene.ask()
    scene.allowance.started(10)
    assert scene.allowance.spent(scene.now) is not None
    scene.wall += DAY // 2
    scene.allowance.adopt(_relay(messages_per_day=10), scene.wall)
    assert scene.allowance.spent(scene.now) is None
    assert scene.ask_in() <= 0
    scene.ask()
    assert scene.allowance.uses == 10


@pytest.mark.parametrize("amount", [0, 5])
def test_a_clock_that_is_set_back_closes_a_budget_for_hours(amount: int) -> None:
    """I22: the answer was made by the clock as it was, and names the end of a minute that is hours
    ahead now. Neither what was granted nor that there is no more outlasts a minute."""
    scene = Scene(messages_per_minute=10)
    scene.asks()
    end = scene.wall + 30_000
    scene.wall -= 2 * HOUR
    part = Grant(f"{NAME}/minute", amount, end, left=0)
    scene.allowance.granted({part.name: part}, asked_at=scene.now, wall=scene.wall)
    assert scene.allowance.uses == amount
    scene.pass_(59)
    assert scene.allowance.uses == amount
    scene.pass_(1)
    assert scene.allowance.uses == 0
    assert scene.allowance.spent(scene.now) is None
    assert f"{NAME}/minute" in scene.asks()


# --- warm-up --------------------------------------------------------------------------------------


def test_a_warm_up_plan_is_released_over_the_day() -> None:
    midnight = 20_000 * DAY
    scene = Scene(midnight, warmup=(240, 480), warmup_from=midnight + HOUR)
    name = f"{NAME}/plan"
    assert scene.asks()[name].cap == 10  # an hour's part in advance
    scene.ask()
    assert scene.allowance.uses == 10
    scene.allowance.started(10)
    spent = scene.allowance.spent(scene.now)
    assert spent is not None
    assert spent.words == "has sent what its warm-up plan of 240 a day allows by now"
    assert spent.until == midnight + 6 * 60_000  # one more every six minutes
    assert scene.allowance.turn_away(scene.now) == spent.until
    assert scene.allowance.turn_away(scene.now) == spent.until + 6 * 60_000
    scene.pass_(6 * 60)
    scene.ask()
    assert scene.allowance.uses == 1
    scene.pass_(24 * 3600)
    scene.allowance.adopt(_relay(warmup=(240, 480), warmup_from=midnight + HOUR), scene.wall)
    assert scene.asks()[name].cap == 480 * 66 // 60 // 24
    scene.pass_(24 * 3600)
    scene.allowance.adopt(_relay(warmup=(240, 480), warmup_from=midnight), scene.wall)
    assert scene.allowance.uses is None  # it is warm


def test_a_plan_that_is_spent_goes_on_at_midnight() -> None:
    late = 20_000 * DAY + DAY - HOUR
    scene = Scene(late, warmup=(20, 20), warmup_from=late - HOUR)
    for _ in range(2):
        scene.ask()
        scene.allowance.started(scene.allowance.uses or 0)
    spent = scene.allowance.spent(scene.now)
    assert spent is not None
    assert spent.until == 20_001 * DAY


def test_a_plan_that_begins_tomorrow_allows_nothing() -> None:
    scene = Scene(warmup=(100,), warmup_from=NOON + DAY)
    scene.ask()
    assert scene.allowance.uses == 0
    assert scene.allowance.spent(scene.now) is not None
    assert scene.allowance.turn_away(scene.now) is not None


# --- changes --------------------------------------------------------------------------------------


def test_new_settings_hold_at_once() -> None:
    scene = Scene(messages_per_day=10)
    scene.ask()
    scene.allowance.started(10)
    assert scene.allowance.spent(scene.now) is not None
    scene.allowance.adopt(_relay(messages_per_day=1000, connections=3), scene.wall)
    assert scene.allowance.cap == 3
    assert scene.allowance.spent(scene.now) is None
    scene.ask()
    assert scene.allowance.uses == 16
    scene.allowance.adopt(_relay(), scene.wall)
    assert scene.allowance.uses is None


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.floats(0.01, 40)),
        st.tuples(st.just("ask"), st.booleans()),
        st.tuples(st.just("use"), st.floats(0, 1)),
        st.tuples(st.just("lost"), st.booleans()),
    ),
    max_size=60,
)


LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "messages_per_second": st.integers(1, 5),
        "messages_per_minute": st.integers(1, 40),
        "messages_per_day": st.integers(1, 100),
        "warmup": st.lists(st.integers(0, 200), max_size=2).map(tuple),
    },
)


@given(start=st.integers(0, DAY), limits=LIMITS, steps=STEPS)
def test_no_window_sees_more_than_its_limit(
    start: int, limits: dict[str, Any], steps: Sequence[tuple[str, Any]]
) -> None:
    first = 20_000 * DAY
    scene = Scene(first + start, warmup_from=first, **limits)
    sent: list[int] = []
    for step, value in steps:
        if step == "pass":
            scene.pass_(value)
        elif step == "ask":
            scene.ask(Load(sessions=1, peak=1, waiting=value))
        elif step == "lost":
            scene.asks()
            scene.allowance.refused(scene.now)
        else:
            uses = scene.allowance.uses
            n = int((3 if uses is None else uses) * value)
            sent += [scene.wall] * n
            scene.allowance.started(n)
        assert scene.allowance.ask_at(BUSY, now=scene.now, wall=scene.wall) < scene.now + 3
        assert scene.allowance.lapse_at(scene.now) > scene.now
        spent = scene.allowance.spent(scene.now)
        assert spent is None or spent.until > scene.wall
    windows = (("second", 1_000), ("minute", 60_000), ("day", DAY))
    for name, window in windows:
        limit = limits.get(f"messages_per_{name}")
        counts = [sum(at // window == w for at in sent) for w in {at // window for at in sent}]
        assert limit is None or max(counts, default=0) <= limit
    for day, most in enumerate(limits.get("warmup", ())):
        assert sum(at // DAY == 20_000 + day for at in sent) <= most
