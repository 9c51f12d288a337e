"""Which relay comes next."""

from collections import Counter
from dataclasses import dataclass

import pytest

from everpost.delivery.pool import FAULT_MEMORY, choose, free, preferred

NONE: frozenset[bytes] = frozenset()


@dataclass
class Facts:
    id: bytes
    weight: int = 1
    cap: int = 10
    in_flight: int = 0
    faulted_at: float | None = None
    turn: int = 0

    @property
    def room(self) -> int:
        return max(self.cap - self.in_flight, 0)


def ids(candidates: object) -> list[bytes]:
    return [c.id for c in candidates]  # type: ignore[attr-defined]


def test_equal_relays_take_turns() -> None:
    relays = [Facts(b"a"), Facts(b"b"), Facts(b"c")]
    order = []
    for turn in range(1, 7):
        chosen = choose(relays)
        assert chosen is not None
        chosen.turn = turn
        order.append(chosen.id)
    assert order == [b"a", b"b", b"c"] * 2


def test_load_follows_weight() -> None:
    relays = [Facts(b"a", weight=3, cap=100), Facts(b"b", weight=1, cap=100)]
    for turn in range(1, 41):
        chosen = choose(relays)
        assert chosen is not None
        chosen.turn = turn
        chosen.in_flight += 1
    assert Counter({r.id: r.in_flight for r in relays}) == {b"a": 30, b"b": 10}


def test_full_relays_are_not_chosen() -> None:
    assert choose([Facts(b"a", in_flight=10), Facts(b"b", weight=0, in_flight=9)]) is not None
    assert choose([Facts(b"a", in_flight=10), Facts(b"b", in_flight=11)]) is None
    assert choose([]) is None


@pytest.mark.parametrize(
    ("avoid", "tried", "expected"),
    [
        (NONE, NONE, [b"a", b"b"]),
        ({b"a"}, NONE, [b"b"]),
        ({b"a", b"b"}, NONE, [b"a", b"b"]),
        (NONE, {b"a"}, [b"b"]),
        (NONE, {b"a", b"b"}, []),
        ({b"b"}, {b"a"}, [b"b"]),
    ],
)
def test_avoided_relays_serve_when_there_is_no_other_and_tried_ones_never(
    avoid: frozenset[bytes], tried: frozenset[bytes], expected: list[bytes]
) -> None:
    relays = [Facts(b"a"), Facts(b"b")]
    chosen = preferred(relays, now=0.0, avoid=frozenset(avoid), tried=frozenset(tried))
    assert ids(chosen) == expected


def test_recently_faulty_relays_come_last_and_are_forgiven() -> None:
    relays = [Facts(b"a", faulted_at=100.0), Facts(b"b", in_flight=10)]

    def at(now: float) -> list[bytes]:
        return ids(preferred(relays, now=now, avoid=NONE, tried=NONE))

    assert at(100.0 + FAULT_MEMORY / 2) == [b"b"]  # busy, yet worth waiting for
    assert at(100.0 + FAULT_MEMORY) == [b"a", b"b"]
    relays[1].faulted_at = 101.0
    assert at(102.0) == [b"a", b"b"]


def test_room_is_counted_where_mail_would_go() -> None:
    relays = [Facts(b"a", in_flight=4), Facts(b"b", cap=3, in_flight=5), Facts(b"c", cap=2)]
    assert free(relays, now=0.0) == 8
    relays[0].faulted_at = 0.0
    assert free(relays, now=1.0) == 2
    assert free([], now=1.0) == 0
