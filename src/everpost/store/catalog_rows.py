"""What users manage, as rows, and the slice that keeps them."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from everpost.ids import Id
from everpost.model.message import Assurance
from everpost.model.states import InDoubtPolicy

__all__ = [
    "ApiKeyRow", "Catalog", "CatalogRow", "Change", "DkimKeyRow", "DomainRow", "PoolRow",
    "ProjectRow", "RelayRow", "RouteRow", "StreamRow",
]  # fmt: skip


class ProjectRow(msgspec.Struct, frozen=True):
    id: int
    name: str
    sandbox: bool
    created_at: int
    weight: int = 1
    durability: Assurance | None = None
    """The least that an acceptance of its mail may mean; None: it demands nothing."""


class StreamRow(msgspec.Struct, frozen=True):
    """A stream's policies. `lifetime_ms`: how long a message is tried; `retry_first_ms` and
    `retry_cap_ms` shape the back-off; `weight`: its share of the queue beside its project's other
    streams of the same priority, as a project's is beside other projects."""

    project: int
    name: str
    priority: str
    in_doubt: InDoubtPolicy
    lifetime_ms: int
    retry_first_ms: int
    retry_cap_ms: int
    pool: str | None = None
    weight: int = 1
    durability: Assurance | None = None
    """As a project's; the stronger of the two counts."""


class ApiKeyRow(msgspec.Struct, frozen=True):
    """`hash` is SHA-256 of the whole secret; `public_id` names it (later also as SigV4 id)."""

    id: Id
    project: int
    public_id: str
    name: str
    permission: str
    hash: bytes
    created_at: int
    domain: Id | None = None
    sandbox: bool = False
    expires_at: int | None = None
    revoked_at: int | None = None


class DomainRow(msgspec.Struct, frozen=True):
    """`status`: pending, verified, failed. `signing`: sign or unsigned. `trusted`: verification
    was waived by an operator."""

    id: Id
    project: int
    name: str
    status: str
    signing: str
    trusted: bool
    created_at: int
    verified_at: int | None = None


class DkimKeyRow(msgspec.Struct, frozen=True):
    """`sealed` is the private key (PKCS#8 DER) sealed under `key_id`; `public` the DNS `p=`."""

    id: Id
    domain: Id
    selector: str
    algorithm: str
    key_id: int
    sealed: bytes
    public: str
    active: bool
    created_at: int


class RelayRow(msgspec.Struct, frozen=True):
    """A relay as stored; `password` sealed under `key_id`. `settings` holds the rest (see
    model.relay.Relay) as JSON values."""

    id: Id
    name: str
    host: str
    port: int
    state: str
    settings: Mapping[str, Any]
    key_id: int
    password: bytes | None
    created_at: int


class PoolRow(msgspec.Struct, frozen=True):
    """A pool as stored; `settings` holds tiers (lists of relay ids as text), `spill_below` and
    `floor` (see model.pool.Pool) as JSON values."""

    id: Id
    name: str
    settings: Mapping[str, Any]
    created_at: int


class RouteRow(msgspec.Struct, frozen=True):
    """Which mail goes to a pool: the first route by `position` that fits decides. `settings` holds
    what it must fit (see model.pool.Route) as JSON values."""

    id: Id
    name: str
    position: int
    pool: Id
    settings: Mapping[str, Any]
    created_at: int


CatalogRow = (
    ProjectRow | StreamRow | ApiKeyRow | DomainRow | DkimKeyRow | RelayRow | PoolRow | RouteRow
)


class Change(msgspec.Struct, frozen=True):
    """One step of `Catalog.change`: a row to put, or else (kind, id) to drop; `action` as the audit
    table names it."""

    action: str
    row: CatalogRow | None = None
    drop: tuple[str, Id] | None = None


class Catalog(Protocol):
    """What users manage. Each `put` and `drop` writes one audit row (who did what) and raises the
    settings revision in the same transaction; a put replaces the row of that id."""

    async def revision(self) -> int:
        """Grows with every change of settings; cheap."""
        ...

    async def projects(self) -> Sequence[ProjectRow]: ...

    async def streams(self) -> Sequence[StreamRow]: ...

    async def api_keys(self) -> Sequence[ApiKeyRow]: ...

    async def domains(self) -> Sequence[DomainRow]: ...

    async def dkim_keys(self) -> Sequence[DkimKeyRow]: ...

    async def relays(self) -> Sequence[RelayRow]: ...

    async def pools(self) -> Sequence[PoolRow]: ...

    async def routes(self) -> Sequence[RouteRow]:
        """By position."""
        ...

    async def put(self, row: CatalogRow, *, actor: str, action: str) -> None:
        """Raises `model.errors.Conflict` when a unique name is taken."""
        ...

    async def change(self, changes: Sequence[Change], *, actor: str) -> None:
        """All of these, in order, in one transaction; each writes its audit row. A drop of what is
        not there changes nothing. Raises `model.errors.Conflict`, with nothing written."""
        ...

    async def drop(self, kind: str, id_: Id, *, actor: str, action: str) -> bool:
        """Remove an api_key, domain (with its DKIM keys), relay, pool or route; False when there is
        none. Raises `model.errors.Conflict` while something else needs it."""
        ...

    async def audit(
        self, *, limit: int, after: int | None = None, before: int | None = None
    ) -> Sequence[Mapping[str, Any]]:
        """Newest first: position, at, actor, action, kind, object, detail. `after` and `before`
        are positions in list order: `after` means older than that one, `before` the newer ones next
        to it."""
        ...
