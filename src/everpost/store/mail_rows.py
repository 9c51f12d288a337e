"""Rows of mail, as values."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from everpost.ids import Id
from everpost.model.outcome import AttemptRecord
from everpost.model.states import InDoubtPolicy, State

__all__ = [
    "AttemptRow",
    "EventRow",
    "IdempotencyKey",
    "MessageRow",
    "QueueFacts",
    "RecipientRow",
]


class IdempotencyKey(msgspec.Struct, frozen=True, gc=False):
    """A caller's key, scoped to the project (COMPAT §5.4). `fingerprint` hashes endpoint and
    canonical body; `answer` is the body to replay; `expires_at` in milliseconds."""

    key: str
    fingerprint: bytes
    answer: bytes
    expires_at: int


class RecipientRow(msgspec.Struct, frozen=True, gc=False):
    n: int
    address: str
    destination: str
    kind: str
    state: State
    reason: str | None
    route: str
    attempts: int
    not_before: int
    expires_at: int
    settled_at: int | None
    via: str | None


class MessageRow(msgspec.Struct, frozen=True, gc=False):
    """A message with its recipients. `sealed` is None in lists."""

    id: Id
    project: int
    stream: str
    created_at: int
    message_id: str
    sender: str
    subject: str
    to: Sequence[str]
    cc: Sequence[str]
    bcc: Sequence[str]
    reply_to: Sequence[str]
    tags: Sequence[tuple[str, str]]
    metadata: Mapping[str, str]
    scheduled_at: int | None
    expires_at: int
    in_doubt: InDoubtPolicy
    dialect: str
    sandbox: bool
    durability: str
    size: int
    recipients: Sequence[RecipientRow]
    key_id: int = 0
    content_id: Id = b""
    sealed: bytes | None = None


class AttemptRow(msgspec.Struct, frozen=True, gc=False):
    """One attempt of one recipient. `outcome` is the tagged outcome as builtins."""

    n: int
    attempt: int
    outcome: Mapping[str, Any]
    record: AttemptRecord


class EventRow(msgspec.Struct, frozen=True, gc=False):
    """One line of a message's timeline; `seq` counts from 1 without gaps. `position` orders the
    whole outbox."""

    message: Id
    seq: int
    n: int | None
    type: str
    at: int
    data: Mapping[str, Any]
    position: int = 0


class QueueFacts(msgspec.Struct, frozen=True, gc=False):
    """Counts by state, and the age of the oldest due recipient in milliseconds. `due` is exact up
    to 10,000; a larger number is not told apart from that."""

    states: Mapping[str, int]
    accepted: int
    oldest_due_ms: int
    due: int
