"""A limit divided among processes: nobody starves, nothing is given twice."""

import hypothesis.strategies as st
from hypothesis import given

from everpost.store.fair_shares import divide, part_of_budget

A, B, C = (bytes([i]) * 16 for i in range(3))


def test_even_where_all_want_more() -> None:
    assert divide(9, {A: 9, B: 9, C: 9}, turn=0) == {A: 3, B: 3, C: 3}


def test_what_one_leaves_goes_to_the_others() -> None:
    assert divide(10, {A: 1, B: 9, C: 9}, turn=0) == {A: 1, B: 5, C: 4}


def test_odd_seats_stay_where_they_are_as_long_as_everybody_has_one() -> None:
    assert divide(4, {A: 9, B: 9, C: 9}, turn=0) == divide(4, {A: 9, B: 9, C: 9}, turn=1)


def test_too_few_seats_go_round() -> None:
    turns = [divide(2, {A: 9, B: 9, C: 9}, turn=turn) for turn in range(3)]
    assert [sum(shares[owner] for shares in turns) for owner in (A, B, C)] == [2, 2, 2]


def test_nobody_wants_any() -> None:
    assert divide(5, {}, turn=3) == {}
    assert divide(5, {A: 0}, turn=3) == {A: 0}
    assert divide(0, {A: 4}, turn=3) == {A: 0}


@given(
    cap=st.integers(-1, 40),
    wants=st.dictionaries(st.binary(min_size=1, max_size=2), st.integers(0, 20), max_size=8),
    turn=st.integers(0, 1000),
)
def test_shares_are_whole_within_wishes_and_fair(
    cap: int, wants: dict[bytes, int], turn: int
) -> None:
    shares = divide(cap, wants, turn=turn)
    assert shares.keys() == wants.keys()
    assert sum(shares.values()) == min(max(cap, 0), sum(wants.values()))
    for owner, share in shares.items():
        assert 0 <= share <= wants[owner]
        assert share == wants[owner] or share >= max(shares.values()) - 1


@given(want=st.integers(0, 50), left=st.integers(0, 50), processes=st.integers(0, 5))
def test_a_part_of_a_budget(want: int, left: int, processes: int) -> None:
    part = part_of_budget(want, left=left, processes=processes)
    assert 0 <= part <= min(want, left)
    assert part > 0 or not want or not left
    if processes > 1 and left > 1:
        assert part < left
