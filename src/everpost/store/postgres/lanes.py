"""The lanes of one process: two that write, some that read, and what they know of the server."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import psycopg

from everpost.clock import Clock
from everpost.model.message import Assurance, Durability
from everpost.store.cluster import StoreState
from everpost.store.interface import StoreError, StoreUnavailable
from everpost.store.postgres.connection import SQL, Address, Db, as_store_error
from everpost.store.postgres.lane import Lane
from everpost.store.postgres.reader import Reader
from everpost.store.postgres.schema import prepare
from everpost.store.postgres.standing import Standing
from everpost.store.postgres.work import Single, Transaction, Work, fetch_all

__all__ = ["Lanes"]

T = TypeVar("T")

_STANDING = SQL["standing"]
_LOOK_S: Final = 1.0
_SHARDS: Final = 64
"""Rows of each tally; lanes of a cluster that draw the same one wait for each other at times."""


class Lanes:
    """`accept` takes what comes in and what people change, `move` what deliveries bring, so that
    neither waits for the other. For the arguments see `PostgresStore`."""

    def __init__(
        self,
        url: str,
        *,
        clock: Clock | None,
        durability: Durability,
        standbys: int,
        accepted: Callable[[int], None] | None,
        readers: int,
        deadline_s: float,
        patience_s: float,
        password_file: Path | None,
        lifetime_s: float,
    ) -> None:
        self.address = Address(
            url, password_file=password_file, deadline_s=deadline_s, lifetime_s=lifetime_s
        )
        relaxed = durability is Durability.RELAXED
        self._standing = Standing(clock=clock, standbys=standbys, relaxed=relaxed)
        self.clock: Clock = self._standing.clock
        self.expected = Assurance.REPLICATED if standbys else Assurance.COMMITTED
        if relaxed:
            self.expected = Assurance.RELAXED
        self._open = False
        self._looking: asyncio.TimerHandle | None = None
        self._accepting, self._moving = (
            Lane(
                name,
                self.address.connect,
                standing=self._standing,
                shard=shard,
                queued=accepted,
                patience_s=patience_s,
            )
            for name, shard in zip(
                ("accepting", "moving"), random.sample(range(_SHARDS), 2), strict=True
            )
        )
        self._reader = Reader(self.address.connect, lanes=readers, silent=self._standing.silent)

    async def open(self) -> None:
        """Raises StoreError when the server's settings are too weak, StoreUnavailable when none is
        reached that takes writes: then it may be opened later."""
        await asyncio.to_thread(self._prepare)
        for each in (self._accepting, self._moving, self._reader):
            each.start()
        self._open = True
        self._looking = asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    def _prepare(self) -> None:
        try:
            with self.address.connect() as db:
                since = self._standing.asking()
                judged = self._standing.looked(fetch_all(db, _STANDING)[0], since=since).judged
                if not judged.writable:
                    raise StoreUnavailable("; ".join(judged.problems))
                if judged.weak:
                    raise StoreError("; ".join(judged.weak))
                prepare(db)
        except psycopg.Error as error:
            self._standing.silent(error)
            told = as_store_error(error)
            raise told from error

    async def close(self) -> None:
        """Write what is pending, then close. What comes later is refused."""
        self._open = False
        if self._looking is not None:
            self._looking.cancel()
        lanes = (self._accepting, self._moving, self._reader)
        await asyncio.gather(*(each.close() for each in lanes))

    def state(self) -> StoreState:
        return self._standing.state()

    # -- handing in --------------------------------------------------------------------------------

    def accept(self, work: Work[T]) -> "asyncio.Future[T]":
        self._refuse_when_closed()
        return self._accepting.do(work)

    def move(self, work: Work[T]) -> "asyncio.Future[T]":
        self._refuse_when_closed()
        return self._moving.do(work)

    def change(self, do: Callable[[Transaction], T]) -> "asyncio.Future[T]":
        """A rare verb of people's."""
        return self.accept(Single(do))

    def tend(self, do: Callable[[Transaction], T]) -> "asyncio.Future[T]":
        """A rare verb of processes'."""
        return self.move(Single(do))

    def read(self, read: Callable[[Db], T], *, snapshot: bool = False) -> "asyncio.Future[T]":
        """`snapshot`: several statements that must see one state."""
        self._refuse_when_closed()
        return self._reader.do(read, snapshot=snapshot)

    def _refuse_when_closed(self) -> None:
        if not self._open:
            raise StoreUnavailable("the store is not open")

    # -- how the server stands ---------------------------------------------------------------------

    def _look(self) -> None:
        """Every second."""
        if not self._open:
            return
        try:
            self._reader.do(self._heard, snapshot=False).add_done_callback(self._looked)
        except StoreUnavailable:  # too many wait; the next look may find a place
            self._looking = asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    def _heard(self, db: Db) -> None:
        since = self._standing.asking()
        heard = self._standing.looked(fetch_all(db, _STANDING)[0], since=since)
        if not heard.judged.writable:  # another connection may lead to another server
            db.close()

    def _looked(self, looked: "asyncio.Future[None]") -> None:
        if not looked.cancelled():
            looked.exception()  # what it means, `state` tells
        if self._open:
            self._looking = asyncio.get_running_loop().call_later(_LOOK_S, self._look)
