"""Who the other nodes are: from the store, in memory, and in the journal's file for a start while
no database answers."""

import asyncio

import msgspec

from everpost import telemetry
from everpost.journal.book import Book
from everpost.store.cluster import NodeRow, Nodes
from everpost.store.interface import StoreError

__all__ = ["Roster"]

_LOOK_S = 2.0
_PATIENCE_S = 30.0

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(NodeRow).decode


class Roster:
    """`peers`: the other nodes that say where they can be reached, by name."""

    def __init__(self, store: Nodes, book: Book, *, name: str) -> None:
        self._store = store
        self._book = book
        self._name = name
        self._written: dict[str, tuple[str, str]] = {}
        self.peers: dict[str, NodeRow] = {}

    async def load(self) -> None:
        """What the file remembers. Raises StoreError."""
        rows = []
        for seen in await self._book.remembered():
            try:
                rows.append(_decode(seen))
            except msgspec.DecodeError as error:
                telemetry.event("journal.node_unreadable", error=str(error))
        self._know(rows)

    async def run(self) -> None:
        """Look now and then; what cannot be seen stays as it is."""
        while True:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await self.look()
            except (StoreError, TimeoutError) as error:
                telemetry.event("journal.nodes_unknown", error=str(error))
            await asyncio.sleep(_LOOK_S)

    async def look(self) -> None:
        """Once. Raises StoreError."""
        rows = list(await self._store.nodes())
        self._know(rows)
        now = {name: (row.site, row.address) for name, row in self.peers.items()}
        if now != self._written:
            await self._book.remember({name: _encode(row) for name, row in self.peers.items()})
            self._written = now

    def _know(self, rows: list[NodeRow]) -> None:
        self.peers = {row.name: row for row in rows if row.name != self._name and row.address}
