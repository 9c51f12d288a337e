import asyncio
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance.engines import ENGINES, Engine
from tests.conformance.making import HandClock


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder in memory where there is one: a real file system, without the disk's flushes."""
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    with tempfile.TemporaryDirectory(prefix="everpost-", dir=memory if usable else None) as name:
        yield Path(name)


@pytest.fixture(scope="session", params=sorted(ENGINES))
def template(request: pytest.FixtureRequest) -> Iterator[tuple[str, Path]]:
    """An engine's name, and an empty database of the current schema to copy."""
    name: str = request.param
    with _folder() as folder:
        store = ENGINES[name](folder / "store.db", clock=HandClock())

        async def make() -> None:
            await store.open()
            await store.close()

        asyncio.run(make())
        yield name, folder / "store.db"


@pytest.fixture
def make_engine(
    template: tuple[str, Path],
) -> Callable[[], contextlib.AbstractContextManager[Engine]]:
    """For tests that need many databases, one after the other."""
    name, database = template

    @contextlib.contextmanager
    def make() -> Iterator[Engine]:
        with _folder() as folder:
            yield Engine(name, folder, database)

    return make


@pytest.fixture
def engine(template: tuple[str, Path]) -> Iterator[Engine]:
    name, database = template
    with _folder() as folder:
        yield Engine(name, folder, database)
