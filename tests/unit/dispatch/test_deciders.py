"""dispatch's deciders: every outcome, every policy, every edge of time."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everpost.dispatch.fairness import broadcast_part, left_for, may_take
from everpost.dispatch.retry import (
    GREYLISTED,
    RELAY_FAULT,
    RetryPolicy,
    come_back_at,
    named_wait,
    retry_at,
)
from everpost.dispatch.settle import abandoned, decide, expired, poisoned
from everpost.model.outcome import (
    Abandoned,
    AttemptRecord,
    Bounced,
    Deferred,
    Delivered,
    Failed,
    InDoubt,
    Mark,
    Outcome,
    Phase,
    Reply,
    Speaker,
)
from everpost.model.states import HeldReason, InDoubtPolicy, State, Verb, allowed
from everpost.store.interface import Claim, Settlement

NOW = 1_000_000
POLICY = RetryPolicy(first_ms=60_000, cap_ms=14_400_000)
RECORD = AttemptRecord(started_at=NOW - 5, ended_at=NOW, relay="one", host="mx.test")
OK = Reply(code=250, text="ok", enhanced="2.0.0")
LATER = Reply(code=451, text="later", enhanced="4.3.0")
NEVER = Reply(code=550, text="no such user", enhanced="5.1.1")


def _claim(*, attempts: int = 0, expires_at: int = NOW + 10**9, crashes: int = 0) -> Claim:
    return Claim(
        message=b"m" * 16,
        n=1,
        term=3,
        deadline=NOW + 900_000,
        address="a@b.test",
        destination="b.test",
        route="b.test",
        attempts=attempts,
        crashes=crashes,
        not_before=NOW,
        expires_at=expires_at,
        created_at=NOW,
    )


def _decide(
    outcome: Outcome,
    *,
    claim: Claim | None = None,
    in_doubt: InDoubtPolicy = InDoubtPolicy.RESEND,
) -> Settlement:
    return decide(
        claim or _claim(),
        outcome,
        RECORD,
        policy=POLICY,
        in_doubt=in_doubt,
        now=NOW,
        jitter=0.0,
    )


@pytest.mark.parametrize(
    ("outcome", "target", "event"),
    [
        (Delivered(reply=OK), State.DELIVERED, "delivered"),
        (Bounced(reply=NEVER, phase=Phase.RCPT), State.BOUNCED, "bounced"),
        (Failed(reason="no", phase=Phase.COMPOSE), State.FAILED, "failed"),
        (
            Deferred(reason="later", phase=Phase.RCPT, speaker=Speaker.DESTINATION, reply=LATER),
            State.QUEUED,
            "deferred",
        ),
        (InDoubt(reason="silence"), State.QUEUED, "in_doubt"),
    ],
)
def test_an_outcome_that_ends_in_the_wrong_state(
    outcome: Outcome, target: State, event: str
) -> None:
    settlement = _decide(outcome)
    assert (settlement.target, settlement.event) == (target, event)
    assert settlement.outcome is outcome
    assert settlement.attempt is RECORD
    assert settlement.data["attempt"] == 1
    assert allowed(State.CLAIMED, Verb.SETTLE, settlement.target)


@pytest.mark.parametrize(("hard", "told"), [(True, "hard"), (False, "soft")])
def test_a_bounce_that_does_not_say_whether_the_address_is_good(hard: bool, told: str) -> None:
    outcome = Bounced(reply=NEVER, phase=Phase.RCPT, hard=hard, rule="bad-mailbox")
    data = _decide(outcome).data
    assert (data["bounce_type"], data["rule"]) == (told, "bad-mailbox")


def test_a_deferral_that_does_not_say_who_wants_less() -> None:
    outcome = Deferred(
        reason="x", phase=Phase.RCPT, speaker=Speaker.DESTINATION, throttle=True, rule="qq"
    )
    data = _decide(outcome).data
    assert (data["throttle"], data["speaker"], data["rule"]) == (True, "destination", "qq")


def test_a_deferral_is_due_again_after_the_first_delay() -> None:
    outcome = Deferred(reason="x", phase=Phase.DATA, speaker=Speaker.DESTINATION)
    assert _decide(outcome).not_before == NOW + 60_000


def test_a_relays_own_fault_is_looked_at_again_soon() -> None:
    outcome = Deferred(reason="x", phase=Phase.LOGIN, speaker=Speaker.RELAY, relay_fault=True)
    assert _decide(outcome).not_before == NOW + RELAY_FAULT.first_ms


def test_the_lack_of_a_relay_is_looked_at_again_soon() -> None:
    outcome = Deferred(reason="no relay", phase=Phase.ROUTE, speaker=Speaker.SELF)
    assert _decide(outcome).not_before == NOW + RELAY_FAULT.first_ms


def test_a_deferral_past_the_end_of_life_expires() -> None:
    outcome = Deferred(reason="x", phase=Phase.DATA, speaker=Speaker.DESTINATION)
    settlement = _decide(outcome, claim=_claim(expires_at=NOW))
    assert (settlement.target, settlement.event) == (State.EXPIRED, "expired")


@pytest.mark.parametrize(
    ("policy", "target", "reason"),
    [
        (InDoubtPolicy.RESEND, State.QUEUED, None),
        (InDoubtPolicy.HOLD, State.HELD, HeldReason.IN_DOUBT),
        (InDoubtPolicy.FAIL, State.FAILED, None),
    ],
)
def test_doubt_follows_its_policy(
    policy: InDoubtPolicy, target: State, reason: HeldReason | None
) -> None:
    settlement = _decide(InDoubt(reason="silence"), in_doubt=policy)
    assert (settlement.target, settlement.reason) == (target, reason)
    assert settlement.event == "in_doubt"
    assert settlement.data["policy"] == policy.value


def test_doubt_at_the_end_of_life_is_not_sent_again() -> None:
    settlement = _decide(InDoubt(reason="silence"), claim=_claim(expires_at=NOW))
    assert settlement.target is State.FAILED


def test_an_abandoned_attempt_is_due_at_once_and_recorded() -> None:
    settlement = abandoned(
        _claim(attempts=2), Abandoned(reason="killed"), RECORD, now=NOW, crashed=True
    )
    assert settlement.crashed
    assert (settlement.target, settlement.not_before) == (State.QUEUED, NOW)
    assert settlement.data["attempt"] == 3
    assert allowed(State.CLAIMED, Verb.RESCUE, settlement.target)


def test_expired_and_poisoned_claims_record_no_attempt() -> None:
    assert expired(_claim()).attempt is None
    settlement = poisoned(_claim(crashes=3))
    assert (settlement.target, settlement.reason) == (State.HELD, HeldReason.POISON)


@given(
    attempts=st.integers(1, 10_000),
    jitter=st.floats(0, 1, exclude_max=True),
    first=st.integers(1, 10**7),
    cap=st.integers(1, 10**9),
    life=st.integers(1, 10**10),
)
def test_a_retry_comes_neither_too_early_nor_after_the_end(
    attempts: int, jitter: float, first: int, cap: int, life: int
) -> None:
    due = retry_at(
        RetryPolicy(first_ms=first, cap_ms=cap),
        attempts=attempts,
        now=NOW,
        expires_at=NOW + life,
        jitter=jitter,
    )
    assert due is not None
    assert NOW < due <= NOW + life
    if due < NOW + life:
        assert min(first, cap) <= due - NOW <= cap * 1.25


def test_retries_that_failed_together_come_back_apart() -> None:
    due = {
        retry_at(POLICY, attempts=1, now=NOW, expires_at=NOW * 10**6, jitter=j / 100)
        for j in range(100)
    }
    assert len(due) == 100


@given(capacity=st.integers(1, 500), greedy=st.integers(1, 20))
def test_greedy_routes_always_leave_room_for_a_newcomer(capacity: int, greedy: int) -> None:
    """Of their own stream, and of another project."""
    held = [0] * greedy

    def left() -> float:
        total = sum(held)
        return left_for(total, left_for(total, capacity - total))

    moved = True
    while moved:
        moved = False
        for route in range(greedy):
            if may_take(held[route], left()):
                held[route] += 1
                moved = True
    if capacity > 8 * greedy:
        assert may_take(0, left())
        assert capacity - sum(held) >= 1
    assert sum(held) <= capacity


def test_one_route_alone_gets_most_of_the_capacity() -> None:
    held = 0
    while may_take(held, left_for(held, left_for(held, 400 - held))):
        held += 1
    assert 290 <= held <= 300


def test_projects_with_a_newcomer_each_time_fill_everything() -> None:
    """Routes that hold nothing may take any slot, but only of what their project may have."""
    held = 0
    while may_take(0, left_for(held, 800 - held)):
        held += 1
    assert held <= 760


@pytest.mark.parametrize(
    ("capacity", "part"), [(0, 0), (1, 1), (2, 1), (3, 2), (4, 3), (10, 8), (800, 600)]
)
def test_broadcast_mail_leaves_nothing_to_transactional(capacity: int, part: int) -> None:
    assert broadcast_part(capacity) == part


# --- what a destination wants of us: later, and how much later ---------------------------------

GREY = Deferred(
    reason="greylisted",
    phase=Phase.RCPT,
    speaker=Speaker.DESTINATION,
    reply=Reply(code=450, text="Greylisted, please come back later", enhanced="4.2.0"),
    mark=Mark.GREYLIST,
)


def test_a_greylist_is_asked_again_before_it_lets_us_through() -> None:
    """F68: after the five minutes that most want; a minute would be in vain, hours are too long."""
    assert _decide(GREY).not_before == NOW + 300_000
    late = _claim(attempts=9)
    assert _decide(GREY, claim=late).not_before == NOW + GREYLISTED.cap_ms


def test_a_greylist_that_says_when_is_not_heard() -> None:
    told = Reply(code=451, text="4.7.1 please try again in 600 seconds")
    outcome = msgspec.structs.replace(GREY, reply=told)
    assert _decide(outcome).not_before == NOW + 600_000
    silent = msgspec.structs.replace(GREY, reply=None)
    assert _decide(silent).not_before == NOW + GREYLISTED.first_ms


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
    settlement = _decide(PAUSED, claim=_claim(attempts=2))
    assert (settlement.target, settlement.event) == (State.QUEUED, "deferred")
    assert (settlement.attempt, settlement.outcome) == (None, None)
    assert settlement.not_before == NOW + 60_000
    assert settlement.data["attempts"] == 2
    assert settlement.data["reason"] == PAUSED.reason
    assert allowed(State.CLAIMED, Verb.SETTLE, settlement.target)


def test_a_message_that_was_not_tried_waits_past_its_end() -> None:
    over = _decide(PAUSED, claim=_claim(expires_at=NOW))
    assert (over.target, over.event, over.not_before) == (State.EXPIRED, "expired", None)
    soon = _decide(PAUSED, claim=_claim(expires_at=NOW + 5))
    assert (soon.target, soon.not_before) == (State.QUEUED, NOW + 5)
    now = msgspec.structs.replace(PAUSED, until=None)
    assert _decide(now).not_before == NOW


def test_the_message_that_was_throttled_comes_back_during_the_pause() -> None:
    tried = msgspec.structs.replace(PAUSED, untried=False, until=NOW + 3_600_000)
    settlement = _decide(tried)
    assert settlement.not_before == NOW + 3_600_000
    assert settlement.attempt is RECORD
    early = msgspec.structs.replace(tried, until=NOW + 10)
    assert _decide(early).not_before == NOW + POLICY.first_ms


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
