"""What waits to start: an order that no destination, stream, project or pool can jam."""

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    rule,
    run_state_machine_as_test,
)

from everpost.dispatch.waiting import Room, Waiting
from everpost.dispatch.work import Work, by_destination
from tests.support.in_hand import claimed, work

BYTES = 64 << 20


def _room(free: int, most: int | None = None) -> Callable[[str], Room]:
    """The same in every pool."""
    return lambda _: (free, most)


def test_broadcast_starts_before_transactional() -> None:
    waiting = Waiting(window_bytes=BYTES)
    waiting.queue(work(1, "a.test", broadcast=True))
    waiting.queue(work(2, "a.test", broadcast=False))
    assert [int.from_bytes(w.claimed.message, "big") for w in waiting.startable(_room(10))] == [
        2,
        1,
    ]


def _started(waiting: Waiting, free: int) -> list[Work]:
    """Started, and known to delivery."""
    started = list(waiting.startable(_room(free)))
    for one in started:
        waiting.arrives(one)
    return started


def test_a_slow_route_takes_every_slot() -> None:
    waiting = Waiting(window_bytes=BYTES)
    for n in range(50):
        waiting.queue(work(n, "slow.test", broadcast=False))
    started = _started(waiting, 8)
    assert len(started) == 6
    waiting.queue(work(99, "quick.test", broadcast=False))
    assert [w.destination for w in _started(waiting, 2)] == ["quick.test"]
    waiting.carried(started[0])
    assert [w.destination for w in waiting.startable(_room(2))] == ["slow.test"]


def test_slots_that_work_is_on_its_way_to_are_given_again() -> None:
    """F51: delivery counts a slot when work arrives there; before that it must not be given to the
    next, or one route gets them all, and a place in line before everybody else."""
    waiting = Waiting(window_bytes=BYTES)
    for n in range(200):
        waiting.queue(work(n, "hole.test", broadcast=False))
    started = list(waiting.startable(_room(10)))
    assert (
        list(waiting.startable(_room(10))) == []
    )  # as delivery still says before it saw the first
    for one in started:
        waiting.arrives(one)
    left = 10 - len(started)
    assert list(waiting.startable(_room(left))) == []
    waiting.queue(work(999, "quick.test", broadcast=False))
    assert [w.destination for w in waiting.startable(_room(left))] == ["quick.test"]


def _mb(n: int) -> int:
    return n << 20


def test_large_messages_fill_the_memory_together() -> None:
    """Each weighs five times its size: with 64 MiB, one of 8 MiB beside nothing as large."""
    waiting = Waiting(window_bytes=_mb(64))
    for n in range(4):
        waiting.queue(work(n, f"r{n}.test", _mb(8), broadcast=False))
    (first,) = waiting.startable(_room(10))
    assert list(waiting.startable(_room(10))) == []
    waiting.carried(first)
    assert len(list(waiting.startable(_room(10)))) == 1


def test_a_message_larger_than_the_memory_never_leaves() -> None:
    waiting = Waiting(window_bytes=_mb(64))
    waiting.queue(work(1, "a.test", _mb(2), broadcast=False))
    waiting.queue(work(2, "b.test", _mb(40), broadcast=False))
    waiting.queue(work(3, "c.test", _mb(2), broadcast=False))
    (light,) = waiting.startable(_room(10))  # the third may not pass the second for ever
    waiting.carried(light)
    (heavy,) = waiting.startable(_room(10))
    assert heavy.destination == "b.test"
    waiting.carried(heavy)
    assert [w.destination for w in waiting.startable(_room(10))] == ["c.test"]


def test_small_mail_waits_for_large_mail() -> None:
    waiting = Waiting(window_bytes=_mb(64))
    for n in range(3):
        waiting.queue(work(n, "a.test", _mb(40), broadcast=False))
    waiting.queue(work(9, "b.test", broadcast=True))
    assert [w.destination for w in waiting.startable(_room(10))] == ["a.test", "b.test"]


