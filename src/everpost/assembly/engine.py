"""Which engine the settings pick, opened, and the time that goes with it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from everpost import telemetry
from everpost.assembly.naming import many_nodes
from everpost.assembly.places import Places
from everpost.assembly.wall import open_clock, watch_clock
from everpost.clock import Clock
from everpost.config import PostgresSettings, Settings
from everpost.recovery.presence import tell_skew
from everpost.store.interface import Store, StoreUnavailable
from everpost.store.sqlite.torn import Torn

if TYPE_CHECKING:
    from everpost.store.postgres.connection import Address

__all__ = ["Engine", "address_of", "open_engine", "patiently"]

T = TypeVar("T")

_AGAIN_S = 0.5
"""Between two tries to reach a database that does not answer yet."""


@dataclass(frozen=True, slots=True)
class Engine:
    """An open store and its clock. `off_ms`: how far the wall clock is from where it was, or from
    the database's; `watch` raises or clears the alarms about it. `shared`: several nodes share
    the store. `torn`: what an embedded store's log had lost."""

    store: Store
    clock: Clock
    off_ms: Callable[[], int]
    watch: Callable[[], None]
    shared: bool = False
    torn: Torn | None = None


def address_of(settings: PostgresSettings, *, direct: bool = False) -> "Address":
    """Where the database is. `direct`: without a pool of transactions between."""
    from everpost.store.postgres.connection import Address

    return Address(
        (settings.listen_url if direct else "") or settings.url,
        password_file=Path(settings.password_file) if settings.password_file else None,
        deadline_s=settings.deadline_s,
    )


async def open_engine(
    settings: Settings,
    places: Places,
    *,
    boot: str,
    accepted: Callable[[int], None] | None = None,
    alone: bool = False,
    waits: bool = True,
) -> Engine:
    """Open the store, its schema up to date. A database that is away is waited for (if it `waits`),
    for half of what a process may take to start. `alone`: no other process of the house
    runs yet. Raises StoreError."""
    if not many_nodes(settings):
        return await _open_embedded(settings, places, boot=boot, accepted=accepted, alone=alone)
    if not waits:
        return await _open_shared(settings, accepted)
    return await patiently(settings, lambda: _open_shared(settings, accepted))


async def patiently(settings: Settings, attempt: Callable[[], Awaitable[T]]) -> T:
    """What `attempt` gives. With many nodes, again and again while the database is away or between
    two primaries, for half of what a process may take to start. Raises StoreUnavailable when that
    is over, and whatever else `attempt` raises."""
    loop = asyncio.get_running_loop()
    until = loop.time() + settings.node.start_s / 2 * many_nodes(settings)
    told = False
    while True:
        try:
            return await attempt()
        except StoreUnavailable as error:
            if loop.time() >= until:
                raise
            if not told:
                telemetry.event("store.waited_for", level="warning", error=str(error))
                told = True
        await asyncio.sleep(_AGAIN_S)


async def _open_embedded(
    settings: Settings,
    places: Places,
    *,
    boot: str,
    accepted: Callable[[int], None] | None,
    alone: bool,
) -> Engine:
    from everpost.store.sqlite import SqliteStore

    clock = open_clock(places.clock, boot=boot, settle_s=settings.node.clock_settle_s)
    store = SqliteStore(
        places.store,
        clock=clock,
        durability=settings.store.durability,
        accepted=accepted,
        wal_bytes=settings.store.wal_bytes,
        alone=alone,
    )
    await store.open()
    return Engine(
        store=store,
        clock=clock,
        off_ms=lambda: clock.off_ms,
        watch=lambda: watch_clock(clock),
        torn=store.torn,
    )


async def _open_shared(settings: Settings, accepted: Callable[[int], None] | None) -> Engine:
    from everpost.store.postgres import PostgresStore

    postgres = settings.postgres
    store = PostgresStore(
        postgres.url,
        standbys=postgres.standbys,
        accepted=accepted,
        readers=postgres.readers,
        deadline_s=postgres.deadline_s,
        password_file=Path(postgres.password_file) if postgres.password_file else None,
        keep_days=postgres.keep_days,
    )
    await store.open()
    return Engine(
        store=store,
        clock=store.clock,
        off_ms=lambda: store.state().skew_ms,
        watch=lambda: tell_skew(store.state().skew_ms),
        shared=True,
    )
