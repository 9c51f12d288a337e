"""What users manage, in memory: one consistent snapshot of the catalog, read again when the
settings revision has grown. Rooms of the line read it; `catalog` changes the store behind it."""

from collections.abc import Mapping, Sequence

import msgspec

from everpost.ids import Id
from everpost.store.interface import (
    ApiKeyRow,
    Catalog,
    DkimKeyRow,
    DomainRow,
    PoolRow,
    ProjectRow,
    RelayRow,
    RouteRow,
    StreamRow,
)

__all__ = ["Directory", "Snapshot"]


class Snapshot(msgspec.Struct, frozen=True):
    """The catalog at one revision."""

    revision: int = 0
    projects: Mapping[int, ProjectRow] = {}
    streams: Mapping[tuple[int, str], StreamRow] = {}
    keys: Mapping[bytes, ApiKeyRow] = {}
    """By SHA-256 of the secret."""
    domains: Mapping[str, DomainRow] = {}
    """By lower-case A-label name."""
    dkim_keys: Mapping[Id, Sequence[DkimKeyRow]] = {}
    """Active keys by domain id."""
    relays: Sequence[RelayRow] = ()
    pools: Sequence[PoolRow] = ()
    routes: Sequence[RouteRow] = ()
    """By position."""


class Directory:
    """Holds the newest snapshot. Readers take `directory.now` and use that one value throughout."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.now = Snapshot()

    async def refresh(self) -> bool:
        """Read again if the revision has grown; whether it had."""
        revision = await self._catalog.revision()
        if revision == self.now.revision:
            return False
        dkim: dict[Id, list[DkimKeyRow]] = {}
        for key in await self._catalog.dkim_keys():
            if key.active:
                dkim.setdefault(key.domain, []).append(key)
        snapshot = Snapshot(
            revision=revision,
            projects={p.id: p for p in await self._catalog.projects()},
            streams={(s.project, s.name): s for s in await self._catalog.streams()},
            keys={k.hash: k for k in await self._catalog.api_keys()},
            domains={d.name: d for d in await self._catalog.domains()},
            dkim_keys=dkim,
            relays=tuple(await self._catalog.relays()),
            pools=tuple(await self._catalog.pools()),
            routes=tuple(await self._catalog.routes()),
        )
        if revision < self.now.revision:  # a refresh that began later has ended earlier
            return False
        self.now = snapshot
        return True
