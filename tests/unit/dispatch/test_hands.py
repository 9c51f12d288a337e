"""What is in hand: a window that no route can fill, and an order of starting that none can jam."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    rule,
    run_state_machine_as_test,
)

from everpost.dispatch.hands import Hands, Work, by_destination
from everpost.model.states import InDoubtPolicy
from everpost.store.interface import Claim, Claimed

WINDOW, BATCH, BYTES = 400, 100, 64 << 20


def _claim(n: int, route: str) -> Claim:
    return Claim(
        message=n.to_bytes(16, "big"),
        n=1,
        term=1,
        deadline=0,
        address=f"a@{route}",
        destination=route,
        route=route,
        attempts=0,
        crashes=0,
        not_before=0,
        expires_at=1,
        created_at=0,
    )


def _work(n: int, route: str, size: int = 2_000) -> Work:
    return Work(
        Claimed(
            message=n.to_bytes(16, "big"),
            project=1,
            stream="transactional",
            sender="",
            key_id=1,
            content_id=b"",
            sealed=b"",
            size=size,
            in_doubt=InDoubtPolicy.RESEND,
            return_token=b"",
            sandbox=False,
            body_hashes={},
            claims=(_claim(n, route),),
            revision=1,
        )
    )


def _fill(hands: Hands, routes: list[str], supply: int = 5_000) -> None:
    """Claim as dispatch does, from routes that always have more and never settle."""
    number = 0
    while number < supply:
        busy = hands.busy()
        open_routes = [r for r in routes if r not in busy]
        room = hands.room()
        if not room or not open_routes:
            return
        for route in (open_routes * room)[:room]:
            hands.hold(_claim(number, route))
            number += 1


@given(st.integers(1, 20))
def test_routes_that_never_settle_leave_no_room_for_a_newcomer(greedy: int) -> None:
    hands = Hands(window=WINDOW, batch=BATCH, window_bytes=BYTES)
    _fill(hands, [f"slow{n}.test" for n in range(greedy)])
    assert len(hands) < WINDOW
    assert hands.room() > 0
    assert "quick.test" not in hands.busy()


def test_one_claim_fills_the_window_with_one_route() -> None:
    hands = Hands(window=WINDOW, batch=BATCH, window_bytes=BYTES)
    _fill(hands, ["slow.test"])
    assert len(hands) <= WINDOW * 7 // 8


def test_relief_of_a_refused_route_goes_unnoticed() -> None:
    hands = Hands(window=WINDOW, batch=BATCH, window_bytes=BYTES)
    _fill(hands, ["slow.test"])
    assert hands.busy() == ("slow.test",)
    claims = hands.claims()
    told = [hands.let_go([claim]) for claim in claims[:60]]
    assert not told[0]  # one row back is no reason to look again
    assert told[-1]


def test_letting_go_twice_counts_once() -> None:
    hands = Hands(window=WINDOW, batch=BATCH, window_bytes=BYTES)
    claim = _claim(1, "a.test")
    hands.hold(claim)
    hands.hold(claim)  # renewed
    hands.let_go([claim])
    hands.let_go([claim])
    assert len(hands) == 0
    assert hands.busy() == ()


def test_broadcast_starts_before_transactional() -> None:
    hands = Hands(window=WINDOW, batch=BATCH, window_bytes=BYTES)
    hands.queue(_work(1, "a.test"), broadcast=True)
    hands.queue(_work(2, "a.test"), broadcast=False)
    assert [int.from_bytes(w.claimed.message, "big") for w in hands.startable(10)] == [2, 1]


def _started(hands: Hands, free: int) -> list[Work]:
    """Started, and known to delivery."""
    started = list(hands.startable(free))
    for work in started:
        hands.arrives(work)
    return started


def test_a_slow_route_takes_every_slot() -> None:
    hands = Hands(window=WINDOW, batch=BATCH, window_bytes=BYTES)
    for n in range(50):
        hands.queue(_work(n, "slow.test"), broadcast=False)
    started = _started(hands, 8)
    assert len(started) == 6
    hands.queue(_work(99, "quick.test"), broadcast=False)
    assert [w.route for w in _started(hands, 2)] == ["quick.test"]
    hands.carried(started[0])
    assert [w.route for w in hands.startable(2)] == ["slow.test"]


def test_slots_that_work_is_on_its_way_to_are_given_again() -> None:
    """F51: delivery counts a slot when work arrives there; before that it must not be given to the
    next, or one route gets them all, and a place in line before everybody else."""
    hands = Hands(window=WINDOW, batch=BATCH, window_bytes=BYTES)
    for n in range(200):
        hands.queue(_work(n, "hole.test"), broadcast=False)
    started = list(hands.startable(10))
    assert list(hands.startable(10)) == []  # as delivery still says before it saw the first
    for work in started:
        hands.arrives(work)
    left = 10 - len(started)
    assert list(hands.startable(left)) == []
    hands.queue(_work(999, "quick.test"), broadcast=False)
    assert [w.route for w in hands.startable(left)] == ["quick.test"]


def _mb(n: int) -> int:
    return n << 20


def test_large_messages_fill_the_memory_together() -> None:
    """Each weighs five times its size: with 64 MiB, one of 8 MiB beside nothing as large."""
    hands = Hands(window=WINDOW, batch=BATCH, window_bytes=_mb(64))
    for n in range(4):
        hands.queue(_work(n, f"r{n}.test", _mb(8)), broadcast=False)
    (first,) = hands.startable(10)
    assert list(hands.startable(10)) == []
    hands.carried(first)
    assert len(list(hands.startable(10))) == 1


def test_a_message_larger_than_the_memory_never_leaves() -> None:
    hands = Hands(window=WINDOW, batch=BATCH, window_bytes=_mb(64))
    hands.queue(_work(1, "a.test", _mb(2)), broadcast=False)
    hands.queue(_work(2, "b.test", _mb(40)), broadcast=False)
    hands.queue(_work(3, "c.test", _mb(2)), broadcast=False)
    (light,) = hands.startable(10)  # the third may not pass the second for ever
    hands.carried(light)
    (heavy,) = hands.startable(10)
    assert heavy.route == "b.test"
    hands.carried(heavy)
    assert [w.route for w in hands.startable(10)] == ["c.test"]


def test_small_mail_waits_for_large_mail() -> None:
    hands = Hands(window=WINDOW, batch=BATCH, window_bytes=_mb(64))
    for n in range(3):
        hands.queue(_work(n, "a.test", _mb(40)), broadcast=False)
    hands.queue(_work(9, "b.test"), broadcast=True)
    assert [w.route for w in hands.startable(10)] == ["a.test", "b.test"]


def test_a_black_hole_takes_all_the_memory_for_large_messages() -> None:
    hands = Hands(window=WINDOW, batch=BATCH, window_bytes=_mb(64))
    for n in range(20):
        hands.queue(_work(n, "hole.test", _mb(2)), broadcast=False)
    assert len(_started(hands, 20)) == 4
    hands.queue(_work(99, "quick.test", _mb(2)), broadcast=False)
    assert [w.route for w in hands.startable(20)] == ["quick.test"]


def test_the_first_routes_take_every_slot_that_gets_free() -> None:
    """Many routes, one slot: each gets its turn."""
    hands = Hands(window=WINDOW, batch=BATCH, window_bytes=BYTES)
    for n in range(30):
        hands.queue(_work(n, f"r{n % 10}.test"), broadcast=False)
    seen: list[str] = []
    for _ in range(10):
        (work,) = hands.startable(1)
        seen.append(work.route)
        hands.carried(work)
    assert len(set(seen)) == 10


class _Slots(RuleBasedStateMachine):
    """Any order of queueing, starting and ending; sizes from small to larger than the memory."""

    def __init__(self) -> None:
        super().__init__()
        self.hands = Hands(window=WINDOW, batch=BATCH, window_bytes=_mb(64))
        self.carried: list[Work] = []
        self.waiting = 0
        self.number = 0

    @rule(
        route=st.sampled_from(["a.test", "b.test", "c.test"]),
        size=st.sampled_from([2_000, 33_000, _mb(1), _mb(5), _mb(40)]),
        broadcast=st.booleans(),
    )
    def queue(self, route: str, size: int, broadcast: bool) -> None:
        self.number += 1
        self.waiting += 1
        self.hands.queue(_work(self.number, route, size), broadcast=broadcast)

    @rule(slots=st.integers(0, 8))
    def start(self, slots: int) -> None:
        started = _started(self.hands, slots)
        assert len(started) <= slots
        self.carried += started
        self.waiting -= len(started)
        weight = sum(work.weight for work in self.carried)
        assert weight <= _mb(64) or sum(1 for work in self.carried if work.weight) == 1

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        if self.carried:
            work = data.draw(st.sampled_from(self.carried))
            self.carried.remove(work)
            self.hands.carried(work)

    @rule()
    def all_ends_and_something_starts(self) -> None:
        for work in self.carried:
            self.hands.carried(work)
        self.carried = _started(self.hands, 1)
        self.waiting -= len(self.carried)
        assert bool(self.carried) or not self.waiting


def test_memory_overflows_or_something_waits_beside_free_slots() -> None:
    run_state_machine_as_test(_Slots, settings=settings(max_examples=60, deadline=None))


def test_what_waits_is_given_back_once() -> None:
    hands = Hands(window=WINDOW, batch=BATCH, window_bytes=BYTES)
    for n in range(5):
        hands.queue(_work(n, "a.test"), broadcast=bool(n % 2))
    assert len(hands.give_back()) == 5
    assert list(hands.startable(10)) == []
    assert hands.give_back() == []


def test_route_at_its_cap_takes_slots_that_others_could_use() -> None:
    """Direct delivery: a destination has its own cap, and waits here rather than in a slot."""
    hands = Hands(window=WINDOW, batch=BATCH, window_bytes=BYTES)
    for n in range(10):
        hands.queue(_work(n, "slow.test"), broadcast=False)
        hands.queue(_work(100 + n, "quick.test"), broadcast=False)
    started = list(hands.startable(100, 3))
    assert sorted(work.route for work in started) == ["quick.test"] * 3 + ["slow.test"] * 3
    for work in started:
        if work.route == "quick.test":
            hands.carried(work)
    assert {work.route for work in hands.startable(97, 3)} == {"quick.test"}


def test_message_for_many_destinations_is_cut_into_one_transaction_each() -> None:
    claimed = msgspec.structs.replace(
        _work(1, "a.test").claimed,
        claims=tuple(_claim(n, "a.test" if n % 3 else "b.test") for n in range(350)),
    )
    assert Work(claimed).destination == ""
    parts = list(by_destination(claimed))
    assert sorted(len(part.claims) for part in parts) == [17, 33, 100, 100, 100]
    assert {Work(part).destination for part in parts} == {"a.test", "b.test"}
    assert sorted(c.message for p in parts for c in p.claims) == [c.message for c in claimed.claims]
