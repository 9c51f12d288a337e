"""From an outcome to what is written: the state, the event and the next due time. Pure."""

from typing import Any, assert_never

import msgspec

from everpost.dispatch.retry import (
    GREYLISTED,
    RELAY_FAULT,
    RetryPolicy,
    come_back_at,
    named_wait,
    retry_at,
)
from everpost.model.outcome import (
    Abandoned,
    AttemptRecord,
    Bounced,
    Deferred,
    Delivered,
    Ending,
    Failed,
    InDoubt,
    Mark,
    Outcome,
    Phase,
    Reply,
    Speaker,
)
from everpost.model.states import HeldReason, InDoubtPolicy, State
from everpost.store.interface import Claim, Settlement

__all__ = ["abandoned", "damaged", "decide", "doubted", "expired", "poisoned", "returned"]

_SUSPECT_MS = 3_000
"""From a crash that it may have caused to the next try, times the crashes so far."""


def decide(
    claim: Claim,
    outcome: Outcome,
    record: AttemptRecord,
    *,
    policy: RetryPolicy,
    in_doubt: InDoubtPolicy,
    now: int,
    jitter: float,
) -> Settlement:
    """What becomes of one claim after an attempt that ended in `outcome`."""
    match outcome:
        case Delivered():
            data = {"via": outcome.via, **_facts(record), **_reply(outcome.reply)}
            return _settle(claim, State.DELIVERED, "delivered", data, outcome, record)
        case Bounced():
            data = {
                "phase": outcome.phase.value,
                "speaker": outcome.speaker.value,
                "bounce_type": outcome.kind,
                **_rule(outcome),
                **_facts(record),
                **_reply(outcome.reply),
            }
            return _settle(claim, State.BOUNCED, "bounced", data, outcome, record)
        case Failed():
            data = {
                "phase": outcome.phase.value,
                "reason": outcome.reason,
                "enhanced": outcome.enhanced,
            }
            return _settle(claim, State.FAILED, "failed", data, outcome, record)
        case Deferred(untried=True):
            return _postponed(claim, outcome, now=now, jitter=jitter)
        case Deferred():
            return _deferred(claim, outcome, record, policy=policy, now=now, jitter=jitter)
        case InDoubt():
            return doubted(
                claim, outcome, record, policy=policy, in_doubt=in_doubt, now=now, jitter=jitter
            )
        case _:
            assert_never(outcome)


def _deferred(
    claim: Claim,
    outcome: Deferred,
    record: AttemptRecord,
    *,
    policy: RetryPolicy,
    now: int,
    jitter: float,
) -> Settlement:
    data = {
        "phase": outcome.phase.value,
        "speaker": outcome.speaker.value,
        "reason": outcome.reason,
        "throttle": outcome.throttle,
        **_rule(outcome),
        **_facts(record),
        **_reply(outcome.reply),
    }
    due = retry_at(
        _policy_for(outcome, policy),
        attempts=claim.attempts + 1,
        now=now,
        expires_at=claim.expires_at,
        jitter=jitter,
    )
    if due is None:
        return _settle(claim, State.EXPIRED, "expired", data, outcome, record)
    if outcome.until is not None:
        due = max(
            due,
            come_back_at(outcome.until, now=now, expires_at=claim.expires_at, jitter=jitter),
        )
    data["next_attempt_at"] = due
    return _settle(claim, State.QUEUED, "deferred", data, outcome, record, not_before=due)


def _policy_for(outcome: Deferred, policy: RetryPolicy) -> RetryPolicy:
    """The stream's, but for what the destination did not say for itself, and for a greylist, which
    says when it will take the message."""
    if outcome.mark is Mark.GREYLIST:
        named = named_wait(outcome.reply.text) if outcome.reply is not None else None
        if named is None:
            return GREYLISTED
        return RetryPolicy(named, max(named, GREYLISTED.cap_ms))  # it is never asked too early
    # Neither a relay's own fault nor the lack of one is the destination's word; what its name
    # servers fail to say is.
    ours = outcome.relay_fault or (outcome.phase is Phase.ROUTE and outcome.speaker is Speaker.SELF)
    return RELAY_FAULT if ours else policy


def _postponed(claim: Claim, outcome: Deferred, *, now: int, jitter: float) -> Settlement:
    """Its destination takes nothing from us now: it waits without an attempt having been made, and
    none is counted."""
    over = now >= claim.expires_at
    data: dict[str, Any] = {
        "phase": outcome.phase.value,
        "speaker": outcome.speaker.value,
        "reason": outcome.reason,
        "attempts": claim.attempts,
    }
    due = None
    if not over:
        due = data["next_attempt_at"] = come_back_at(
            now if outcome.until is None else outcome.until,
            now=now,
            expires_at=claim.expires_at,
            jitter=jitter,
        )
    target, event = (State.EXPIRED, "expired") if over else (State.QUEUED, "deferred")
    return _settlement(claim, target, event, data, not_before=due)


