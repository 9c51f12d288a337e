"""A node's accepting with its journal, over a real embedded store behind a switch.

Run as a program (`python -m tests.support.journalling DATABASE JOURNAL`) it is a node whose
database is away: clients post one message after the other, and each acknowledged id is a line of
its output.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from everpost.ids import Id
from everpost.journal import Drain, Entry, Journal, JournalledAccepting, JournalLimits
from everpost.journal.reach import Reach
from everpost.model.message import NewMessage
from everpost.store.cluster import Adopted, Aliased, StoreState
from everpost.store.interface import (
    Accepted,
    Conflicting,
    IdempotencyKey,
    Replayed,
    StoreUnavailable,
)
from everpost.store.sqlite import SqliteStore
from everpost.store.sqlite.journal import JournalFile
from tests.conformance.making import START, HandClock, message

__all__ = ["Desk", "Fellows", "Switch", "desk", "entry", "key"]

PATIENCE_S = 0.05
_CLIENTS = 4


class Switch:
    """The store's slices that the journal uses. `mode`: `up`; `down`, it refuses; `silent`, it
    never gets a request; `late`, it commits, and the answer does not come before `answer`."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.mode = "up"
        self.timeline = 1
        self.asked = 0
        self.adopted = 0
        self.answer = asyncio.Event()
        self.says_well = True

    def state(self) -> StoreState:
        return StoreState(writable=self.says_well, timeline=self.timeline)

    async def _pass(self, done: Callable[[], Any]) -> Any:
        if self.mode == "down":
            raise StoreUnavailable("no primary")
        if self.mode == "silent":
            await self.answer.wait()
            raise StoreUnavailable("the connection was shut")
        outcome = await done()
        if self.mode == "late":
            await self.answer.wait()
        return outcome

    async def accept(
        self, project: int, messages: Sequence[NewMessage], key: IdempotencyKey | None = None
    ) -> Accepted | Replayed | Conflicting:
        self.asked += 1
        outcome: Accepted | Replayed | Conflicting = await self._pass(
            lambda: self.store.accept(project, messages, key)
        )
        return outcome

    async def answered(self, project: int, key: str) -> IdempotencyKey | None:
        outcome: IdempotencyKey | None = await self._pass(lambda: self.store.answered(project, key))
        return outcome

    async def adopt(
        self, project: int, messages: Sequence[NewMessage], key: IdempotencyKey | None = None
    ) -> Adopted | Aliased:
        self.adopted += 1
        outcome: Adopted | Aliased = await self._pass(
            lambda: self.store.adopt(project, messages, key)
        )
        return outcome


class Fellows:
    """Peers of a test: whether one has a copy is said by `has`; what they were sent is kept."""

    def __init__(self) -> None:
        self.has = False
        self.sent: list[bytes] = []

    async def copy(self, body: bytes) -> bool:
        self.sent.append(body)
        return self.has


class Desk:
    """One node."""

    def __init__(
        self, switch: Switch, file: JournalFile, clock: HandClock, limits: JournalLimits
    ) -> None:
        self.switch = switch
        self.store = switch.store
        self.file = file
        self.clock = clock
        self.low = False
        self.journal = Journal(file, node="a", limits=limits, low=lambda: self.low)
        self.reach = Reach(switch, news=self.journal.news)
        self.fellows = Fellows()
        self.accepting = JournalledAccepting(
            store=switch,
            journal=self.journal,
            reach=self.reach,
            peers=self.fellows,
            clock=clock,
            patience_s=PATIENCE_S,
        )
        self.drain = Drain(
            journal=self.journal,
            store=switch,
            reach=self.reach,
            clock=clock,
            chance=lambda: 0.5,
            grace_s=0.0,
        )

    async def shown(self, id_: Id) -> str:
        """The durability of a message in the store."""
        row = await self.store.message(1, id_)
        assert row is not None
        return row.durability

    async def in_store(self) -> list[Id]:
        rows, more = await self.store.messages(1, limit=100)
        assert not more
        return [row.id for row in rows]


@asynccontextmanager
async def desk(
    database: Path, *, journal: Path | None = None, limits: JournalLimits | None = None
) -> AsyncIterator[Desk]:
    """Open what a node has, and close it; the journal's file stays."""
    clock = HandClock()
    store = SqliteStore(database, clock=clock)
    await store.open()
    file = JournalFile(journal or database.with_name("journal.db"), clock=clock)
    await file.open()
    node = Desk(Switch(store), file, clock, limits or JournalLimits())
    await node.journal.load()
    try:
        yield node
    finally:
        node.switch.answer.set()
        await file.close()
        await store.close()


def key(
    name: str = "k", *, payload: bytes = b"1", answer: bytes = b'{"id":"first"}'
) -> IdempotencyKey:
    return IdempotencyKey(name, payload.ljust(32, b"."), answer, START + 3_600_000)


def entry(*, origin: str = "b", at: int = START, named: IdempotencyKey | None = None) -> Entry:
    """What another node accepted."""
    return Entry(origin, at, 1, 1, (message(),), named)


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def _post(node: Desk) -> None:
    while True:
        sent = message("a@one.test", "b@two.test")
        await node.accepting.accept(1, [sent])
        _say(sent.id.hex())


async def _serve(database: Path, journal: Path) -> None:
    async with desk(database, journal=journal) as node:
        node.switch.mode = "down"
        _say("ready")
        sys.stdin.readline()
        await asyncio.gather(*(_post(node) for _ in range(_CLIENTS)))


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), Path(sys.argv[2])))
