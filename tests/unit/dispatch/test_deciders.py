"""dispatch's deciders: every outcome, every policy, every edge of time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everpost.dispatch.fairness import broadcast_part, left_for, may_take
from everpost.dispatch.retry import RELAY_FAULT, RetryPolicy, retry_at
from everpost.dispatch.settle import abandoned, expired, poisoned
from everpost.model.outcome import (
    Abandoned,
    Bounced,
    Deferred,
    Delivered,
    Failed,
    InDoubt,
    Outcome,
    Phase,
    Reply,
    Speaker,
)
from everpost.model.states import HeldReason, InDoubtPolicy, State, Verb, allowed
from tests.support.deciding import NOW, POLICY, RECORD, a_claim, decided

OK = Reply(code=250, text="ok", enhanced="2.0.0")
LATER = Reply(code=451, text="later", enhanced="4.3.0")
NEVER = Reply(code=550, text="no such user", enhanced="5.1.1")


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
    settlement = decided(outcome)
    assert (settlement.target, settlement.event) == (target, event)
    assert settlement.outcome is outcome
    assert settlement.attempt is RECORD
    assert settlement.data["attempt"] == 1
    assert allowed(State.CLAIMED, Verb.SETTLE, settlement.target)


@pytest.mark.parametrize(("hard", "told"), [(True, "hard"), (False, "soft")])
def test_a_bounce_that_does_not_say_whether_the_address_is_good(hard: bool, told: str) -> None:
    outcome = Bounced(reply=NEVER, phase=Phase.RCPT, hard=hard, rule="bad-mailbox")
    data = decided(outcome).data
    assert (data["bounce_type"], data["rule"]) == (told, "bad-mailbox")


def test_a_deferral_that_does_not_say_who_wants_less() -> None:
    outcome = Deferred(
        reason="x", phase=Phase.RCPT, speaker=Speaker.DESTINATION, throttle=True, rule="qq"
    )
    data = decided(outcome).data
    assert (data["throttle"], data["speaker"], data["rule"]) == (True, "destination", "qq")


def test_a_deferral_is_due_again_after_the_first_delay() -> None:
    outcome = Deferred(reason="x", phase=Phase.DATA, speaker=Speaker.DESTINATION)
    assert decided(outcome).not_before == NOW + 60_000


def test_a_relays_own_fault_is_looked_at_again_soon() -> None:
    outcome = Deferred(reason="x", phase=Phase.LOGIN, speaker=Speaker.RELAY, relay_fault=True)
    assert decided(outcome).not_before == NOW + RELAY_FAULT.first_ms


def test_the_lack_of_a_relay_is_looked_at_again_soon() -> None:
    outcome = Deferred(reason="no relay", phase=Phase.ROUTE, speaker=Speaker.SELF)
    assert decided(outcome).not_before == NOW + RELAY_FAULT.first_ms


def test_a_deferral_past_the_end_of_life_expires() -> None:
    outcome = Deferred(reason="x", phase=Phase.DATA, speaker=Speaker.DESTINATION)
    settlement = decided(outcome, claim=a_claim(expires_at=NOW))
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
    settlement = decided(InDoubt(reason="silence"), in_doubt=policy)
    assert (settlement.target, settlement.reason) == (target, reason)
    assert settlement.event == "in_doubt"
    assert settlement.data["policy"] == policy.value


def test_doubt_at_the_end_of_life_is_not_sent_again() -> None:
    settlement = decided(InDoubt(reason="silence"), claim=a_claim(expires_at=NOW))
    assert settlement.target is State.FAILED


def test_an_abandoned_attempt_is_due_at_once_and_recorded() -> None:
    settlement = abandoned(
        a_claim(attempts=2), Abandoned(reason="killed"), RECORD, now=NOW, crashed=False
    )
    assert not settlement.crashed
    assert (settlement.target, settlement.not_before) == (State.QUEUED, NOW)
    assert settlement.data["attempt"] == 3
    assert allowed(State.CLAIMED, Verb.RESCUE, settlement.target)


def test_what_may_have_killed_its_process_is_the_first_in_the_next() -> None:
    for crashes in range(3):
        settlement = abandoned(
            a_claim(crashes=crashes), Abandoned(reason="killed"), RECORD, now=NOW, crashed=True
        )
        assert settlement.crashed
        assert settlement.not_before == NOW + 3_000 * (crashes + 1)


def test_expired_and_poisoned_claims_record_no_attempt() -> None:
    assert expired(a_claim()).attempt is None
    settlement = poisoned(a_claim(crashes=3))
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
