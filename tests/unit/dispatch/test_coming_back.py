"""A destination that wants mail later says when: a cool-down (F67), a greylist (F68). What waits
comes back then, spread out (I19), and loses no attempt for waiting."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everpost.dispatch.retry import GREYLISTED, come_back_at, named_wait
from everpost.model.outcome import (
    Deferred,
    Mark,
    Phase,
    Reply,
    Speaker,
)
from everpost.model.states import State, Verb, allowed
from tests.support.deciding import NOW, POLICY, RECORD, a_claim, decided

GREY = Deferred(
    reason="greylisted",
    phase=Phase.RCPT,
    speaker=Speaker.DESTINATION,
    reply=Reply(code=450, text="Greylisted, please come back later", enhanced="4.2.0"),
    mark=Mark.GREYLIST,
)


def test_a_greylist_is_asked_again_before_it_lets_us_through() -> None:
    """F68: after the five minutes that most want; a minute would be in vain, hours are too long."""
    assert decided(GREY).not_before == NOW + 300_000
    late = a_claim(attempts=9)
    assert decided(GREY, claim=late).not_before == NOW + GREYLISTED.cap_ms


def test_a_greylist_that_says_when_is_not_heard() -> None:
    told = Reply(code=451, text="4.7.1 please try again in 600 seconds")
    outcome = msgspec.structs.replace(GREY, reply=told)
    assert decided(outcome).not_before == NOW + 600_000
    hour = msgspec.structs.replace(GREY, reply=Reply(code=451, text="try again in 1 hour"))
    assert decided(hour).not_before == NOW + 3_600_000
    silent = msgspec.structs.replace(GREY, reply=None)
    assert decided(silent).not_before == NOW + GREYLISTED.first_ms


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Greylisted for 300 seconds", 300),
        ("please try again in 5 minutes", 300),
        ("Try again in 5min", 300),
        ("come back in 120 secs.", 120),
        ("retry after 1 hour", 3600),
        ("wait another\n90 s", 90),
        ("try again in 1 sec", 60),
        ("try again in 99999 hours", 3600),
        ("try again later", None),
        ("greylisted in 2026 surely", None),
        ("see http://greylist.test/in 5 steps", None),
    ],
)
def test_a_time_that_a_greylist_names(text: str, seconds: int | None) -> None:
    assert named_wait(text) == (None if seconds is None else seconds * 1000)


PAUSED = Deferred(
    reason="not tried, mx.b.test takes nothing from us for a while: 451 slow down",
    phase=Phase.ROUTE,
    speaker=Speaker.DESTINATION,
    until=NOW + 60_000,
    untried=True,
)


def test_a_message_that_was_not_tried_loses_an_attempt() -> None:
    """F67."""
    settlement = decided(PAUSED, claim=a_claim(attempts=2))
    assert (settlement.target, settlement.event) == (State.QUEUED, "deferred")
    assert (settlement.attempt, settlement.outcome) == (None, None)
    assert settlement.not_before == NOW + 60_000
    assert settlement.data["attempts"] == 2
    assert settlement.data["reason"] == PAUSED.reason
    assert allowed(State.CLAIMED, Verb.SETTLE, settlement.target)


def test_a_message_that_was_not_tried_waits_past_its_end() -> None:
    over = decided(PAUSED, claim=a_claim(expires_at=NOW))
    assert (over.target, over.event, over.not_before) == (State.EXPIRED, "expired", None)
    soon = decided(PAUSED, claim=a_claim(expires_at=NOW + 5))
    assert (soon.target, soon.not_before) == (State.QUEUED, NOW + 5)
    now = msgspec.structs.replace(PAUSED, until=None)
    assert decided(now).not_before == NOW


def test_the_message_that_was_throttled_comes_back_during_the_pause() -> None:
    tried = msgspec.structs.replace(PAUSED, untried=False, until=NOW + 3_600_000)
    settlement = decided(tried)
    assert settlement.not_before == NOW + 3_600_000
    assert settlement.attempt is RECORD
    early = msgspec.structs.replace(tried, until=NOW + 10)
    assert decided(early).not_before == NOW + POLICY.first_ms


@given(
    st.integers(-(10**6), 10**9),
    st.integers(0, 10**9),
    st.floats(0, 1, exclude_max=True),
)
def test_what_waited_comes_back_early_or_all_at_once(wait: int, life: int, jitter: float) -> None:
    """I19."""
    due = come_back_at(NOW + wait, now=NOW, expires_at=NOW + life, jitter=jitter)
    assert due <= NOW + life
    assert due >= min(NOW + max(wait, 0), NOW + life)
    if NOW + life > NOW + max(wait, 0) * 2 + 1_000 and jitter > 0.5:
        assert due - (NOW + max(wait, 0)) >= 500
