"""A link to PostgreSQL that breaks at the worst moment: when a COMMIT is on its way."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from enum import Enum, auto

from everpost.model.message import NewMessage
from everpost.store.interface import Store, StoreUnavailable

__all__ = ["Cut", "Link", "until_it_is_taken"]

_COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"
_CHUNK = 65_536


class Cut(Enum):
    """Where: the server never sees the COMMIT, or the client never sees its answer."""

    BEFORE = auto()
    AFTER = auto()


class Link:
    """Listens on `port` of 127.0.0.1 and passes on to a server at `server_port`. `cut` is armed by
    whoever sets it and is spent by the next COMMIT; `refusing`: nobody gets in any more."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.cut: Cut | None = None
        self.refusing = False
        self.refuse_after_cut = False
        self.cuts = 0

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Link"]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self._server.close()
            self.break_()
            await self._server.wait_closed()

    def break_(self) -> None:
        """End every connection at once."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _serve(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        if self.refusing:
            back.transport.abort()
            return
        far, there = await asyncio.open_connection("127.0.0.1", self._server_port)
        self._writers |= {back, there}
        silenced = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._answers(far, back, silenced))
                tasks.create_task(self._questions(near, there, silenced))
        except* OSError:
            pass
        finally:
            back.transport.abort()
            there.transport.abort()
            self._writers -= {back, there}

    async def _questions(
        self, near: asyncio.StreamReader, there: asyncio.StreamWriter, silenced: asyncio.Event
    ) -> None:
        while said := await near.read(_CHUNK):
            if self.cut is not None and said.endswith(_COMMIT):
                cut, self.cut = self.cut, None
                self.cuts += 1
                self.refusing = self.refuse_after_cut
                if cut is Cut.BEFORE:
                    raise ConnectionResetError
                silenced.set()
            there.write(said)
            await there.drain()
        raise ConnectionResetError

    async def _answers(
        self, far: asyncio.StreamReader, back: asyncio.StreamWriter, silenced: asyncio.Event
    ) -> None:
        while said := await far.read(_CHUNK):
            if silenced.is_set():  # it has been committed, and nobody hears of it
                raise ConnectionResetError
            back.write(said)
            await back.drain()
        raise ConnectionResetError


async def until_it_is_taken(store: Store, sent: NewMessage) -> object:
    """Accept it, again and again while the store is unavailable; the answer."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await store.accept(1, [sent])
            except StoreUnavailable:
                await asyncio.sleep(0)
