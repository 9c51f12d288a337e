"""What callers get: one struct an answer, and how rows become them.

Resend's fields come first, Everpost's own after them. Times are ISO 8601 in UTC.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta

from everpost import ids
from everpost.api.answers import timestamp
from everpost.catalog import DnsRecord, DomainView, RelayView
from everpost.model.message import Content
from everpost.model.states import last_event, message_status, shown_status
from everpost.store.interface import (
    ApiKeyRow,
    AttemptRow,
    EventRow,
    MessageRow,
    RecipientRow,
)

__all__ = [
    "ApiKeyAnswer",
    "AttemptAnswer",
    "AuditAnswer",
    "BatchAnswer",
    "Created",
    "DeletedAnswer",
    "DomainAnswer",
    "EmailAnswer",
    "EmailItem",
    "EmailRef",
    "EventAnswer",
    "HealthAnswer",
    "ItemError",
    "ListAnswer",
    "NewApiKeyAnswer",
    "ProblemAnswer",
    "RecipientAnswer",
    "RelayAnswer",
    "RootAnswer",
    "SandboxAnswer",
    "StatusAnswer",
    "api_key",
    "domain",
    "email",
    "email_item",
    "event",
    "recipient",
    "relay",
    "sandbox_email",
]

_T = TypeVar("_T")
_Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


def _moment(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else timestamp(milliseconds)


class ProblemAnswer(msgspec.Struct):
    """An error. `name` is stable; `message` is for people and names fields in backticks."""

    statusCode: int  # noqa: N815  Resend's spelling
    name: str
    message: str


class ListAnswer(msgspec.Struct, Generic[_T]):
    """A list, and whether it goes on."""

    data: list[_T]
    has_more: bool = False
    object: str = "list"


class Created(msgspec.Struct):
    """The id of an accepted email. It is durable now."""

    id: str


class ItemError(msgspec.Struct):
    """Why one email of a permissive batch was refused; `index` counts from 0."""

    index: int
    message: str


class BatchAnswer(msgspec.Struct, omit_defaults=True):
    """The ids of the accepted emails in order; `errors` in permissive validation only."""

    data: list[Created]
    errors: list[ItemError] | None = None


class EmailRef(msgspec.Struct):
    """The email that was changed."""

    id: str
    object: str = "email"


class DeletedAnswer(msgspec.Struct):
    """What was removed."""

    object: str
    id: str
    deleted: bool = True


class TagAnswer(msgspec.Struct):
    name: str
    value: str


class EmailItem(msgspec.Struct, rename={"sender": "from"}):
    """An email in a list."""

    id: str
    to: list[str]
    sender: str
    created_at: _Time
    subject: str
    cc: list[str]
    bcc: list[str]
    reply_to: list[str]
    last_event: Annotated[str, Meta(description="Its status in Resend's words.")]
    scheduled_at: _Time | None
    status: Annotated[str, Meta(description="Everpost's status, from all its recipients.")]
    stream: str
    sandbox: bool
    object: str = "email"


class EmailAnswer(EmailItem, kw_only=True):
    """An email with its content and the sum of its recipients."""

    message_id: Annotated[str, Meta(description="The Message-ID header.")]
    html: str | None
    text: str | None
    tags: list[TagAnswer]
    metadata: dict[str, str]
    recipients: Annotated[dict[str, int], Meta(description="How many recipients by status.")]
    expires_at: _Time
    in_doubt: str
    durability: str
    size: int


class SandboxAnswer(EmailAnswer, kw_only=True):
    """An email that the sandbox caught."""

    raw: Annotated[
        str, Meta(description="The message as it would travel; bytes that are not UTF-8 as U+FFFD.")
    ]


class AttemptAnswer(msgspec.Struct):
    """One attempt. `outcome.type` is delivered, deferred, bounced, failed or in_doubt."""

    attempt: int
    started_at: _Time
    ended_at: _Time
    outcome: dict[str, Any]
    relay: str | None
    host: str | None
    peer: str | None
    tls: dict[str, Any] | None
    timings: Annotated[dict[str, float], Meta(description="Milliseconds by phase.")]
    form: str | None


class RecipientAnswer(msgspec.Struct):
    """One recipient and each attempt to reach it."""

    n: int
    address: str
    kind: str
    status: str
    reason: str | None
    via: Annotated[str | None, Meta(description="relay, mx or sandbox, once delivered.")]
    next_attempt_at: _Time | None
    expires_at: _Time
    settled_at: _Time | None
    attempts: list[AttemptAnswer]


class EventAnswer(msgspec.Struct):
    """One line of the timeline; `seq` counts from 1 without gaps."""

    seq: int
    type: str
    created_at: _Time
    recipient: int | None
    data: dict[str, Any]


class DnsRecordAnswer(msgspec.Struct, omit_defaults=True):
    record: str
    name: str
    type: str
    ttl: str
    status: str
    value: str
    priority: int | None = None


class DomainAnswer(msgspec.Struct):
    """A sending domain and the DNS records that it needs."""

    id: str
    name: str
    status: str
    created_at: _Time
    records: list[DnsRecordAnswer]
    signing: str
    trusted: bool
    region: Annotated[str, Meta(description="Always `local`; Resend's clients ask for it.")] = (
        "local"
    )
    object: str = "domain"


class ApiKeyAnswer(msgspec.Struct):
    """A key without its secret."""

    id: str
    name: str
    created_at: _Time
    permission: str
    domain_id: str | None
    sandbox: bool
    public_id: str


class NewApiKeyAnswer(msgspec.Struct):
    """A new key. `token` is the secret; it is shown here and never again."""

    id: str
    token: str


class RelayAnswer(msgspec.Struct):
    """A relay without its password."""

    id: str
    name: str
    host: str
    port: int
    state: str
    implicit_tls: bool
    tls: str
    username: str | None
    has_password: bool
    auth: str | None
    site: str | None
    helo: str | None
    connections: int | None
    weight: int
    eight_bit: bool
    signed_headers: list[str] | None
    created_at: _Time
    object: str = "relay"


class StatusAnswer(msgspec.Struct):
    """The queue of this installation."""

    accepted: Annotated[int, Meta(description="Recipients ever accepted.")]
    states: Annotated[dict[str, int], Meta(description="Recipients by stored state.")]
    due: Annotated[int, Meta(description="Recipients that wait to be sent now.")]
    oldest_due_seconds: float
    alarms: list[str]
    durability: str
    ready: bool
    object: str = "status"


class AuditAnswer(msgspec.Struct):
    """Who changed what."""

    position: int
    created_at: _Time
    actor: str
    action: str
    kind: str
    id: str
    detail: Any


class HealthAnswer(msgspec.Struct, omit_defaults=True):
    """`alive` or `ready`."""

    status: str


class RootAnswer(msgspec.Struct):
    """Where to read on."""

    name: str
    documentation: str
    openapi: str


# --- from rows ------------------------------------------------------------------------------------


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


def email(row: MessageRow, content: Content, *, now: int) -> EmailAnswer:
    return EmailAnswer(**_email_fields(row, content, now))


def sandbox_email(row: MessageRow, content: Content, raw: bytes, *, now: int) -> SandboxAnswer:
    return SandboxAnswer(
        **_email_fields(row, content, now), raw=raw.decode("utf-8", errors="replace")
    )


def _email_fields(row: MessageRow, content: Content, now: int) -> dict[str, Any]:
    statuses = _statuses(row, now)
    return {
        **_item_fields(row, statuses),
        "message_id": f"<{row.message_id}>",
        "html": content.html,
        "text": content.text,
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
    record = row.record
    return AttemptAnswer(
        attempt=row.attempt,
        started_at=timestamp(record.started_at),
        ended_at=timestamp(record.ended_at),
        outcome=dict(row.outcome),
        relay=record.relay,
        host=record.host,
        peer=record.peer,
        tls=None if record.tls is None else msgspec.to_builtins(record.tls),
        timings=record.timings,
        form=record.form,
    )


def event(row: EventRow) -> EventAnswer:
    return EventAnswer(
        seq=row.seq, type=row.type, created_at=timestamp(row.at), recipient=row.n,
        data=dict(row.data),
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


def relay(view: RelayView) -> RelayAnswer:
    row, settings = view.row, view.row.settings
    return RelayAnswer(
        id=ids.text(row.id),
        name=row.name,
        host=row.host,
        port=row.port,
        state=row.state,
        implicit_tls=settings.get("implicit_tls", False),
        tls=settings.get("tls", "opportunistic"),
        username=settings.get("username"),
        has_password=row.password is not None,
        auth=settings.get("auth"),
        site=settings.get("site"),
        helo=settings.get("helo"),
        connections=settings.get("connections"),
        weight=settings.get("weight", 1),
        eight_bit=settings.get("eight_bit", False),
        signed_headers=settings.get("signed_headers"),
        created_at=timestamp(row.created_at),
    )
