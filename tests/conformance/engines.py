"""The engines that the suite runs on, and how a test gets a store of one."""

import contextlib
import itertools
import shutil
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import apsw

from everpost.clock import Clock
from everpost.model.message import NewMessage
from everpost.store.interface import Store
from everpost.store.postgres import PostgresStore
from everpost.store.sqlite import SqliteStore
from tests.conformance.making import HandClock, message
from tests.support.postgres import Postgres

__all__ = [
    "TEMPLATE",
    "Engine",
    "MakeEngine",
    "PostgresEngine",
    "SqliteEngine",
    "database_of",
    "open_at",
]

TEMPLATE = "template_everpost"
"""The database of the current schema that each test gets a copy of."""

_numbers = itertools.count()


def open_at(engine: str, place: str, *, clock: Clock, **options: Any) -> Store:
    """A store of an engine, not yet open; `place` is a file or a URL."""
    if engine == "sqlite":
        return SqliteStore(Path(place), clock=clock, **options)
    return PostgresStore(place, clock=clock, **options)


class Engine(ABC):
    """One engine with one database of the test's own, at `place`. `clock` is what its stores
    read."""

    def __init__(self, name: str, place: str) -> None:
        self.name = name
        self.place = place
        self.clock = HandClock()

    def store(self, *, clock: Clock | None = None, **options: Any) -> Store:
        """A store on the database, not yet open. Several on one database are several processes."""
        return open_at(self.name, self.place, clock=clock or self.clock, **options)

    @contextlib.asynccontextmanager
    async def opened(self, **options: Any) -> AsyncIterator[Store]:
        store = self.store(**options)
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    @abstractmethod
    def execute(self, statement: str, values: Mapping[str, Any] | None = None) -> int:
        """Change rows behind the store's back; how many. `:name` are values."""

    @abstractmethod
    def refused(self, taken: NewMessage) -> NewMessage:
        """A message that this engine cannot take, where it has `taken`."""


class SqliteEngine(Engine):
    def __init__(self, folder: Path, template: Path) -> None:
        self.path = folder / "store.db"
        super().__init__("sqlite", str(self.path))
        shutil.copy(template, self.path)

    def execute(self, statement: str, values: Mapping[str, Any] | None = None) -> int:
        db = apsw.Connection(self.place)
        try:
            db.set_busy_timeout(5_000)
            db.execute(statement, dict(values or {}))
            return db.changes()
        finally:
            db.close()

    def refused(self, taken: NewMessage) -> NewMessage:
        return message(id_=taken.id)


class PostgresEngine(Engine):
    """`url`: under which the server's stores reach the database, maybe by way of a pool."""

    def __init__(self, name: str, server: Postgres, database: str, url: str) -> None:
        super().__init__(name, url)
        self.server = server
        self.database = database

    def execute(self, statement: str, values: Mapping[str, Any] | None = None) -> int:
        return self.server.change(self.database, statement, values)

    def refused(self, taken: NewMessage) -> NewMessage:
        return message("nul\0@one.test")  # where an id comes again, it is the same message


class MakeEngine:
    """Makes engines, each with a database of its own: for tests that need many."""

    def __init__(
        self, name: str, make: Callable[[], contextlib.AbstractContextManager[Engine]]
    ) -> None:
        self.name = name
        self._make = make

    def __call__(self) -> contextlib.AbstractContextManager[Engine]:
        return self._make()

    def examples(self, n: int) -> int:
        """How many examples of a property are tried on this engine. What is decided is decided by
        the same code for all of them, and a database of PostgreSQL's is dear."""
        return n if self.name == "sqlite" else max(n // 5, 3)


@contextlib.contextmanager
def database_of(server: Postgres) -> Iterator[str]:
    """A copy of the template, for a while."""
    name = f"test_{next(_numbers)}"
    server.create(name, template=TEMPLATE)
    try:
        yield name
    finally:
        server.drop(name)
