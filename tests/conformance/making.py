"""Makes messages, settlements and clocks for the store's tests."""

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from everpost.ids import Id, IdMaker
from everpost.model.message import NewMessage, NewRecipient, Priority
from everpost.model.outcome import AttemptRecord, Deferred, Delivered, Ending, Phase, Reply, Speaker
from everpost.model.states import HeldReason, InDoubtPolicy, State
from everpost.store.interface import Claim, Claimed, Settlement

__all__ = [
    "DAY",
    "START",
    "UP",
    "HandClock",
    "attempt",
    "claims",
    "deferred",
    "delivered",
    "lane",
    "make_id",
    "message",
    "settlement",
    "triples",
]

START = 1_800_000_000_000
DAY = 86_400_000
UP = 50_000_000
"""Steady time: the host came up half a day ago."""


class _Ids:
    """Ids of START; after some thousands the maker's go on in the next millisecond."""

    def __init__(self) -> None:
        self.begin_anew()

    def __call__(self) -> Id:
        return self._make()

    def begin_anew(self) -> None:
        self._make = IdMaker(lambda: START)


make_id = _Ids()


class HandClock:
    """Time passes by hand, on both lines; `step` sets the wall clock alone. Durations are real."""

    def __init__(self, now: int = START, *, steady: int = UP) -> None:
        self.time = now
        self.up = steady

    def now(self) -> int:
        return self.time

    def steady(self) -> int:
        return self.up

    def monotonic(self) -> float:
        return time.monotonic()

    def pass_(self, ms: int) -> None:
        self.time += ms
        self.up += ms

    def step(self, ms: int) -> None:
        self.time += ms


def message(
    *addresses: str,
    id_: Id | None = None,
    not_before: int = START,
    priority: Priority = Priority.TRANSACTIONAL,
    sealed: bytes | None = None,
    parts: Sequence[tuple[bytes, bytes]] = (),
    project: int = 1,
    stream: str | None = None,
    sandbox: bool = False,
    in_doubt: InDoubtPolicy = InDoubtPolicy.RESEND,
) -> NewMessage:
    to = addresses or ("someone@one.test",)
    return NewMessage(
        id=id_ or make_id(),
        project=project,
        stream=stream or priority.value,
        priority=priority,
        sealed=secrets.token_bytes(200) if sealed is None else sealed,
        key_id=7,
        size=1234,
        message_id="abc@sender.test",
        sender="Sender <sender@sender.test>",
        subject="A subject, with “quotes” and 中文",
        to=to,
        recipients=tuple(NewRecipient(a, a.rpartition("@")[2]) for a in to),
        not_before=not_before,
        expires_at=not_before + 5 * DAY,
        in_doubt=in_doubt,
        return_token=secrets.token_bytes(8),
        cc=("Copy <copy@one.test>",),
        tags=(("campaign", "spring"),),
        metadata={"order": "42"},
        parts=parts,
        sandbox=sandbox,
    )


def lane(destination: str, priority: Priority = Priority.TRANSACTIONAL, *, project: int = 1) -> str:
    """The route of a message of `message` to this destination."""
    return f"{project}/{priority.value}/{destination}"


def claims(taken: Sequence[Claimed]) -> list[Claim]:
    return [claim for each in taken for claim in each.claims]


def triples(taken: Sequence[Claimed]) -> list[tuple[Id, int, int]]:
    return [(c.message, c.n, c.term) for c in claims(taken)]


def attempt(**fields: Any) -> AttemptRecord:
    return AttemptRecord(started_at=START, ended_at=START + 5, **fields)


def settlement(
    claim: Claim,
    target: State,
    *,
    event: str = "settled",
    data: Mapping[str, Any] | None = None,
    outcome: Ending | None = None,
    record: AttemptRecord | None = None,
    not_before: int | None = None,
    reason: HeldReason | None = None,
    crashed: bool = False,
) -> Settlement:
    return Settlement(
        message=claim.message,
        n=claim.n,
        term=claim.term,
        target=target,
        event=event,
        data=data or {},
        outcome=outcome,
        attempt=record,
        not_before=not_before,
        reason=reason,
        crashed=crashed,
    )


def delivered(claim: Claim, record: AttemptRecord | None = None) -> Settlement:
    return settlement(
        claim,
        State.DELIVERED,
        event="delivered",
        data={"via": "relay"},
        outcome=Delivered(reply=Reply(code=250, text="ok", enhanced="2.0.0")),
        record=record or attempt(relay="r1", form="7bit", body_hash=b"h" * 32),
    )


def deferred(
    claim: Claim, *, at: int = START + 60_000, record: AttemptRecord | None = None
) -> Settlement:
    return settlement(
        claim,
        State.QUEUED,
        event="deferred",
        data={"next_attempt_at": at},
        outcome=Deferred(reason="busy", phase=Phase.MAIL, speaker=Speaker.RELAY),
        record=record or attempt(relay="r1", form="7bit", body_hash=b"h" * 32),
        not_before=at,
    )
