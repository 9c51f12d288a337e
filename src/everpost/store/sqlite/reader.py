"""The one reader of a process: a thread with a read-only connection."""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import apsw

from everpost.store.interface import StoreUnavailable
from everpost.store.sqlite.connection import as_store_error

__all__ = ["Reader"]

T = TypeVar("T")
_Read = tuple[Callable[[apsw.Connection], Any], asyncio.Future[Any]]

_JOIN_S = 10.0


class Reader:
    """Runs functions of a connection, each in one read transaction, in the order they came. `told`
    is what callers are told of an error."""

    def __init__(
        self,
        connect: Callable[[], apsw.Connection],
        *,
        told: Callable[[BaseException], BaseException] = as_store_error,
    ) -> None:
        self._connect = connect
        self._told = told
        self._reads: queue.SimpleQueue[_Read | None] = queue.SimpleQueue()
        self._db: apsw.Connection | None = None
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="store-reader", daemon=True)
        self._thread.start()

    def do(self, read: Callable[[apsw.Connection], T]) -> "asyncio.Future[T]":
        """The future raises what `read` raised; SQLite's errors as the store's."""
        if self._loop is None or self._closing:
            raise StoreUnavailable("the store is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._reads.put((read, future))
        return future

    async def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if self._thread is not None:
            self._reads.put(None)
            await asyncio.to_thread(self._thread.join, _JOIN_S)

    def _run(self) -> None:
        assert self._loop is not None
        while (item := self._reads.get()) is not None:
            read, future = item
            answer, error = None, None
            if not future.cancelled():
                answer, error = self._read(read)
            try:
                self._loop.call_soon_threadsafe(_tell, future, answer, error)
            except RuntimeError:  # the loop has ended: nobody waits any more
                break
            del item, read, future, answer, error  # it may be a large message's content
        if self._db is not None:
            self._db.close()

    def _read(self, read: Callable[[apsw.Connection], Any]) -> tuple[Any, BaseException | None]:
        try:
            if self._db is None:
                self._db = self._connect()
            self._db.execute("BEGIN")
            try:
                return read(self._db), None
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
        except Exception as error:
            if isinstance(error, apsw.IOError | apsw.CantOpenError):
                self._reopen()
            return None, self._told(error)

    def _reopen(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            try:
                db.close(force=True)
            except apsw.Error:
                pass


def _tell(future: "asyncio.Future[Any]", answer: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(answer)
    else:
        future.set_exception(error)
