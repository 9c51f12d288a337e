"""What the ledger asks of the store: pages of facts, totals, what the engine says of its own file,
and repairs. (Claims that nobody owns are `Recovery`'s.)"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from everpost.ids import Id

__all__ = [
    "ACCEPTED",
    "AUDIT_PAGE",
    "AttemptFacts",
    "AuditPage",
    "Auditing",
    "ContentFacts",
    "EventFacts",
    "Mending",
    "MessageFacts",
    "PartFacts",
    "PartsPage",
    "RecipientFacts",
    "Said",
    "Totals",
]

AUDIT_PAGE = 1_000
"""Messages of a page where nobody waits for anything else."""

ACCEPTED = "accepted"
"""The tally of all recipients that were ever accepted, beside those of the states."""


class MessageFacts(msgspec.Struct, frozen=True, gc=False):
    """A message's row. `content_there`: the content that it names is stored, wherever."""

    id: Id
    project: int
    content: Id
    content_there: bool


class ContentFacts(msgspec.Struct, frozen=True, gc=False):
    """Stored content; `sound`: its bytes match their checksum."""

    id: Id
    project: int
    sound: bool


class RecipientFacts(msgspec.Struct, frozen=True, gc=False):
    """A recipient's row. `state` as stored, whatever that is. `sound`: what is sent of it is what
    was accepted; None: nobody wrote down what that was."""

    message: Id
    n: int
    project: int
    state: str
    due: int
    owner: Id | None
    deadline: int | None
    attempts: int
    settled_at: int | None
    sound: bool | None = None


class Said(msgspec.Struct, frozen=True, gc=False):
    """The fields of an event that the ledger looks at."""

    recipients: int | None = None
    attempt: int | None = None
    policy: str | None = None
    next_attempt_at: int | None = None


class EventFacts(msgspec.Struct, frozen=True, gc=False):
    """A line of a timeline. `n` None: of the whole message. `said` None: it cannot be read."""

    message: Id
    seq: int
    n: int | None
    type: str
    said: Said | None


class AttemptFacts(msgspec.Struct, frozen=True, gc=False):
    """An attempt's row."""

    message: Id
    n: int
    attempt: int


class AuditPage(msgspec.Struct, frozen=True, gc=False):
    """All rows whose message id lies above `after`, up to and with `upto`, each list in order of
    ids; `upto` None: there is nothing above. `workers`: who may own claims."""

    after: Id
    upto: Id | None
    messages: Sequence[MessageFacts]
    contents: Sequence[ContentFacts]
    recipients: Sequence[RecipientFacts]
    events: Sequence[EventFacts]
    attempts: Sequence[AttemptFacts]
    workers: frozenset[Id]


class PartFacts(msgspec.Struct, frozen=True, gc=False):
    """A large part, by project, day (days since 1970) and keyed hash."""

    project: int
    day: int
    hash: bytes
    sound: bool


class PartsPage(msgspec.Struct, frozen=True, gc=False):
    """`next` is what the next page is asked with; None: these were the last."""

    parts: Sequence[PartFacts]
    next: int | None


class Totals(msgspec.Struct, frozen=True, gc=False):
    """Tallies and counted rows by (project, state), of one snapshot. The tallies have ACCEPTED
    beside the states."""

    tallies: Mapping[tuple[int, str], int]
    rows: Mapping[tuple[int, str], int]


class Auditing(Protocol):
    """ledger's slice, to look: on a connection and in a thread of its own, so that a long look
    holds up neither the writer, nor what doors read, nor the event loop. A page is one short
    snapshot: what is written meanwhile is in it as a whole or not at all."""

    async def audit_page(self, after: Id, *, limit: int, upto: Id | None = None) -> AuditPage:
        """The page above `after`, of about `limit` messages, not beyond `upto`. Raises
        StoreCorrupt where the engine cannot read its own pages."""
        ...

    async def audit_parts(self, after: int, *, limit: int) -> PartsPage:
        """Large parts in the order they came, `after` 0 from the first."""
        ...

    async def audit_totals(self) -> Totals: ...

    async def audit_bounds(self, pieces: int) -> Sequence[Id]:
        """Ids, ascending, that cut the messages into about `pieces` pieces of about the same
        size."""
        ...

    async def engine_check(self) -> Sequence[str]:
        """What the engine finds wrong with its own file; reads all of it."""
        ...


class Mending(Protocol):
    """ledger's slice, to repair. Every repair is one transaction with its rows of the audit table,
    and looks once more, in it, whether it is still called for."""

    async def hold_damaged(self, recipients: Sequence[tuple[Id, int | None]], *, actor: str) -> int:
        """Hold what is queued of these (message, n; None: all of the message), reason damaged; how
        many recipients."""
        ...

    async def queue_anew(self, recipients: Sequence[tuple[Id, int]], *, actor: str) -> int:
        """Of these (message, n), put what is queued and out of every claim's sight into its sight;
        how many."""
        ...

    async def orphans(self, messages: Sequence[Id]) -> Sequence[Mapping[str, Any]]:
        """The contents, events and attempts of messages that have neither a message's row nor
        recipients: each as its columns, and its table as "table"."""
        ...

    async def drop_orphans(self, messages: Sequence[Id], *, actor: str, kept_in: str) -> int:
        """Remove exactly those; how many rows. `kept_in` tells the audit table where they are."""
        ...

    async def mend_tallies(self, differences: Mapping[tuple[int, str], int], *, actor: str) -> None:
        """Add these differences. A difference between tallies and rows stays the same whatever is
        written meanwhile, so it may be mended after the snapshot that it was found in; but only
        once."""
        ...
