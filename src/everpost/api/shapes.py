"""What callers get: one struct an answer.

Resend's fields come first, Everpost's own after them. Times are ISO 8601 in UTC.
"""

from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta

from everpost.api.node_shapes import NodeAnswer, StoreAnswer

__all__ = [
    "ApiKeyAnswer",
    "AttemptAnswer",
    "AuditAnswer",
    "BatchAnswer",
    "Created",
    "DeletedAnswer",
    "DispatcherAnswer",
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
    "RootAnswer",
    "SandboxAnswer",
    "StatusAnswer",
]

_T = TypeVar("_T")
_Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


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


_Durability = Annotated[
    Literal["journal+peer", "journal", "relaxed"] | None,
    Meta(
        description="Only where it is less than what this server gives as a rule: no database"
        " answered, and the email is on the disks of a node and of one peer (`journal+peer`) or of"
        " a node (`journal`); or the server runs relaxed."
    ),
]


class Created(msgspec.Struct, omit_defaults=True):
    """The id of an accepted email. It is durable now."""

    id: str
    durability: _Durability = None


class ItemError(msgspec.Struct):
    """Why one email of a permissive batch was refused; `index` counts from 0."""

    index: int
    message: str


class BatchAnswer(msgspec.Struct, omit_defaults=True):
    """The ids of the accepted emails in order; `errors` in permissive validation only."""

    data: list[Created]
    errors: list[ItemError] | None = None
    durability: _Durability = None


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


class TriedAnswer(msgspec.Struct):
    """A relay that was left for another one within an attempt."""

    relay: str
    phase: str
    reason: str


class AttemptAnswer(msgspec.Struct):
    """One attempt. `outcome.type` is delivered, deferred, bounced, failed or in_doubt; its `rule`
    is the row of the classification that decided."""

    attempt: int
    started_at: _Time
    ended_at: _Time
    outcome: dict[str, Any]
    bounce_type: Annotated[
        Literal["hard", "soft"] | None,
        Meta(
            description="Of a bounce. hard: the address is no good, for any message; soft: this "
            "message was refused (its content, its size, a policy, a full mailbox)."
        ),
    ]
    throttled: Annotated[
        bool, Meta(description="Whether the relay or the destination asked us to send less.")
    ]
    relay: str | None
    host: str | None
    peer: str | None
    tls: dict[str, Any] | None
    timings: Annotated[dict[str, float], Meta(description="Milliseconds by phase.")]
    tried: Annotated[
        list[TriedAnswer],
        Meta(description="Relays that were asked before `relay`, in order, and why each was left."),
    ]
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


class DispatcherAnswer(msgspec.Struct, omit_defaults=True):
    """A process that delivers mail."""

    pid: int
    started_at: _Time
    node: str | None = None


class StatusAnswer(msgspec.Struct):
    """The queue of this installation."""

    accepted: Annotated[int, Meta(description="Recipients ever accepted.")]
    states: Annotated[dict[str, int], Meta(description="Recipients by stored state.")]
    due: Annotated[int, Meta(description="Recipients that wait to be sent now.")]
    oldest_due_seconds: float
    alarms: list[str]
    durability: str
    ready: bool
    dispatchers: Annotated[
        list[DispatcherAnswer],
        Meta(
            description="Processes that deliver mail. One that died is listed until its mail is"
            " in other hands."
        ),
    ]
    nodes: Annotated[list[NodeAnswer], Meta(description="None on the embedded store.")]
    store: StoreAnswer
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
