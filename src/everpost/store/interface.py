"""The store's slices. Every verb is asynchronous; times come from the engine's own clock (the
database's, or the clock that the engine was given) and are milliseconds, on two lines:

* since 1970 UTC, for all that has a date: due times, ends of lifetimes, notes, windows of budgets,
  records;
* steady time, for leases: a claim's deadline, the end of a seat, a lead. It is the clock's `steady`
  in the embedded engine, where the wall clock may be set; one whose clock serves several hosts may
  take its own time for both. Nobody but `extend`, `claims_of` and the holder itself looks at it.

A lease that ends further ahead than `LONGEST_LEASE_MS` does not hold: it was left by an earlier run
of the host, or by a release that wrote wall time.

Errors:
    StoreError
    ├── StoreUnavailable   cannot write now (disk full, read-only, closing): nothing was written;
    │                      or, over a network, it is not known: the same call may come again
    └── StoreCorrupt       a checksum or the schema does not fit; an operator must look
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from everpost.ids import Id
from everpost.model.message import Assurance, NewMessage
from everpost.model.outcome import AttemptRecord, Ending
from everpost.model.states import HeldReason, InDoubtPolicy, State
from everpost.store.auditing import Auditing, Mending
from everpost.store.catalog_rows import (
    ApiKeyRow,
    Catalog,
    CatalogRow,
    Change,
    DkimKeyRow,
    DomainRow,
    PoolRow,
    ProjectRow,
    RelayRow,
    RouteRow,
    StreamRow,
)
from everpost.store.cluster import Adopting, Nodes, Standing
from everpost.store.mail_rows import (
    AttemptRow,
    EventRow,
    IdempotencyKey,
    MessageRow,
    QueueFacts,
    RecipientRow,
)
from everpost.store.sharing import Note, Sharing

__all__ = [
    "CLAIMED_BYTES",
    "LONGEST_LEASE_MS",
    "Accepted",
    "Accepting",
    "ApiKeyRow",
    "AttemptRow",
    "Catalog",
    "CatalogRow",
    "Change",
    "Claim",
    "Claimed",
    "Claiming",
    "Conflicting",
    "Controls",
    "DkimKeyRow",
    "DomainRow",
    "EventRow",
    "IdempotencyKey",
    "MessageRow",
    "Note",
    "Outbox",
    "PoolRow",
    "ProjectRow",
    "QueueFacts",
    "Reading",
    "RecipientRow",
    "Recovery",
    "RelayRow",
    "Replayed",
    "RouteRow",
    "Settlement",
    "Sharing",
    "Store",
    "StoreCorrupt",
    "StoreError",
    "StoreUnavailable",
    "StreamRow",
    "WorkerRow",
]


class StoreError(Exception):
    """The store could not do what it was asked."""


class StoreUnavailable(StoreError):
    """Nothing was written; the same call may succeed later."""


class StoreCorrupt(StoreError):
    """Stored bytes do not match their checksum, or the schema is not ours."""


# --- accept ---------------------------------------------------------------------------------------


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """Durable now, so far as `assurance` says."""

    assurance: Assurance = Assurance.COMMITTED


class Replayed(msgspec.Struct, frozen=True, gc=False):
    """The same key and payload came before: the first answer, nothing written. `assurance`: where
    the first one is safe."""

    answer: bytes
    assurance: Assurance = Assurance.COMMITTED


class Conflicting(msgspec.Struct, frozen=True, gc=False):
    """The same key came before with another payload: nothing written."""


class Accepting(Protocol):
    """intake's slice."""

    async def accept(
        self, project: int, messages: Sequence[NewMessage], key: IdempotencyKey | None = None
    ) -> Accepted | Replayed | Conflicting:
        """Write contents, parts, messages, recipients, idempotency record and `accepted` events
        in ONE durable transaction; concurrent calls share a commit. Raises StoreUnavailable."""
        ...

    async def answered(self, project: int, key: str) -> IdempotencyKey | None:
        """What `accept` recorded under `key`, if that has not ended."""
        ...


# --- claim and settle -----------------------------------------------------------------------------


LONGEST_LEASE_MS = 86_400_000
"""No lease is longer."""


class Claim(msgspec.Struct, frozen=True, gc=False):
    """One recipient in our hands until `deadline`, in steady time. `term` fences: it names this
    very claim. `attempts` counts earlier finished attempts, `crashes` earlier claims that ended in
    a crash. `body_hash` and `form` come from the first attempt in that form, if any."""

    message: Id
    n: int
    term: int
    deadline: int
    address: str
    destination: str
    route: str
    attempts: int
    crashes: int
    not_before: int
    expires_at: int
    created_at: int


