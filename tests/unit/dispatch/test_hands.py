"""What is in hand: a window that no route can fill, and an order of starting that none can jam."""

from hypothesis import given
from hypothesis import strategies as st

from everpost.dispatch.hands import Hands, Work
from everpost.model.states import InDoubtPolicy
from everpost.store.interface import Claim, Claimed

WINDOW, BATCH = 400, 100


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


def _work(n: int, route: str) -> Work:
    return Work(
        Claimed(
            message=n.to_bytes(16, "big"),
            project=1,
            stream="transactional",
            sender="",
            key_id=1,
            content_id=b"",
            sealed=b"",
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
    hands = Hands(window=WINDOW, batch=BATCH)
    _fill(hands, [f"slow{n}.test" for n in range(greedy)])
    assert len(hands) < WINDOW
    assert hands.room() > 0
    assert "quick.test" not in hands.busy()


def test_one_claim_fills_the_window_with_one_route() -> None:
    hands = Hands(window=WINDOW, batch=BATCH)
    _fill(hands, ["slow.test"])
    assert len(hands) <= WINDOW * 7 // 8


def test_relief_of_a_refused_route_goes_unnoticed() -> None:
    hands = Hands(window=WINDOW, batch=BATCH)
    _fill(hands, ["slow.test"])
    assert hands.busy() == ("slow.test",)
    claims = hands.claims()
    told = [hands.let_go([claim]) for claim in claims[:60]]
    assert not told[0]  # one row back is no reason to look again
    assert told[-1]


def test_letting_go_twice_counts_once() -> None:
    hands = Hands(window=WINDOW, batch=BATCH)
    claim = _claim(1, "a.test")
    hands.hold(claim)
    hands.hold(claim)  # renewed
    hands.let_go([claim])
    hands.let_go([claim])
    assert len(hands) == 0
    assert hands.busy() == ()


def test_broadcast_starts_before_transactional() -> None:
    hands = Hands(window=WINDOW, batch=BATCH)
    hands.queue(_work(1, "a.test"), broadcast=True)
    hands.queue(_work(2, "a.test"), broadcast=False)
    assert [int.from_bytes(w.claimed.message, "big") for w in hands.startable(10)] == [2, 1]


def test_a_slow_route_takes_every_slot() -> None:
    hands = Hands(window=WINDOW, batch=BATCH)
    for n in range(50):
        hands.queue(_work(n, "slow.test"), broadcast=False)
    started = list(hands.startable(8))
    assert len(started) == 6
    hands.queue(_work(99, "quick.test"), broadcast=False)
    assert [w.route for w in hands.startable(2)] == ["quick.test"]
    hands.carried(started[0])
    assert [w.route for w in hands.startable(2)] == ["slow.test"]


def test_what_waits_is_given_back_once() -> None:
    hands = Hands(window=WINDOW, batch=BATCH)
    for n in range(5):
        hands.queue(_work(n, "a.test"), broadcast=bool(n % 2))
    assert len(hands.give_back()) == 5
    assert list(hands.startable(10)) == []
    assert hands.give_back() == []
