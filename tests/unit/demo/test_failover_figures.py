"""What the failover demonstration says of itself."""

import msgspec
import pytest

from demo.figures import Arrived, Figures, Trouble, Window, judge, p99, shares
from demo.relay import behaviour

GOOD = Figures(
    sent=100,
    lost=0,
    duplicates=0,
    weight={"a": 0.75, "b": 0.25},
    share_before={"a": 0.75, "b": 0.25},
    share_after={"a": 0.74, "b": 0.26},
    p99={"before": 0.02, "a killed": 0.16, "after": 0.02},
    troubles=(Trouble("a", "killed", 0.1, 5.0, 20.0),),
)


def test_a_good_run_misses_nothing() -> None:
    assert judge(GOOD) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lost": 1}, "1 lost"),
        ({"duplicates": 2}, "2 duplicates"),
        ({"share_after": {"a": 0.65, "b": 0.35}}, "share of a after"),
        ({"troubles": (Trouble("a", "slow", None, 5.0, 9.0),)}, "a slow: left never"),
        ({"troubles": (Trouble("a", "slow", 2.1, 5.0, 9.0),)}, "left after 2.1 s"),
        ({"troubles": (Trouble("a", "slow", 0.1, None, None),)}, "did not come back"),
        ({"p99": {"before": 0.02, "a killed": 0.18, "after": 0.02}}, "p99 a killed: 180 ms"),
    ],
)
def test_a_run_that_misses_a_bar_says_so(change: dict[str, object], says: str) -> None:
    missed = judge(msgspec.structs.replace(GOOD, **change))
    assert any(says in one for one in missed), missed


def test_a_message_that_never_arrived_spoils_the_p99() -> None:
    window = Window("w", 0.0, 10.0)
    sent = {"1": 1.0, "2": 2.0, "late": 11.0}
    assert p99(sent, {"1": 1.5, "2": 2.25}, window) == 0.5
    assert p99(sent, {"1": 1.5}, window) == float("inf")
    assert p99({}, {}, window) == 0.0


def test_shares_count_the_window_only() -> None:
    arrived = [Arrived("a", "1", 0.5), Arrived("b", "2", 0.6), Arrived("b", "3", 2.0)]
    assert shares(arrived, ["a", "b"], Window("w", 0.0, 1.0)) == {"a": 0.5, "b": 0.5}
    assert shares([], ["a"], Window("w", 0.0, 1.0)) == {"a": 0.0}


def test_a_relay_that_is_told_nonsense() -> None:
    assert behaviour("well\n").rules == ()
    assert behaviour("slow 1.5").rules[0].delay == 1.5
    assert len(behaviour("refusing").rules) == 1
    with pytest.raises(ValueError, match="cannot be"):
        behaviour("happy")
