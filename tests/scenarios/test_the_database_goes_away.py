"""F23, F27-F30 seen from a node: its PostgreSQL is stopped, killed, paused, or may not be written,
while clients post. Each gets an answer within the time that a client that retries once has; what
was answered is in the database once, soon after it is back.

Invariants: I1, I7, I8.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from everpost.ids import Id, IdMaker
from everpost.journal import Drain, Journal, JournalledAccepting
from everpost.journal.reach import Reach
from everpost.model.message import Assurance, Durability
from everpost.store.interface import Accepted, IdempotencyKey, Replayed
from everpost.store.postgres import PostgresStore
from everpost.store.sqlite.journal import JournalFile
from tests.conformance.making import message
from tests.support.journalling import Fellows
from tests.support.postgres import Postgres, serving_postgres

_PATIENCE_S = 0.25
_CLIENTS = 6


@dataclass
class Node:
    store: PostgresStore
    journal: Journal
    accepting: JournalledAccepting
    ids: IdMaker
    answered: dict[Id, Assurance] = field(default_factory=dict)
    longest: float = 0.0

    async def post(self, *, named: str | None = None) -> Accepted | Replayed:
        sent = message(id_=self.ids(), not_before=self.store.clock.now())
        key = None
        if named is not None:
            key = IdempotencyKey(named, b"f" * 32, sent.id, self.store.clock.now() + 3_600_000)
        began = self.store.clock.monotonic()
        outcome = await self.accepting.accept(1, [sent], key)
        self.longest = max(self.longest, self.store.clock.monotonic() - began)
        assert isinstance(outcome, Accepted | Replayed)
        if isinstance(outcome, Accepted):
            self.answered[sent.id] = outcome.assurance
        return outcome

    def count(self, assurance: Assurance) -> int:
        return sum(each is assurance for each in self.answered.values())

    async def wait(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not done():
                await asyncio.sleep(0)


@asynccontextmanager
async def _node(server: Postgres, folder: Path) -> AsyncIterator[Node]:
    store = PostgresStore(
        server.url("mail"), durability=Durability.RELAXED, deadline_s=2.0, patience_s=2.0
    )
    await store.open()
    file = JournalFile(folder / "journal.db", clock=store.clock)
    await file.open()
    journal = Journal(file, node="a")
    reach = Reach(store, news=journal.news)
    accepting = JournalledAccepting(
        store=store,
        journal=journal,
        reach=reach,
        peers=Fellows(),
        clock=store.clock,
        patience_s=_PATIENCE_S,
    )
    drain = Drain(journal=journal, store=store, reach=reach, clock=store.clock, chance=lambda: 0.5)
    draining = asyncio.ensure_future(drain.run())
    try:
        yield Node(store, journal, accepting, IdMaker(store.clock.now))
    finally:
        draining.cancel()
        await asyncio.gather(draining, return_exceptions=True)
        await file.close()
        await store.close()


@contextmanager
def _server() -> Iterator[Postgres]:
    with serving_postgres(settings={"synchronous_commit": "on"}) as server:
        server.create("mail")
        yield server


def _stop(server: Postgres) -> None:
    server.stop()


def _kill(server: Postgres) -> None:
    server.kill()


def _pause(server: Postgres) -> None:
    server.pause()


def _forbid(server: Postgres) -> None:
    server.execute("postgres", "ALTER SYSTEM SET default_transaction_read_only = on")
    server.execute("postgres", "SELECT pg_reload_conf()")


def _start(server: Postgres) -> None:
    server.start()


def _resume(server: Postgres) -> None:
    server.resume()


def _allow(server: Postgres) -> None:
    server.execute("postgres", "ALTER SYSTEM RESET ALL")
    server.execute("postgres", "SELECT pg_reload_conf()")


Change = Callable[[Postgres], None]


@pytest.mark.parametrize(
    ("away", "back"),
    [(_stop, _start), (_kill, _start), (_pause, _resume), (_forbid, _allow)],
    ids=["stopped", "killed", "paused", "read-only"],
)
def test_under_load(tmp_path: Path, away: Change, back: Change) -> None:
    async def scene(server: Postgres) -> None:
        async with _node(server, tmp_path) as node:
            over = asyncio.Event()

            async def client() -> None:
                while not over.is_set():
                    await node.post()

            clients = [asyncio.ensure_future(client()) for _ in range(_CLIENTS)]
            await node.wait(lambda: node.count(Assurance.RELAXED) >= 20)
            await asyncio.to_thread(away, server)
            await node.wait(lambda: node.count(Assurance.JOURNAL) >= 50)
            await asyncio.to_thread(back, server)
            before = node.count(Assurance.RELAXED)
            await node.wait(lambda: node.count(Assurance.RELAXED) >= before + 20)
            over.set()
            await asyncio.gather(*clients)
            await node.wait(lambda: node.journal.waiting == 0)
            assert node.longest < 1.0 + _PATIENCE_S
            for id_ in node.answered:
                assert await node.store.message(1, id_) is not None
            assert (await node.store.facts()).accepted == len(node.answered)

    with _server() as server:
        asyncio.run(scene(server))


def test_the_same_key_before_during_and_after(tmp_path: Path) -> None:
    async def scene(server: Postgres) -> None:
        async with _node(server, tmp_path) as node:
            await node.post(named="before")
            await asyncio.to_thread(server.stop)
            again = await node.post(named="before")  # nobody can know; it becomes a further name
            assert again == Accepted(Assurance.JOURNAL)
            await node.post(named="during")
            assert isinstance(await node.post(named="during"), Replayed)
            await asyncio.to_thread(server.start)
            await node.wait(lambda: node.journal.waiting == 0)
            assert isinstance(await node.post(named="during"), Replayed)
            for id_ in node.answered:
                assert await node.store.message(1, id_) is not None
            assert len(node.answered) == 3
            assert (await node.store.facts()).accepted == 2

    with _server() as server:
        asyncio.run(scene(server))
