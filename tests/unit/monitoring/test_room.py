"""The disk fills: new mail is refused before it is full, and taken again with some slack."""

import pytest

from everpost.monitoring.room import Room

MIB = 1 << 20


@pytest.mark.parametrize(
    ("free", "low"), [(100 * MIB, False), (100 * MIB - 1, True), (0, True), (1 << 50, False)]
)
def test_less_is_free_than_must_be(free: int, low: bool) -> None:
    room = Room(100 * MIB)
    room.look(free)
    assert room.low is low


def test_room_that_is_just_there_again_does_not_flap() -> None:
    room = Room(100 * MIB)
    seen = []
    for free in (101, 99, 101, 124, 125, 101, 100, 99):
        room.look(free * MIB)
        seen.append(room.low)
    assert seen == [False, True, True, True, False, False, False, True]


def test_a_burst_fills_the_disk_between_two_looks() -> None:
    room = Room(100 * MIB)
    room.add(1 << 40)  # nothing is known yet
    assert not room.low
    room.look(110 * MIB)
    room.add(4 * MIB)
    assert not room.low
    room.add(4 * MIB)
    assert room.low
    room.look(130 * MIB)
    assert not room.low


def test_an_operator_wants_no_bound() -> None:
    room = Room(0)
    room.look(0)
    room.add(1 << 30)
    assert not room.low