def test_a_black_hole_takes_all_the_memory_for_large_messages() -> None:
    waiting = Waiting(window_bytes=_mb(64))
    for n in range(20):
        waiting.queue(work(n, "hole.test", _mb(2), broadcast=False))
    assert len(_started(waiting, 20)) == 4
    waiting.queue(work(99, "quick.test", _mb(2), broadcast=False))
    assert [w.destination for w in waiting.startable(_room(20))] == ["quick.test"]


def test_the_first_routes_take_every_slot_that_gets_free() -> None:
    """Many routes, one slot: each gets its turn."""
    waiting = Waiting(window_bytes=BYTES)
    for n in range(30):
        waiting.queue(work(n, f"r{n % 10}.test", broadcast=False))
    seen: list[str] = []
    for _ in range(10):
        (one,) = waiting.startable(_room(1))
        seen.append(one.destination)
        waiting.carried(one)
    assert len(set(seen)) == 10


class _Slots(RuleBasedStateMachine):
    """Any order of queueing, starting and ending; sizes from small to larger than the memory."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = Waiting(window_bytes=_mb(64))
        self.carried: list[Work] = []
        self.left = 0
        self.number = 0

    @rule(
        route=st.sampled_from(["a.test", "b.test", "c.test"]),
        size=st.sampled_from([2_000, 33_000, _mb(1), _mb(5), _mb(40)]),
        broadcast=st.booleans(),
    )
    def queue(self, route: str, size: int, broadcast: bool) -> None:
        self.number += 1
        self.left += 1
        self.waiting.queue(work(self.number, route, size, broadcast=broadcast))

    @rule(slots=st.integers(0, 8))
    def start(self, slots: int) -> None:
        started = _started(self.waiting, slots)
        assert len(started) <= slots
        self.carried += started
        self.left -= len(started)
        weight = sum(one.weight for one in self.carried)
        assert weight <= _mb(64) or sum(1 for one in self.carried if one.weight) == 1

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        if self.carried:
            one = data.draw(st.sampled_from(self.carried))
            self.carried.remove(one)
            self.waiting.carried(one)

    @rule()
    def all_ends_and_something_starts(self) -> None:
        for one in self.carried:
            self.waiting.carried(one)
        self.carried = _started(self.waiting, 1)
        self.left -= len(self.carried)
        assert bool(self.carried) or not self.left


def test_memory_overflows_or_something_waits_beside_free_slots() -> None:
    run_state_machine_as_test(_Slots, settings=settings(max_examples=60, deadline=None))


def test_what_waits_is_given_back_once() -> None:
    waiting = Waiting(window_bytes=BYTES)
    for n in range(5):
        waiting.queue(work(n, "a.test", broadcast=bool(n % 2)))
    assert len(waiting.take_back()) == 5
    assert list(waiting.startable(_room(10))) == []
    assert waiting.take_back() == []


def test_route_at_its_cap_takes_slots_that_others_could_use() -> None:
    """Direct delivery: a destination has its own cap, and waits here rather than in a slot."""
    waiting = Waiting(window_bytes=BYTES)
    for n in range(10):
        waiting.queue(work(n, "slow.test", broadcast=False))
        waiting.queue(work(100 + n, "quick.test", broadcast=False))
    started = list(waiting.startable(_room(100, 3)))
    assert sorted(one.destination for one in started) == ["quick.test"] * 3 + ["slow.test"] * 3
    for one in started:
        if one.destination == "quick.test":
            waiting.carried(one)
    assert {one.destination for one in waiting.startable(_room(97, 3))} == {"quick.test"}


def test_message_for_many_destinations_is_cut_into_one_transaction_each() -> None:
    whole = claimed(1, *("a.test" if n % 3 else "b.test" for n in range(350)))
    assert Work(whole).destination == ""
    parts = list(by_destination(whole))
    assert sorted(len(part.claims) for part in parts) == [17, 33, 100, 100, 100]
    assert {Work(part).destination for part in parts} == {"a.test", "b.test"}
    assert sorted(c.n for p in parts for c in p.claims) == [c.n for c in whole.claims]


def _drain(waiting: Waiting, count: int, free: int = 1) -> list[Work]:
    """The next so many, each ended before the next starts."""
    seen: list[Work] = []
    while len(seen) < count:
        for one in list(waiting.startable(_room(free))):
            seen.append(one)
            waiting.carried(one)
    return seen[:count]


def test_a_project_with_many_destinations_starts_more_than_one_with_a_single() -> None:
    waiting = Waiting(window_bytes=BYTES)
    for n in range(200):
        waiting.queue(work(n, f"d{n}.test", project=1))
    for n in range(20):
        waiting.queue(work(1_000 + n, "a.test", project=2))
    assert sum(one.project == "2/" for one in _drain(waiting, 20)) == 10


def test_weights_of_projects_and_streams_are_forgotten() -> None:
    waiting = Waiting(window_bytes=BYTES)
    for n in range(60):
        waiting.queue(work(n, "a.test", project=1), weights=(3, 1))
        waiting.queue(work(100 + n, "a.test", project=2, stream="news"), weights=(1, 1))
        waiting.queue(work(200 + n, "a.test", project=2, stream="codes"), weights=(1, 2))
    seen = _drain(waiting, 24)
    assert sum(one.project == "1/" for one in seen) == 18
    assert sum(one.stream == "2/codes/" for one in seen) == 4


@given(projects=st.integers(1, 6), lanes=st.integers(1, 40))
def test_projects_take_every_slot_and_a_newcomer_finds_none(projects: int, lanes: int) -> None:
    """Destinations that hold nothing may take any slot, but only of what their project may."""
    waiting = Waiting(window_bytes=BYTES)
    for n in range(400):
        waiting.queue(work(n, f"d{n % lanes}.test", project=1 + n % projects))
    started = _started(waiting, 100)
    assert len(started) < 100
    waiting.queue(work(999, "quick.test", project=99))
    free = 100 - len(started)
    assert [one.destination for one in waiting.startable(_room(free))] == ["quick.test"]


def test_broadcast_mail_takes_the_places_that_transactional_mail_needs() -> None:
    waiting = Waiting(window_bytes=BYTES)
    for n in range(100):
        waiting.queue(work(n, f"d{n}.test", broadcast=True))
    started = _started(waiting, 8)
    assert len(started) == 6
    for n in range(5):
        waiting.queue(work(200 + n, f"codes{n}.test"))
    urgent = _started(waiting, 2)
    assert [one.broadcast for one in urgent] == [False, False]
    waiting.carried(urgent[0])
    waiting.carried(started[0])
    assert [one.broadcast for one in waiting.startable(_room(2))] == [False, False]


def test_a_pool_that_is_full_holds_up_the_others() -> None:
    waiting = Waiting(window_bytes=BYTES)
    for n in range(10):
        waiting.queue(work(n, "a.test", pool="sick"))
        waiting.queue(work(100 + n, "a.test", pool="sound"))
    rooms = {"sick": (0, None), "sound": (4, None)}
    started = list(waiting.startable(lambda pool: rooms[pool]))
    assert {one.pool for one in started} == {"sound"}
    assert len(started) == 3


def test_what_is_pinned_to_a_relay_waits_for_its_pool() -> None:
    waiting = Waiting(window_bytes=BYTES)
    waiting.queue(work(1, "a.test"))
    waiting.queue(work(2, "a.test", only=b"relay"))
    (pinned,) = waiting.startable(_room(0))
    assert pinned.claimed.only == b"relay"
    waiting.carried(pinned)
    waiting.queue(work(3, "a.test", only=b"relay"))
    assert len(waiting.take_back()) == 2


def test_a_cap_of_a_destination_is_counted_by_project() -> None:
    waiting = Waiting(window_bytes=BYTES)
    for n in range(6):
        waiting.queue(work(n, "a.test", project=n))
    assert len(list(waiting.startable(_room(100, 2)))) == 2
