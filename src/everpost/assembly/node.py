"""What every role of a process stands on: store, keys, directory, clock, ids."""

import random
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from everpost.assembly.dns import resolver_for
from everpost.assembly.places import Places
from everpost.assembly.wall import boot_id, open_clock
from everpost.clock import SettlingClock
from everpost.config import Settings
from everpost.ids import IdMaker
from everpost.net.resolver import Resolver
from everpost.security import MasterKey, Sealer
from everpost.store.directory import Directory
from everpost.store.sqlite import SqliteStore

__all__ = ["Node", "open_node"]

DEFAULT_PROJECT = 1


@dataclass(frozen=True, slots=True)
class Node:
    """The ground of one process; `close` the store when done."""

    settings: Settings
    places: Places
    clock: SettlingClock
    ids: IdMaker
    rng: random.Random
    store: SqliteStore
    sealer: Sealer
    directory: Directory
    resolver: Resolver
    boot: str


async def open_node(
    settings: Settings,
    environment: Mapping[str, str],
    *,
    accepted: Callable[[int], None] | None = None,
    alone: bool = False,
) -> Node:
    """Open the store (bringing its schema up to date) and the keys. `alone`: before any other
    process of the house. Raises StoreError, MasterKeyError."""
    places = Places(settings.node.data)
    places.make()
    boot = boot_id()
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
    wrapped_keys = await store.data_keys()
    # A store with sealed content and no master key is not to be given a new one: the old one may
    # be in a backup, and only that one helps.
    master = MasterKey.load(
        places.master_key,
        environment=environment,
        create=not wrapped_keys,
        randomness=secrets.token_bytes,
    )
    sealer = Sealer(master, wrapped_keys)
    if not sealer.has(DEFAULT_PROJECT):
        wrapped = sealer.new_data_key(DEFAULT_PROJECT)
        sealer.add(await store.add_data_key(DEFAULT_PROJECT, wrapped), DEFAULT_PROJECT, wrapped)
    directory = Directory(store)
    await directory.refresh()
    return Node(
        settings=settings,
        places=places,
        clock=clock,
        ids=IdMaker(clock.now),
        rng=random.Random(),  # noqa: S311  jitter, no secret
        store=store,
        sealer=sealer,
        directory=directory,
        resolver=resolver_for(settings, clock),
        boot=boot,
    )
