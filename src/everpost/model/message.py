"""What a message is: addresses, content, and the plan for its recipients.

Content is stored once, sealed, however many recipients it has; the bytes are composed from it at
dispatch and are a function of it alone (Message-ID, Date and boundaries are fixed at accept).
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from everpost.ids import Id
from everpost.model.states import InDoubtPolicy

__all__ = [
    "Address",
    "Assurance",
    "Attachment",
    "Content",
    "Durability",
    "Form",
    "NewMessage",
    "NewRecipient",
    "Part",
    "Priority",
    "RecipientKind",
    "Rendered",
]


class Address(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A mailbox. `address` is the addr-spec as it goes on the wire: domain an A-label, lower case;
    the local part may hold UTF-8 (then only SMTPUTF8 carries it). `name` is the display name or
    empty, in Unicode without control characters."""

    address: str
    name: str = ""


class Attachment(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One attached file. `content_id` set means inline (`cid:` in the HTML). `content` is the
    decoded bytes; it is empty and `part` names a shared stored part when it is large."""

    filename: str
    content_type: str
    content: bytes = b""
    content_id: str | None = None
    part: bytes | None = None


class Content(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Everything that the composed bytes depend on. Field order is storage format: append only.

    `message_id` is without angle brackets. `date` is seconds since 1970 UTC. `boundary` seeds the
    MIME boundaries. `headers` are the caller's own, in order, names already checked.
    `alternatives` are further (content type, body) pairs after text and html.
    """

    sender: Address
    to: tuple[Address, ...]
    subject: str
    message_id: str
    date: int
    boundary: str
    cc: tuple[Address, ...] = ()
    reply_to: tuple[Address, ...] = ()
    text: str | None = None
    html: str | None = None
    alternatives: tuple[tuple[str, str], ...] = ()
    attachments: tuple[Attachment, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()


class Part(msgspec.Struct, frozen=True, gc=False):
    """A large attachment body stored once per project and day. `hash` is keyed (see security)."""

    hash: bytes
    content: bytes


class Durability(StrEnum):
    """What an answer of success means. `relaxed` is a setting that every answer then shows."""

    COMMITTED = "committed"
    RELAXED = "relaxed"


class Assurance(StrEnum):
    """Where a message was safe when it was answered for, the strongest first. What is less than
    `committed` is shown in every answer."""

    REPLICATED = "replicated"
    """On the disks of a PostgreSQL primary and of its synchronous standbys."""
    COMMITTED = "committed"
    """On the disk of the one database there is."""
    JOURNAL_PEER = "journal+peer"
    """No database answered: on the disks of this node and of one peer."""
    JOURNAL = "journal"
    """No database answered: on this node's disk."""
    RELAXED = "relaxed"
    """By `store.durability`: a power cut may lose the last seconds."""

    def meets(self, demand: "Assurance") -> bool:
        """Whether it is at least as strong."""
        return _STRENGTH[self] >= _STRENGTH[demand]


_STRENGTH = {assurance: -n for n, assurance in enumerate(Assurance)}


class Priority(StrEnum):
    """Streams' classes; transactional mail is claimed before broadcast mail."""

    TRANSACTIONAL = "transactional"
    BROADCAST = "broadcast"


class RecipientKind(StrEnum):
    TO = "to"
    CC = "cc"
    BCC = "bcc"


class NewRecipient(msgspec.Struct, frozen=True, gc=False):
    """One recipient to be queued. `address` as in `Address`; `destination` is its domain."""

    address: str
    destination: str
    kind: RecipientKind = RecipientKind.TO


class NewMessage(msgspec.Struct, frozen=True, gc=False):
    """One message that intake has checked and sealed; the store writes it as it stands.

    Times are milliseconds since 1970. `sealed` is the sealed Content (security.sealing), under the
    data key `key_id`. `parts` are large attachment bodies as (keyed hash, sealed bytes). Clear
    columns (`sender`, `to`, `cc`, `bcc`, `reply_to` as shown text, `subject`, `tags`) serve lists
    and search. `only` names the one relay that may carry it (a test of that relay). `durability` is
    what a journal answered for it; None: what the store gives.
    """

    id: Id
    project: int
    stream: str
    priority: Priority
    sealed: bytes
    key_id: int
    size: int
    message_id: str
    sender: str
    subject: str
    to: tuple[str, ...]
    recipients: tuple[NewRecipient, ...]
    not_before: int
    expires_at: int
    in_doubt: InDoubtPolicy
    return_token: bytes
    cc: tuple[str, ...] = ()
    bcc: tuple[str, ...] = ()
    reply_to: tuple[str, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    metadata: Mapping[str, str] = msgspec.field(default_factory=dict)
    parts: Sequence[tuple[bytes, bytes]] = ()
    scheduled_at: int | None = None
    dialect: str = "native"
    group: Id | None = None
    api_key: Id | None = None
    sandbox: bool = False
    only: Id | None = None
    durability: Assurance | None = None


class Form(StrEnum):
    """How a message is written for the far end at hand. `7bit` passes everywhere."""

    SEVEN_BIT = "7bit"
    EIGHT_BIT = "8bitmime"
    UTF8 = "smtputf8"


class Rendered(msgspec.Struct, frozen=True, gc=False):
    """Bytes ready for DATA: complete, CRLF line ends, not yet dot-stuffed. `body_hash` is the
    composer's version (one byte) and the SHA-256 of the body in this form."""

    data: bytes
    form: Form
    body_hash: bytes
