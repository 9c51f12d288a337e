"""Reading lanes: threads with a connection each, which take reads in the order they come."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from psycopg import pq

from everpost.store.interface import StoreUnavailable
from everpost.store.postgres.connection import Db, as_store_error, is_gone

__all__ = ["Reader"]

T = TypeVar("T")
_Read = tuple[Callable[[Db], Any], bool, asyncio.Future[Any]]

_JOIN_S = 10.0
_REST_S = 1.0
"""After a connection that could not be had, the next ones are not tried for as long as that took,
but no longer than this: all that waits is refused meanwhile, and does not add up (as in a Lane)."""
_MOST_WAITING = 16_384

_BEGIN = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


class Reader:
    """`lanes` threads. `silent` is called in one of them when no server answered."""

    def __init__(
        self,
        connect: Callable[[], Db],
        *,
        lanes: int = 1,
        silent: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._connect = connect
        self._silent = silent
        self._reads: queue.SimpleQueue[_Read | None] = queue.SimpleQueue()
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads = [
            threading.Thread(target=self._run, name=f"store-reading-{n}", daemon=True)
            for n in range(lanes)
        ]

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        for thread in self._threads:
            thread.start()

    def do(self, read: Callable[[Db], T], *, snapshot: bool = True) -> "asyncio.Future[T]":
        """The future raises what `read` raised; PostgreSQL's errors as the store's. `snapshot`:
        all its statements see one state; without, it is a single statement, and saves two."""
        if self._loop is None or self._closing:
            raise StoreUnavailable("the store is closed")
        if self._reads.qsize() >= _MOST_WAITING:
            raise StoreUnavailable("too many reads are waiting")
        future: asyncio.Future[T] = self._loop.create_future()
        self._reads.put((read, snapshot, future))
        return future

    async def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if self._loop is not None:
            for _ in self._threads:
                self._reads.put(None)
            joins = (asyncio.to_thread(thread.join, _JOIN_S) for thread in self._threads)
            await asyncio.gather(*joins)

    def _run(self) -> None:
        assert self._loop is not None
        held = _Connection(self._connect, self._silent)
        while (item := self._reads.get()) is not None:
            read, snapshot, future = item
            answer, error = None, None
            if not future.cancelled():
                answer, error = held.read(read, snapshot=snapshot)
            try:
                self._loop.call_soon_threadsafe(_tell, future, answer, error)
            except RuntimeError:  # the loop has ended: nobody waits any more
                break
            del item, read, future, answer, error  # it may be a large message's content
        held.drop()


class _Connection:
    """One thread's, opened when it is needed."""

    def __init__(
        self, connect: Callable[[], Db], silent: Callable[[BaseException], None] | None
    ) -> None:
        self._connect = connect
        self._silent = silent
        self._db: Db | None = None
        self._resting_until = 0.0

    def read(
        self, read: Callable[[Db], Any], *, snapshot: bool
    ) -> tuple[Any, BaseException | None]:
        """A connection that had been lost meanwhile is replaced, once."""
        fresh = self._db is None
        while True:
            try:
                return self._once(read, snapshot), None
            except Exception as error:
                if self._db is not None and is_gone(error, self._db):
                    self.drop()
                    if not fresh:
                        fresh = True
                        continue
                if self._db is None and self._silent is not None:
                    self._silent(error)
                return None, as_store_error(error)

    def _once(self, read: Callable[[Db], Any], snapshot: bool) -> Any:
        if self._db is not None and self._db.old:
            self.drop()
        db = self._db or self._opened()
        if not snapshot:
            return read(db)
        db.execute(_BEGIN)
        try:
            return read(db)
        finally:
            if not db.lost and db.pgconn.transaction_status != pq.TransactionStatus.IDLE:
                db.execute(b"ROLLBACK")

    def _opened(self) -> Db:
        began = time.monotonic()
        if began < self._resting_until:
            raise StoreUnavailable("no connection to the database")
        try:
            self._db = self._connect()
        except Exception:
            now = time.monotonic()
            self._resting_until = now + min(now - began, _REST_S)
            raise
        return self._db

    def drop(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            try:
                db.close()
            except psycopg.Error:
                pass


def _tell(future: "asyncio.Future[Any]", answer: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(answer)
    else:
        future.set_exception(error)
