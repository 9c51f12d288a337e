"""States of a recipient: one table that code, documents and tests share (RULINGS "States").

The queue row is the recipient. What users see (`scheduled`, `deferred`, `sending`, a message's
status) is derived here by pure functions and never stored.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "LIVE",
    "TERMINAL",
    "TRANSITIONS",
    "HeldReason",
    "InDoubtPolicy",
    "State",
    "Transition",
    "Verb",
    "allowed",
    "last_event",
    "message_status",
    "shown_status",
    "sources",
]


class State(StrEnum):
    """Stored state of one recipient of one message."""

    QUEUED = "queued"
    CLAIMED = "claimed"
    HELD = "held"
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    FAILED = "failed"
    EXPIRED = "expired"
    SUPPRESSED = "suppressed"
    CANCELLED = "cancelled"


class HeldReason(StrEnum):
    """Why a recipient is held."""

    OPERATOR = "operator"
    IN_DOUBT = "in_doubt"
    POISON = "poison"
    RESTORE = "restore"
    DAMAGED = "damaged"


class InDoubtPolicy(StrEnum):
    """What follows an attempt that may have delivered without our knowing it."""

    RESEND = "resend"
    HOLD = "hold"
    FAIL = "fail"


class Verb(StrEnum):
    """Store verbs that move a recipient."""

    ACCEPT = "accept"
    CLAIM = "claim"
    SETTLE = "settle"
    RESIGN = "resign"
    RESCUE = "rescue"
    HOLD = "hold"
    RELEASE = "release"
    CANCEL = "cancel"


LIVE = frozenset({State.QUEUED, State.CLAIMED, State.HELD})
TERMINAL = frozenset(State) - LIVE


@dataclass(frozen=True, slots=True)
class Transition:
    """One arrow. `source` None means that the row is new. `room` alone may draw it."""

    source: State | None
    verb: Verb
    target: State
    room: str
    when: str


TRANSITIONS: tuple[Transition, ...] = (
    Transition(None, Verb.ACCEPT, State.QUEUED, "intake", "accepted, durable"),
    Transition(None, Verb.ACCEPT, State.SUPPRESSED, "intake", "on a suppression list at accept"),
    Transition(State.QUEUED, Verb.CLAIM, State.CLAIMED, "dispatch", "due, and a process took it"),
    Transition(State.CLAIMED, Verb.SETTLE, State.DELIVERED, "dispatch", "2xx to the final dot"),
    Transition(State.CLAIMED, Verb.SETTLE, State.BOUNCED, "dispatch", "refused for good"),
    Transition(State.CLAIMED, Verb.SETTLE, State.FAILED, "dispatch", "our own end gave up"),
    Transition(State.CLAIMED, Verb.SETTLE, State.EXPIRED, "dispatch", "lifetime over"),
    Transition(State.CLAIMED, Verb.SETTLE, State.SUPPRESSED, "dispatch", "suppressed meanwhile"),
    Transition(State.CLAIMED, Verb.SETTLE, State.QUEUED, "dispatch", "deferred; due again later"),
    Transition(State.CLAIMED, Verb.SETTLE, State.HELD, "dispatch", "in doubt (hold), or damaged"),
    Transition(State.CLAIMED, Verb.RESIGN, State.QUEUED, "dispatch", "handed back untried"),
    Transition(State.CLAIMED, Verb.RESCUE, State.QUEUED, "recovery", "its process or term ended"),
    Transition(State.CLAIMED, Verb.RESCUE, State.HELD, "recovery", "in doubt (hold), or poison"),
    Transition(State.CLAIMED, Verb.RESCUE, State.FAILED, "recovery", "in doubt, policy fail"),
    Transition(State.QUEUED, Verb.HOLD, State.HELD, "dispatch.controls", "an operator holds it"),
    Transition(State.HELD, Verb.RELEASE, State.QUEUED, "dispatch.controls", "released"),
    Transition(State.QUEUED, Verb.CANCEL, State.CANCELLED, "dispatch.controls", "cancelled"),
    Transition(State.HELD, Verb.CANCEL, State.CANCELLED, "dispatch.controls", "cancelled"),
)

_ARROWS = frozenset((t.source, t.verb, t.target) for t in TRANSITIONS)


def allowed(source: State | None, verb: Verb, target: State) -> bool:
    """Whether the table has this arrow."""
    return (source, verb, target) in _ARROWS


def sources(verb: Verb, target: State) -> frozenset[State]:
    """The states from which `verb` may lead to `target`; the store's conditions are built of it."""
    return frozenset(
        t.source
        for t in TRANSITIONS
        if t.verb is verb and t.target is target and t.source is not None
    )


def shown_status(state: State, *, attempts: int, not_before: int, now: int) -> str:
    """What users read for one recipient: the stored state, or `scheduled`, `deferred`, `sending`.

    `not_before` and `now` are milliseconds since 1970.
    """
    if state is State.CLAIMED:
        return "sending"
    if state is State.QUEUED:
        if attempts:
            return "deferred"
        return "scheduled" if not_before > now else "queued"
    return state.value


# The earlier in this order, the more a reader of the whole message wants to know it.
_MESSAGE_ORDER = (
    "held", "deferred", "sending", "scheduled", "queued",
    "bounced", "failed", "expired", "suppressed", "cancelled", "delivered",
)  # fmt: skip
_RANK = {status: rank for rank, status in enumerate(_MESSAGE_ORDER)}


def message_status(statuses: Iterable[str]) -> str:
    """A message's status from its recipients' shown ones: live before ended, bad before good."""
    return min(statuses, key=_RANK.__getitem__)


_RESEND_WORDS = {
    "held": "delivery_delayed",
    "deferred": "delivery_delayed",
    "sending": "queued",
    "scheduled": "scheduled",
    "queued": "queued",
    "bounced": "bounced",
    "failed": "failed",
    "expired": "failed",
    "suppressed": "suppressed",
    "cancelled": "canceled",
    "delivered": "delivered",
}


def last_event(status: str) -> str:
    """A message's status in Resend's words (COMPAT §5.2)."""
    return _RESEND_WORDS[status]