CLAIMED_BYTES = 32 * 1024
"""Sealed content above this size does not come with a claim: who holds hundreds of claims must not
hold hundreds of large messages (I16)."""


class Claimed(msgspec.Struct, frozen=True, gc=False):
    """What the recipients claimed of one message share. `sealed` is its content, checksum already
    verified; None: it is large, ask for it with `content` when it is needed. `size` is the most
    octets that the message takes when composed. `body_hashes` maps a form to the first attempt's
    body hash. `tags` is JSON as stored: few routes look at it. `only`: the one relay that may carry
    it."""

    message: Id
    project: int
    stream: str
    sender: str
    key_id: int
    content_id: Id
    sealed: bytes | None
    size: int
    in_doubt: InDoubtPolicy
    return_token: bytes
    sandbox: bool
    body_hashes: Mapping[str, bytes]
    claims: tuple[Claim, ...]
    revision: int
    tags: str = "[]"
    only: Id | None = None


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """What becomes of one claim: decided by dispatch, written as it stands.

    `target` is the new state. For queued: `not_before` says when it is due. For held: `reason`.
    `crashed`: its process died of it, as far as is known; counted on the row.
    `attempt` None records no attempt (for example expired before any try). `event` is the type of
    the timeline's event, `data` its fields.
    """

    message: Id
    n: int
    term: int
    target: State
    event: str
    data: Mapping[str, Any]
    outcome: Ending | None = None
    attempt: AttemptRecord | None = None
    not_before: int | None = None
    reason: HeldReason | None = None
    crashed: bool = False


class Claiming(Protocol):
    """dispatch's slice."""

    async def claim(
        self,
        owner: Id,
        *,
        limit: int,
        lease_ms: int,
        busy: Sequence[str] = (),
        broadcast: int | None = None,
    ) -> Sequence[Claimed]:
        """Take up to `limit` due recipients, transactional before broadcast, of that at most
        `broadcast`. Projects share by weight, then a project's streams of that priority by weight,
        then a stream's destinations evenly in turn, oldest first in each; what one does not use
        goes to the others. `busy` names routes that get nothing: lanes as they are, projects and
        streams by what their lanes begin with ("7/", "7/news/"). Durable when it returns."""
        ...

    async def next_due(self, busy: Sequence[str] = (), *, broadcast: bool = True) -> int | None:
        """When the earliest queued recipient is due, or None when nothing is queued. What is due
        already in one of the routes `busy`, or as broadcast mail unless `broadcast`, does not
        count."""
        ...

    async def extend(
        self, owner: Id, claims: Sequence[tuple[Id, int, int]], *, lease_ms: int
    ) -> Sequence[bool]:
        """Renew (message, n, term) claims; False where the term is stale."""
        ...

    async def settle(self, owner: Id, settlements: Sequence[Settlement]) -> Sequence[bool]:
        """Write state, attempt and event of each in one transaction; False where stale."""
        ...

    async def resign(self, owner: Id, claims: Sequence[tuple[Id, int, int]]) -> Sequence[bool]:
        """Hand untried claims back to the queue, due at once."""
        ...

    async def content(self, content: Id) -> bytes:
        """Sealed content by its id, checksum verified. Raises StoreCorrupt when it is missing or
        damaged."""
        ...

    async def parts(
        self, project: int, refs: Sequence[tuple[int, bytes]]
    ) -> Sequence[tuple[int, bytes]]:
        """Large parts by (day, keyed hash), each as (key id, sealed bytes), checksum verified.
        Raises StoreCorrupt when one is missing or damaged."""
        ...


# --- controls -------------------------------------------------------------------------------------


class Controls(Protocol):
    """dispatch.controls' slice: one compare-and-set each. A further name of a message (`Adopting`)
    stands for that message."""

    async def cancel(self, project: int, message: Id) -> int:
        """Cancel a message of which every recipient is queued or held; how many that were. 0, and
        nothing changed, when one is in hand or has ended."""
        ...

    async def reschedule(self, project: int, message: Id, at: int) -> int:
        """Move `not_before` of a message's queued, never tried recipients, and `expires_at` by
        as much, since the lifetime counts from the due time; how many."""
        ...

    async def hold(self, project: int, message: Id, reason: HeldReason) -> int:
        """Hold what is queued; how many."""
        ...

    async def release(self, project: int, message: Id) -> int:
        """Queue what is held, due at once; how many."""
        ...


