"""Who the peers are, while a database answers and while none does."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from everpost.journal import Roster
from everpost.store.cluster import NodeRow
from everpost.store.interface import StoreUnavailable
from tests.conformance.making import START
from tests.support.journalling import desk


class Rows:
    """The store's slice of nodes."""

    def __init__(self, *rows: NodeRow) -> None:
        self.rows = list(rows)
        self.away = False

    async def nodes(self) -> Sequence[NodeRow]:
        if self.away:
            raise StoreUnavailable("no primary")
        return self.rows

    async def appear(self, node: NodeRow) -> None:
        self.rows.append(node)

    async def disappear(self, name: str) -> None:
        self.rows = [row for row in self.rows if row.name != name]


def _node(name: str, address: str = "http://peer:1") -> NodeRow:
    return NodeRow(name, "here", "1", address, ("api",), START)


def test_neither_oneself_nor_who_cannot_be_reached(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            roster = Roster(Rows(_node("a"), _node("b"), _node("c", "")), node.file, name="a")
            await roster.look()
            assert list(roster.peers) == ["b"]

    asyncio.run(scene())


def test_a_start_while_no_database_answers(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            rows = Rows(_node("b"), _node("c"))
            await Roster(rows, node.file, name="a").look()
            rows.away = True
            roster = Roster(rows, node.file, name="a")
            await roster.load()
            with pytest.raises(StoreUnavailable):
                await roster.look()
            assert sorted(roster.peers) == ["b", "c"]

    asyncio.run(scene())


def test_a_node_that_moves_and_one_that_leaves(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            rows = Rows(_node("b"), _node("c"))
            roster = Roster(rows, node.file, name="a")
            await roster.look()
            rows.rows = [_node("b", "http://elsewhere:1")]
            await roster.look()
            again = Roster(rows, node.file, name="a")
            await again.load()
            assert {name: row.address for name, row in again.peers.items()} == {
                "b": "http://elsewhere:1"
            }

    asyncio.run(scene())


def test_what_the_file_remembers_is_of_another_release(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            later = msgspec.msgpack.encode({**msgspec.to_builtins(_node("b")), "colour": "red"})
            await node.file.remember({"b": later, "c": b"\xc1"})
            roster = Roster(Rows(), node.file, name="a")
            await roster.load()
            assert list(roster.peers) == ["b"]

    asyncio.run(scene())


def test_it_looks_again_after_a_failure(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everpost.journal.roster._LOOK_S", 0.001)

    async def scene() -> None:
        async with desk(database) as node:
            rows = Rows(_node("b"))
            rows.away = True
            roster = Roster(rows, node.file, name="a")
            running = asyncio.ensure_future(roster.run())
            for _ in range(20):
                await asyncio.sleep(0)
            assert not roster.peers
            rows.away = False
            async with asyncio.timeout(10):
                while not roster.peers:
                    await asyncio.sleep(0)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scene())
