"""From rows of the store and views of the catalog to the shapes of the answers."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from everpost import ids
from everpost.api.answers import timestamp
from everpost.api.shapes import (
    ApiKeyAnswer,
    AttemptAnswer,
    DnsRecordAnswer,
    DomainAnswer,
    EmailAnswer,
    EmailItem,
    EventAnswer,
    RecipientAnswer,
    SandboxAnswer,
    TagAnswer,
    TriedAnswer,
)
from everpost.catalog import DnsRecord, DomainView
from everpost.model.message import Content
from everpost.model.states import last_event, message_status, shown_status
from everpost.store.interface import ApiKeyRow, AttemptRow, EventRow, MessageRow, RecipientRow

__all__ = [
    "api_key",
    "domain",
    "email",
    "email_item",
    "event",
    "recipient",
    "sandbox_email",
]


def _moment(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else timestamp(milliseconds)


def _statuses(row: MessageRow, now: int) -> list[str]:
    return [_status(recipient, now) for recipient in row.recipients]


def _status(row: RecipientRow, now: int) -> str:
    return shown_status(row.state, attempts=row.attempts, not_before=row.not_before, now=now)


def _item_fields(row: MessageRow, statuses: list[str]) -> dict[str, Any]:
    status = message_status(statuses)
    return {
        "id": ids.text(row.id),
        "to": list(row.to),
        "sender": row.sender,
        "created_at": timestamp(row.created_at),
        "subject": row.subject,
        "cc": list(row.cc),
        "bcc": list(row.bcc),
        "reply_to": list(row.reply_to),
        "last_event": last_event(status),
        "scheduled_at": _moment(row.scheduled_at),
        "status": status,
        "stream": row.stream,
        "sandbox": row.sandbox,
    }


def email_item(row: MessageRow, *, now: int) -> EmailItem:
    """`now` in milliseconds: whether it is scheduled still depends on it."""
    return EmailItem(**_item_fields(row, _statuses(row, now)))


def email(row: MessageRow, content: Content | None, *, now: int) -> EmailAnswer:
    """`content` None: what is stored of it is damaged; the rest is shown."""
    return EmailAnswer(**_email_fields(row, content, now))


def sandbox_email(
    row: MessageRow, content: Content | None, raw: bytes, *, now: int
) -> SandboxAnswer:
    return SandboxAnswer(
        **_email_fields(row, content, now), raw=raw.decode("utf-8", errors="replace")
    )


def _email_fields(row: MessageRow, content: Content | None, now: int) -> dict[str, Any]:
    statuses = _statuses(row, now)
    return {
        **_item_fields(row, statuses),
        "message_id": f"<{row.message_id}>",
        "html": None if content is None else content.html,
        "text": None if content is None else content.text,
        "tags": [TagAnswer(name, value) for name, value in row.tags],
        "metadata": dict(row.metadata),
        "recipients": dict(Counter(statuses)),
        "expires_at": timestamp(row.expires_at),
        "in_doubt": row.in_doubt.value,
        "durability": row.durability,
        "size": row.size,
    }


def recipient(
    row: RecipientRow, attempts: Mapping[int, list[AttemptRow]], *, now: int
) -> RecipientAnswer:
    """`attempts` by recipient."""
    status = _status(row, now)
    waits = status in {"queued", "scheduled", "deferred"}
    return RecipientAnswer(
        n=row.n,
        address=row.address,
        kind=row.kind,
        status=status,
        reason=row.reason,
        via=row.via,
        next_attempt_at=timestamp(row.not_before) if waits else None,
        expires_at=timestamp(row.expires_at),
        settled_at=_moment(row.settled_at),
        attempts=[_attempt(attempt) for attempt in attempts.get(row.n, ())],
    )


def _attempt(row: AttemptRow) -> AttemptAnswer:
    record, outcome = row.record, row.outcome
    return AttemptAnswer(
        attempt=row.attempt,
        started_at=timestamp(record.started_at),
        ended_at=timestamp(record.ended_at),
        outcome=dict(outcome),
        bounce_type=_bounce_type(outcome),
        throttled=bool(outcome.get("throttle")),
        relay=record.relay,
        host=record.host,
        peer=record.peer,
        tls=None if record.tls is None else msgspec.to_builtins(record.tls),
        timings=record.timings,
        tried=[TriedAnswer(each.relay, each.phase, each.reason) for each in record.tried],
        form=record.form,
    )


def _bounce_type(outcome: Mapping[str, Any]) -> Literal["hard", "soft"] | None:
    """Bounces from before this was told are soft: nothing was known against the address."""
    if outcome.get("type") != "bounced":
        return None
    return "hard" if outcome.get("hard") else "soft"


_TIMES = ("at", "next_attempt_at")
"""Fields of an event's data that are stored as milliseconds."""


def _told(data: Mapping[str, Any]) -> dict[str, Any]:
    """An event's data with its times as all other times are."""
    told = dict(data)
    for name in _TIMES:
        if type(value := told.get(name)) is int:
            told[name] = timestamp(value)
    return told


def event(row: EventRow) -> EventAnswer:
    return EventAnswer(
        seq=row.seq, type=row.type, created_at=timestamp(row.at), recipient=row.n,
        data=_told(row.data),
    )  # fmt: skip


def domain(view: DomainView) -> DomainAnswer:
    row = view.row
    return DomainAnswer(
        id=ids.text(row.id),
        name=row.name,
        status=row.status,
        created_at=timestamp(row.created_at),
        records=[_dns_record(record) for record in view.records],
        signing=row.signing,
        trusted=row.trusted,
    )


def _dns_record(record: DnsRecord) -> DnsRecordAnswer:
    return msgspec.convert(record, DnsRecordAnswer, from_attributes=True)


def api_key(row: ApiKeyRow) -> ApiKeyAnswer:
    return ApiKeyAnswer(
        id=ids.text(row.id),
        name=row.name,
        created_at=timestamp(row.created_at),
        permission=row.permission,
        domain_id=None if row.domain is None else ids.text(row.domain),
        sandbox=row.sandbox,
        public_id=row.public_id,
    )
