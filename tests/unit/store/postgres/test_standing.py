"""What lanes remember of their server, from one answer to the next."""

from typing import Any

import pytest

from everpost.model.message import Assurance
from everpost.store.interface import StoreUnavailable
from everpost.store.postgres.standing import Heard, Standing
from tests.conformance.making import START, UP, HandClock

S = 1_000_000_000


class _Server:
    """Says what it is set to. Seconds are those at which it is asked."""

    def __init__(self, standing: Standing) -> None:
        self.standing = standing
        self.said: dict[str, Any] = {
            "now": 5_000, "recovering": False, "read_only": False, "timeline": 1, "commit": "on",
            "names": "a", "fsync": True, "pages": True,
        }  # fmt: skip
        self.connected = 1

    def begin(self, at: float) -> Heard:
        since = int(at * S)
        return self.standing.heard([*self.said.values(), "off", "off"], since=since)

    def look(self, at: float) -> Heard:
        since = int(at * S)
        return self.standing.looked([*self.said.values(), self.connected], since=since)


def _standing(*, standbys: int = 1, clock: HandClock | None = None) -> Standing:
    return Standing(clock=clock, standbys=standbys, relaxed=False)


def test_before_any_answer_there_is_no_server() -> None:
    state = _standing().state()
    assert (state.reachable, state.writable, state.durable) == (False, False, False)
    assert state.problems


def test_times_are_the_servers_or_those_handed_in() -> None:
    assert _Server(_standing()).begin(0)[:2] == (5_000, 5_000)
    assert _Server(_standing(clock=HandClock())).begin(0)[:2] == (START, UP)


def test_a_standby_that_is_briefly_away_is_waited_for_and_then_no_more() -> None:
    server = _Server(_standing())
    server.look(0)
    server.connected = 0
    server.look(1)
    assert not server.standing.state().durable
    assert server.begin(2).demand() is Assurance.REPLICATED
    with pytest.raises(StoreUnavailable, match="0 synchronous standbys are connected"):
        server.begin(5).demand()
    server.connected = 1
    server.look(6)
    assert server.begin(7).demand() is Assurance.REPLICATED
    state = server.standing.state()
    assert (state.durable, state.standbys) == (True, 1)


def test_standbys_that_we_may_not_see_are_not_missed() -> None:
    server = _Server(_standing())
    server.connected = -1
    server.look(0)
    assert server.begin(9).demand() is Assurance.REPLICATED
    assert server.standing.state().durable


def test_a_branch_that_others_have_left_is_not_written_to() -> None:
    server = _Server(_standing())
    server.said["timeline"] = 4
    server.begin(0).demand()
    server.said["timeline"] = 3
    with pytest.raises(StoreUnavailable, match="timeline 3"):
        server.begin(1).demand()
    assert server.standing.state().timeline == 4
    assert not server.standing.state().writable
    server.said["timeline"] = 4
    server.begin(2).demand()


def test_a_standby_that_is_no_primary_yet() -> None:
    server = _Server(_standing())
    server.said |= {"recovering": True, "read_only": True, "timeline": 0}
    with pytest.raises(StoreUnavailable, match="standby"):
        server.begin(0).demand()


def test_silence_is_told_until_somebody_answers() -> None:
    server = _Server(_standing())
    server.look(0)
    server.standing.silent(OSError("nobody there"))
    state = server.standing.state()
    assert (state.reachable, state.problems) == (False, ("nobody there",))
    server.begin(1)
    assert server.standing.state().reachable
