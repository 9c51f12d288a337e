"""A store with what catalog and access stand on, for their tests."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from everpost.catalog import ApiKeys, Applier, Domains, Pools, Projects, Relays, Routes, Streams
from everpost.catalog.fields import StreamFields
from everpost.compose.dkim import Algorithm, generate_key
from everpost.ids import IdMaker
from everpost.model.credential import FULL_ACCESS, Credential
from everpost.net.resolver import Absent, Answer, Found
from everpost.security import MasterKey, Sealer
from everpost.store.directory import Directory
from everpost.store.interface import ProjectRow
from everpost.store.sqlite import SqliteStore

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

    def steady(self) -> int:
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
    store: SqliteStore
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
        self.pools = Pools(self.store, self.directory, clock=self.time, ids=ids)
        self.routes = Routes(self.store, self.directory, clock=self.time, ids=ids)
        self.streams = Streams(self.store, self.directory)
        self.projects = Projects(self.store, self.directory)
        self.applier = Applier(
            self.store, self.directory, sealer=self.sealer, clock=self.time, ids=ids
        )

    async def set_stream_pool(self, pool: str) -> None:
        """ANA's transactional mail goes there."""
        await self.streams.change(ANA, "transactional", StreamFields(pool=pool))

    async def audited(self) -> list[tuple[str, str]]:
        """(actor, action), newest first."""
        return [(row["actor"], row["action"]) for row in await self.store.audit(limit=100)]


_migrated: list[bytes] = []


async def _fresh(path: Path, time: Time) -> SqliteStore:
    """An opened store of our own schema. Only the first one of a run is migrated to it, which takes
    longer than these tests; the others begin as copies of its file."""
    if not _migrated:
        with tempfile.TemporaryDirectory() as folder:
            first = SqliteStore(Path(folder) / "everpost.db", clock=time)
            await first.open()
            await first.close()
            _migrated.append(await asyncio.to_thread(Path(folder, "everpost.db").read_bytes))
    await asyncio.to_thread(path.write_bytes, _migrated[0])
    store = SqliteStore(path, clock=time)
    await store.open()
    return store


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[House]:
    """A house on a new store in `folder`, with two projects that have data keys."""
    time = Time()
    store = await _fresh(folder / "everpost.db", time)
    try:
        bob = ProjectRow(BOB.project, "bob", sandbox=False, created_at=time.now())
        await store.put(bob, actor="test", action="test")
        sealer = Sealer(MasterKey(bytes(range(32))))
        for project in (ANA.project, BOB.project):
            wrapped = sealer.new_data_key(project)
            sealer.add(await store.add_data_key(project, wrapped), project, wrapped)
        directory = Directory(store)
        await directory.refresh()
        yield House(store, time, directory, sealer)
    finally:
        await store.close()
