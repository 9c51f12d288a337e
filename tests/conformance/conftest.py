import asyncio
import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.engines import (
    TEMPLATE,
    Engine,
    MakeEngine,
    PostgresEngine,
    SqliteEngine,
    database_of,
    open_at,
)
from tests.conformance.making import HandClock, make_id
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import Postgres, serving_postgres

ENGINES = ["sqlite", "postgres", pytest.param("pgbouncer", marks=pytest.mark.long)]


def make_schema(engine: str, place: str) -> None:
    """In an empty database."""

    async def make() -> None:
        store = open_at(engine, place, clock=HandClock())
        await store.open()
        await store.close()

    asyncio.run(make())


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder in memory where there is one: a real file system, without the disk's flushes."""
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    with tempfile.TemporaryDirectory(prefix="everpost-", dir=memory if usable else None) as name:
        yield Path(name)


@pytest.fixture(scope="session")
def sqlite_template() -> Iterator[Path]:
    """An empty database of the current schema, to copy."""
    with _folder() as folder:
        make_schema("sqlite", str(folder / "store.db"))
        yield folder / "store.db"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """One for the session, with an empty database of the current schema to copy."""
    with serving_postgres() as server:
        server.create(TEMPLATE)
        make_schema("postgres", server.url(TEMPLATE))
        yield server


@pytest.fixture(scope="session")
def pool(postgres_server: Postgres) -> Iterator[PgBouncer]:
    with PgBouncer(postgres_server) as pool:
        yield pool


@pytest.fixture(autouse=True)
def _ids_begin_anew() -> None:
    """No test makes so many that they run into the next millisecond."""
    make_id.begin_anew()


@pytest.fixture(params=ENGINES)
def make_engine(request: pytest.FixtureRequest) -> MakeEngine:
    """For tests that need many databases, one after the other."""
    name: str = request.param
    if name == "sqlite":
        template: Path = request.getfixturevalue("sqlite_template")
        return MakeEngine(name, lambda: _sqlite_engine(template))
    server: Postgres = request.getfixturevalue("postgres_server")
    pool: PgBouncer | None = request.getfixturevalue("pool") if name == "pgbouncer" else None
    return MakeEngine(name, lambda: _postgres_engine(name, server, pool))


@contextlib.contextmanager
def _sqlite_engine(template: Path) -> Iterator[SqliteEngine]:
    with _folder() as folder:
        yield SqliteEngine(folder, template)


@contextlib.contextmanager
def _postgres_engine(
    name: str, server: Postgres, pool: PgBouncer | None
) -> Iterator[PostgresEngine]:
    with database_of(server) as database:
        url = server.url(database) if pool is None else pool.url(database)
        yield PostgresEngine(name, server, database, url)


@pytest.fixture
def engine(make_engine: MakeEngine) -> Iterator[Engine]:
    with make_engine() as engine:
        yield engine


@pytest.fixture
def sqlite_engine(sqlite_template: Path) -> Iterator[SqliteEngine]:
    """For what only a file of SQLite's can suffer."""
    with _sqlite_engine(sqlite_template) as engine:
        yield engine


@pytest.fixture
def postgres_engine(postgres_server: Postgres) -> Iterator[PostgresEngine]:
    """For what only PostgreSQL does."""
    with _postgres_engine("postgres", postgres_server, None) as engine:
        yield engine
