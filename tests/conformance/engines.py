"""The engines that the suite runs on, and how a test gets a store of one."""

import contextlib
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from everpost.clock import Clock
from everpost.store.interface import Store
from everpost.store.sqlite import SqliteStore
from tests.conformance.making import HandClock

__all__ = ["ENGINES", "Engine"]


class Engine:
    """One engine with one database of the test's own. `clock` is what its stores read."""

    def __init__(self, name: str, folder: Path, template: Path) -> None:
        self.name = name
        self.path = folder / "store.db"
        self.clock = HandClock()
        shutil.copy(template, self.path)

    def store(self, *, clock: Clock | None = None, **options: Any) -> Store:
        """A store on the database, not yet open. Several on one database are several processes."""
        return ENGINES[self.name](self.path, clock=clock or self.clock, **options)

    @contextlib.asynccontextmanager
    async def opened(self, **options: Any) -> AsyncIterator[Store]:
        store = self.store(**options)
        await store.open()
        try:
            yield store
        finally:
            await store.close()


ENGINES: dict[str, Callable[..., Store]] = {"sqlite": SqliteStore}
