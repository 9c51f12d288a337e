"""What is in hand: a window that no route, stream or project can fill."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from everpost.dispatch.hands import Hands
from tests.support.in_hand import claim

WINDOW, BATCH = 400, 100


def _is_busy(destination: str, busy: Sequence[str]) -> bool:
    lane = claim(0, destination).route
    return any(name in busy for name in (lane, "1/transactional/", "1/"))


def _fill(hands: Hands, routes: list[str], supply: int = 5_000) -> None:
    """Claim as dispatch does, from routes that always have more and never settle."""
    number = 0
    while number < supply:
        busy = hands.busy()
        open_routes = [r for r in routes if not _is_busy(r, busy)]
        room = hands.room()
        if not room or not open_routes:
            return
        for route in (open_routes * room)[:room]:
            hands.hold(claim(number, route))
            number += 1


@given(st.integers(1, 20))
def test_routes_that_never_settle_leave_no_room_for_a_newcomer(greedy: int) -> None:
    hands = Hands(window=WINDOW, batch=BATCH)
    _fill(hands, [f"slow{n}.test" for n in range(greedy)])
    assert len(hands) < WINDOW
    assert hands.room() > 0
    assert not _is_busy("quick.test", hands.busy())


def test_one_claim_fills_the_window_with_one_route() -> None:
    hands = Hands(window=WINDOW, batch=BATCH)
    _fill(hands, ["slow.test"])
    assert len(hands) <= WINDOW * 7 // 8


def test_relief_of_a_refused_route_goes_unnoticed() -> None:
    hands = Hands(window=WINDOW, batch=BATCH)
    _fill(hands, ["slow.test"])
    assert hands.busy() == ("1/transactional/slow.test",)
    claims = hands.claims()
    told = [hands.let_go([one]) for one in claims[:60]]
    assert not told[0]  # one row back is no reason to look again
    assert told[-1]


def test_letting_go_twice_counts_once() -> None:
    hands = Hands(window=WINDOW, batch=BATCH)
    one = claim(1, "a.test")
    hands.hold(one)
    hands.hold(one)  # renewed
    hands.let_go([one])
    hands.let_go([one])
    assert len(hands) == 0
    assert hands.busy() == ()


def test_another_projects_mail_waits_behind_a_full_claim_each_time() -> None:
    """I17: while several have mail claims are half as large, and for a while after; one that is
    alone gets them whole again."""
    hands = Hands(window=WINDOW, batch=BATCH)
    alone = hands.room()
    hands.hold(claim(1, "a.test", project=1))
    other = claim(2, "a.test", project=2)
    hands.hold(other)
    assert hands.room() <= alone // 2
    hands.let_go([other])
    assert hands.room() <= alone // 2
    for _ in range(100):
        last = hands.room()
    assert last > alone // 2
