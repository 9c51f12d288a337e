import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from everpost.store.sqlite import SqliteStore
from tests.conformance.making import HandClock


@pytest.fixture(scope="session")
def empty_store() -> Iterator[Path]:
    """A database of the current schema, to copy."""
    with tempfile.TemporaryDirectory(prefix="everpost-") as folder:
        path = Path(folder) / "store.db"

        async def make() -> None:
            store = SqliteStore(path, clock=HandClock())
            await store.open()
            await store.close()

        asyncio.run(make())
        yield path


@pytest.fixture
def database(empty_store: Path) -> Iterator[Path]:
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    with tempfile.TemporaryDirectory(prefix="everpost-", dir=memory if usable else None) as folder:
        path = Path(folder) / "store.db"
        shutil.copy(empty_store, path)
        yield path