def doubted(
    claim: Claim,
    outcome: InDoubt,
    record: AttemptRecord,
    *,
    policy: RetryPolicy,
    in_doubt: InDoubtPolicy,
    now: int,
    jitter: float,
) -> Settlement:
    """The final dot may have left and nobody read an answer: the policy says what follows.

    A resend carries the same Message-ID, so a receiver can drop the second copy.
    """
    data: dict[str, Any] = {
        "reason": outcome.reason,
        "policy": in_doubt.value,
        **_facts(record),
    }
    if in_doubt is InDoubtPolicy.HOLD:
        return _settle(
            claim, State.HELD, "in_doubt", data, outcome, record, reason=HeldReason.IN_DOUBT
        )
    due = retry_at(
        policy, attempts=claim.attempts + 1, now=now, expires_at=claim.expires_at, jitter=jitter
    )
    if in_doubt is InDoubtPolicy.FAIL or due is None:
        return _settle(claim, State.FAILED, "in_doubt", data, outcome, record)
    data["next_attempt_at"] = due
    return _settle(claim, State.QUEUED, "in_doubt", data, outcome, record, not_before=due)


def abandoned(
    claim: Claim, outcome: Abandoned, record: AttemptRecord, *, now: int, crashed: bool
) -> Settlement:
    """Its process ended before any final dot left: due again at once. `crashed`: while it was
    being composed, so that it may itself be the cause (F36); then the process that comes next has
    time for other mail first."""
    pause = _SUSPECT_MS * (claim.crashes + 1) if crashed else 0
    settlement = _settle(
        claim,
        State.QUEUED,
        "abandoned",
        {"reason": outcome.reason, **_facts(record)},
        outcome,
        record,
        not_before=now + pause,
    )
    return msgspec.structs.replace(settlement, crashed=crashed)


def returned(claim: Claim, *, now: int) -> Settlement:
    """Its process ended before it was touched: due again at once, and no attempt was made."""
    data = {"reason": "Its process ended before an attempt began"}
    return _settlement(claim, State.QUEUED, "abandoned", data, not_before=now)


def expired(claim: Claim) -> Settlement:
    """Its lifetime ended before this attempt began."""
    return _settlement(claim, State.EXPIRED, "expired", {"attempts": claim.attempts})


def poisoned(claim: Claim) -> Settlement:
    """Processes keep dying with it in hand: held until somebody looks (F36)."""
    data = {"reason": HeldReason.POISON.value, "crashes": claim.crashes}
    return _settlement(claim, State.HELD, "held", data, reason=HeldReason.POISON)


def damaged(claim: Claim, why: str) -> Settlement:
    """What is stored of it is not what was accepted: held until somebody looks (F9)."""
    return _settlement(claim, State.HELD, "held", {"reason": why}, reason=HeldReason.DAMAGED)


def _settlement(
    claim: Claim,
    target: State,
    event: str,
    data: dict[str, Any],
    *,
    outcome: Ending | None = None,
    attempt: AttemptRecord | None = None,
    not_before: int | None = None,
    reason: HeldReason | None = None,
) -> Settlement:
    """One claim's; without `attempt` none was made."""
    return Settlement(
        message=claim.message,
        n=claim.n,
        term=claim.term,
        target=target,
        event=event,
        data=data,
        outcome=outcome,
        attempt=attempt,
        not_before=not_before,
        reason=reason,
    )


def _settle(  # noqa: PLR0917  one line a case reads best at the call
    claim: Claim,
    target: State,
    event: str,
    data: dict[str, Any],
    outcome: Ending,
    record: AttemptRecord,
    *,
    not_before: int | None = None,
    reason: HeldReason | None = None,
) -> Settlement:
    data["attempt"] = claim.attempts + 1
    return _settlement(
        claim,
        target,
        event,
        data,
        outcome=outcome,
        attempt=record,
        not_before=not_before,
        reason=reason,
    )


def _facts(record: AttemptRecord) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if record.relay is not None:
        facts["relay"] = record.relay
    if record.host is not None:
        facts["host"] = record.host
    return facts


def _rule(outcome: Bounced | Deferred) -> dict[str, Any]:
    """The row of docs/reference/classification.md that decided, where an answer did."""
    return {} if outcome.rule is None else {"rule": outcome.rule}


def _reply(reply: Reply | None) -> dict[str, Any]:
    if reply is None:
        return {}
    return {"code": reply.code, "enhanced": reply.enhanced, "message": reply.text}