# --- recovery -------------------------------------------------------------------------------------


class WorkerRow(msgspec.Struct, frozen=True, gc=False):
    """A process incarnation that may own claims. `boot` is the kernel's boot id; `dots` the path
    of its dot log, relative to the data directory of its `node` (empty: a store of one node)."""

    id: Id
    role: str
    pid: int
    boot: str
    dots: str
    started_at: int
    seen_at: int
    node: str = ""


class Recovery(Protocol):
    """recovery's slice."""

    async def register(self, worker: WorkerRow) -> None: ...

    async def seen(self, worker: Id) -> None: ...

    async def workers(self) -> Sequence[WorkerRow]: ...

    async def forget(self, worker: Id) -> None:
        """A process that is gone, and with it its seats (`Sharing`)."""
        ...

    async def claims_of(
        self, owner: Id | None, *, expired_only: bool, limit: int
    ) -> Sequence[tuple[Id, Claim, InDoubtPolicy]]:
        """Claims of one owner (None: of any), all or only those past their deadline, as
        (owner, claim, in-doubt policy)."""
        ...

    async def rescue(self, owner: Id, settlements: Sequence[Settlement]) -> Sequence[bool]:
        """Like settle, by Verb.RESCUE."""
        ...

    async def unowned(
        self, recipients: Sequence[tuple[Id, int]]
    ) -> Sequence[tuple[Claim, InDoubtPolicy | None]]:
        """Of these (message, n), the claims that no registered worker owns, or that lack an owner
        or a deadline, with the message's in-doubt policy; None: the message is gone."""
        ...

    async def take_back(self, settlements: Sequence[Settlement], *, actor: str) -> int:
        """Settle such claims; how many."""
        ...

    async def held_for(self) -> frozenset[HeldReason]:
        """The reasons for which anything is held."""
        ...

    async def purge(self, *, before: int, limit: int) -> int:
        """Remove idempotency records (`limit` at most), notes and budgets that ended before
        `before`, and seats that have ended; how many."""
        ...

    async def checkpoint(self) -> None:
        """Engine housekeeping (SQLite: copy the WAL back). One process calls it."""
        ...


# --- reading --------------------------------------------------------------------------------------


class Reading(Protocol):
    """For doors and doors' eyes only: nothing here changes anything."""

    async def message(self, project: int, message: Id) -> MessageRow | None:
        """Asked for by a further name (`Adopting`), the message itself, under that name."""
        ...

    async def messages(
        self,
        project: int,
        *,
        limit: int,
        after: Id | None = None,
        before: Id | None = None,
        sandbox: bool | None = None,
    ) -> tuple[Sequence[MessageRow], bool]:
        """Newest first, and whether there are more in that direction. `after` and `before` are
        ids in list order (COMPAT §5.2): `after` means older than that id. Further names are in no
        list."""
        ...

    async def attempts(self, project: int, message: Id) -> Sequence[AttemptRow]: ...

    async def events(self, project: int, message: Id) -> Sequence[EventRow]: ...

    async def facts(self) -> QueueFacts: ...


class Outbox(Protocol):
    """The events in commit order, for consumers with a cursor of their own (publisher: later)."""

    async def outbox(self, consumer: str, *, limit: int) -> Sequence[EventRow]: ...

    async def mark_published(self, consumer: str, position: int) -> None: ...


# --- keys -----------------------------------------------------------------------------------------


class Keys(Protocol):
    """Wrapped data keys (security.sealing)."""

    async def data_keys(self) -> Sequence[tuple[int, int, bytes]]:
        """(key id, project, wrapped key) of all that are not destroyed."""
        ...

    async def add_data_key(self, project: int, wrapped: bytes) -> int:
        """Store a wrapped key, return its id."""
        ...


class Store(
    Accepting,
    Claiming,
    Controls,
    Recovery,
    Reading,
    Outbox,
    Auditing,
    Mending,
    Catalog,
    Sharing,
    Keys,
    Adopting,
    Nodes,
    Standing,
    Protocol,
):
    """All slices together: what an engine offers and `assembly` hands out in parts."""

    async def open(self) -> None:
        """Bring the schema up to date and open connections. Raises StoreError."""
        ...

    async def close(self) -> None: ...
