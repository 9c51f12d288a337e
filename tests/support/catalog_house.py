"""A store with what catalog and access stand on, for their tests."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from everpost.catalog import ApiKeys, Domains, Relays
from everpost.compose.dkim import Algorithm, generate_key
from everpost.ids import Id, IdMaker
from everpost.model.credential import FULL_ACCESS, Credential
from everpost.net.resolver import Absent, Answer, Found
from everpost.security import MasterKey, Sealer
from everpost.store.directory import Directory
from everpost.store.interface import Catalog, ProjectRow

__all__ = ["ANA", "BOB", "House", "Names", "Time", "opened"]

ANA = Credential(project=1, permission=FULL_ACCESS, actor="key:ana")
BOB = Credential(project=2, permission=FULL_ACCESS, actor="key:bob")
"""Of another project."""


class Time:
    """A clock that the test moves: `at` in milliseconds since 1970."""

    def __init__(self) -> None:
        self.at = 1_800_000_000_000

    def now(self) -> int:
        return self.at

    def monotonic(self) -> float:
        return self.at / 1000


class Names:
    """TXT records as the test says; names not said do not exist."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.fresh: list[bool] = []

    def publish(self, name: str, *texts: str) -> None:
        self.answers[name] = Found(texts, 60)

    async def txt(self, name: str, *, fresh: bool = False) -> Answer:
        self.fresh.append(fresh)
        return self.answers.get(name, Absent("nxdomain"))


def small_key(algorithm: Algorithm) -> tuple[bytes, str]:
    """RSA of 1024 bits, to be quick."""
    return generate_key(algorithm, 1024)


@dataclass
class House:
    store: Catalog
    time: Time
    directory: Directory
    sealer: Sealer
    names: Names = field(default_factory=Names)

    def __post_init__(self) -> None:
        ids = IdMaker(self.time.now)
        self.keys = ApiKeys(self.store, self.directory, clock=self.time, ids=ids)
        self.domains = Domains(
            self.store,
            self.directory,
            sealer=self.sealer,
            clock=self.time,
            ids=ids,
            resolver=self.names,
            make_key=small_key,
        )
        self.relays = Relays(
            self.store, self.directory, sealer=self.sealer, clock=self.time, ids=ids
        )

    async def audited(self) -> list[tuple[str, str]]:
        """(actor, action), newest first."""
        return [(row["actor"], row["action"]) for row in await self.store.audit(limit=100)]


class MemoryCatalog:
    """Temporary."""

    def __init__(self, clock: Time) -> None:
        self.clock = clock
        self.rev = 1
        self.rows: dict[tuple[str, Any], Any] = {}
        self.log: list[dict[str, Any]] = []

    async def revision(self) -> int:
        return self.rev

    async def _of(self, kind: str) -> Sequence[Any]:
        return [row for (k, _), row in self.rows.items() if k == kind]

    async def projects(self) -> Sequence[Any]:
        return await self._of("ProjectRow")

    async def streams(self) -> Sequence[Any]:
        return await self._of("StreamRow")

    async def api_keys(self) -> Sequence[Any]:
        return await self._of("ApiKeyRow")

    async def domains(self) -> Sequence[Any]:
        return await self._of("DomainRow")

    async def dkim_keys(self) -> Sequence[Any]:
        return await self._of("DkimKeyRow")

    async def relays(self) -> Sequence[Any]:
        return await self._of("RelayRow")

    async def put(self, row: Any, *, actor: str, action: str) -> None:
        self.rows[type(row).__name__, row.id] = row
        self.rev += 1
        self.log.append({"actor": actor, "action": action})

    async def drop(self, kind: str, id_: Id, *, actor: str, action: str) -> bool:
        name = {"domain": "DomainRow", "relay": "RelayRow", "api_key": "ApiKeyRow"}[kind]
        if self.rows.pop((name, id_), None) is None:
            return False
        for key, row in list(self.rows.items()):
            if key[0] == "DkimKeyRow" and row.domain == id_:
                del self.rows[key]
        self.rev += 1
        self.log.append({"actor": actor, "action": action})
        return True

    async def audit(self, *, limit: int) -> Sequence[Mapping[str, Any]]:
        return self.log[::-1][:limit]


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[House]:
    """A house on a new store below `folder`, with two projects that have data keys."""
    time = Time()
    store = MemoryCatalog(time)
    sealer = Sealer(MasterKey(bytes(range(32))))
    for key_id, project in enumerate((1, 2), 1):
        sealer.add(key_id, project, sealer.new_data_key(project))
    await store.put(
        ProjectRow(2, "bob", sandbox=False, created_at=time.now()), actor="test", action="test"
    )
    directory = Directory(store)
    await directory.refresh()
    yield House(store, time, directory, sealer)
