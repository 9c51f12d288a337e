"""What canaries say of a relay: it lies when what it took does not arrive, and never for less."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everpost.ids import IdMaker
from everpost.monitoring.canaries import (
    CLEARED_AFTER,
    Fate,
    Tally,
    judged,
    next_relay,
    noted,
    released,
)
from everpost.monitoring.relay_status import Canary

NOW = 1_800_000_000_000
WAIT, EVERY = 600_000, 900_000
IDS = IdMaker(lambda: NOW)


def _sent(*tokens: str, tally: Tally | None = None) -> Tally:
    tally = tally or Tally()
    for token in tokens:
        tally = released(tally, token, message=f"1/{token}", now=NOW)
    return tally


def _judged(tally: Tally, *found: str, later: int = 0, **fates: tuple[Fate, int]) -> Tally:
    return judged(tally, found=found, fates=fates, now=NOW + later, wait_ms=WAIT)


def test_what_arrives_is_counted_with_its_delay() -> None:
    tally = _judged(_sent("a", "b"), "a", later=5_000, a=(Fate.HANDED, NOW + 1_000))
    assert (tally.sent, tally.arrived, tally.lost, tally.delay_ms) == (2, 1, 0, 4_000)
    assert tally.looked_for == ("b",)
    assert not tally.lies


def test_what_the_relay_took_and_does_not_arrive_is_lost() -> None:
    fate = (Fate.HANDED, NOW)
    early = _judged(_sent("a"), later=WAIT - 1, a=fate)
    assert (early.lost, early.lies, early.looked_for) == (0, False, ("a",))
    late = _judged(early, later=WAIT, a=fate)
    assert (late.lost, late.lies, late.waiting) == (1, True, {})


@pytest.mark.parametrize("fate", [Fate.UNDER_WAY, Fate.ENDED])
def test_what_the_relay_never_took_says_nothing_against_it(fate: Fate) -> None:
    tally = _judged(_sent("a"), later=10 * WAIT, a=(fate, NOW))
    assert (tally.lost, tally.lies) == (0, False)
    assert bool(tally.waiting) is (fate is Fate.UNDER_WAY)


def test_a_canary_that_is_only_very_late_is_not_lost() -> None:
    lost = _judged(_sent("a"), later=WAIT, a=(Fate.HANDED, NOW))
    assert lost.looked_for == ("a",)
    late = _judged(lost, "a", later=2 * WAIT)
    assert (late.arrived, late.lost, late.looked_for) == (1, 0, ())
    assert (lost.lies, late.lies) == (True, False)


def test_a_liar_is_believed_again_after_several_have_arrived_in_a_row() -> None:
    tally = _judged(_sent("a"), later=WAIT, a=(Fate.HANDED, NOW))
    for n in range(CLEARED_AFTER):
        assert tally.lies
        tally = _judged(_sent(f"b{n}", tally=tally), f"b{n}")
    assert not tally.lies
    assert (tally.arrived, tally.lost) == (CLEARED_AFTER, 1)


def test_another_loss_begins_the_row_anew() -> None:
    tally = _judged(_sent("a"), later=WAIT, a=(Fate.HANDED, NOW))
    tally = _judged(_sent("b", "c", tally=tally), "b", "c")
    tally = _judged(_sent("d", tally=tally), later=WAIT, d=(Fate.HANDED, NOW))
    assert (tally.row, tally.lost, tally.lies) == (0, 2, True)


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(Fate), st.integers(0, 2 * WAIT)), max_size=12)
)
def test_each_canary_is_counted_once(fates: list[tuple[bool, Fate, int]]) -> None:
    tokens = [f"t{n}" for n in range(len(fates))]
    tally = _sent(*tokens)
    known: dict[str, Any] = {t: (fate, NOW) for t, (_, fate, _) in zip(tokens, fates, strict=True)}
    for token, (found, _, later) in zip(tokens, fates, strict=True):
        tally = _judged(tally, *([token] if found else []), later=later, **known)
        assert tally.arrived + tally.lost + len(tally.waiting) <= tally.sent
        assert tally.lost == len(tally.missed)
        assert not tally.lies or (tally.lost > 0 and tally.row < CLEARED_AFTER)


def test_it_survives_its_way_through_the_store() -> None:
    tally = _judged(_sent("a", "b", "c"), "b", later=WAIT, a=(Fate.HANDED, NOW))
    data = msgspec.json.decode(msgspec.json.encode(noted(tally)))
    assert msgspec.convert(data, Tally) == tally
    shown = msgspec.convert(data, Canary)
    assert (shown.at, shown.ok, shown.why) == (NOW, False, "1 of 2 that it accepted did not arrive")
    assert "ok" not in noted(_sent("a"))  # no verdict yet


# --- turns ----------------------------------------------------------------------------------------


def test_each_relay_has_its_turn_spread_over_the_interval() -> None:
    relays = [IDS() for _ in range(3)]
    tallies: dict[bytes, Tally] = {}
    turns: list[tuple[int, bytes]] = []
    for at in range(NOW, NOW + 2 * EVERY, 10_000):
        turn = next_relay(relays, tallies, now=at, every_ms=EVERY)
        if turn is not None:
            turns.append((at - NOW, turn))
            tallies[turn] = released(tallies.get(turn, Tally()), "t", message="1/t", now=at)
    assert [relay for _, relay in turns] == relays * 2
    assert [at for at, _ in turns] == [n * EVERY // 3 for n in range(6)]


def test_without_a_relay_nobody_has_a_turn() -> None:
    assert next_relay([], {}, now=NOW, every_ms=EVERY) is None
