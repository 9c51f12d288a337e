"""The store that a command checks or mends: the file of this node, or the database of many nodes.
Values that a process of its own can be given."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from everpost.clock import Clock

if TYPE_CHECKING:
    from everpost.config import Settings
    from everpost.store.interface import Store
    from everpost.store.postgres import Address
    from everpost.store.postgres import Auditor as PostgresAuditor
    from everpost.store.sqlite import Auditor as SqliteAuditor

__all__ = ["CheckedStore", "FileStore", "SharedStore", "store_of"]

T = TypeVar("T")


class FileStore(msgspec.Struct, frozen=True):
    """The embedded store of a data directory."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def missing(self) -> str:
        """Why there is nothing to check; empty when there is."""
        if self.path.is_file():
            return ""
        return f"there is no store at {self.path}; `everpost serve` makes it"

    def is_smaller_than(self, octets: int) -> bool:
        return self.path.stat().st_size < octets

    def auditor(self) -> "SqliteAuditor":
        from everpost.store.sqlite import Auditor

        return Auditor(self.path)

    async def opened(self, settings: "Settings", do: "Callable[[Store, Clock], Awaitable[T]]") -> T:
        """Do something with it, open for writing."""
        from everpost.assembly.places import Places
        from everpost.assembly.wall import boot_id, borrow_clock
        from everpost.store.sqlite import SqliteStore

        settle_s = settings.node.clock_settle_s
        places = Places(settings.node.data)
        clock = borrow_clock(places.clock, boot=boot_id(), settle_s=settle_s)
        store = SqliteStore(self.path, clock=clock, durability=settings.store.durability)
        await store.open()
        try:
            return await do(store, clock)
        finally:
            await store.close()


class SharedStore(msgspec.Struct, frozen=True):
    """The PostgreSQL database of `postgres.url`."""

    url: str
    password_file: Path | None
    deadline_s: float
    standbys: int

    def __str__(self) -> str:
        return str(self._address())

    def missing(self) -> str:
        return ""

    def is_smaller_than(self, octets: int) -> bool:
        """Other processes see to it that no piece holds up another one."""
        return False

    def auditor(self) -> "PostgresAuditor":
        from everpost.store.postgres import Auditor

        return Auditor(self._address().connect)

    async def opened(self, settings: "Settings", do: "Callable[[Store, Clock], Awaitable[T]]") -> T:
        """Do something with it, open for writing."""
        from everpost.store.postgres import PostgresStore

        store = PostgresStore(
            self.url,
            standbys=self.standbys,
            deadline_s=self.deadline_s,
            password_file=self.password_file,
        )
        await store.open()
        try:
            return await do(store, store.clock)
        finally:
            await store.close()

    def _address(self) -> "Address":
        from everpost.store.postgres import Address

        return Address(self.url, password_file=self.password_file, deadline_s=self.deadline_s)


CheckedStore = FileStore | SharedStore


def store_of(settings: "Settings") -> CheckedStore:
    """The one that a node of these settings uses."""
    from everpost.assembly.places import Places

    postgres = settings.postgres
    if not postgres.url:
        return FileStore(Places(settings.node.data).store)
    return SharedStore(
        url=postgres.url,
        password_file=Path(postgres.password_file) if postgres.password_file else None,
        deadline_s=postgres.deadline_s,
        standbys=postgres.standbys,
    )
