"""What every role of a process stands on: store, keys, directory, clock, ids."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from everpost.assembly.dns import resolver_for
from everpost.assembly.engine import open_engine, patiently
from everpost.assembly.keys import open_sealer
from everpost.assembly.naming import many_nodes, node_name
from everpost.assembly.places import Places
from everpost.assembly.wall import boot_id
from everpost.clock import Clock
from everpost.config import Settings
from everpost.ids import IdMaker
from everpost.net.resolver import Resolver
from everpost.security import Sealer
from everpost.store.directory import Directory
from everpost.store.interface import Store
from everpost.store.sqlite.torn import Torn

__all__ = ["Node", "open_node"]


@dataclass(frozen=True, slots=True)
class Node:
    """The ground of one process; `close` the store when done. `shared`: other nodes use the
    same store; `name` is this one's among them, or empty. `off_ms`, `watch_clock`: see
    `engine`."""

    settings: Settings
    places: Places
    clock: Clock
    off_ms: Callable[[], int]
    watch_clock: Callable[[], None]
    ids: IdMaker
    rng: random.Random
    store: Store
    sealer: Sealer
    directory: Directory
    resolver: Resolver
    boot: str
    name: str = ""
    shared: bool = False
    torn: Torn | None = None


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
    engine = await open_engine(settings, places, boot=boot, accepted=accepted, alone=alone)
    store, clock = engine.store, engine.clock
    ids = IdMaker(clock.now)
    try:
        sealer = await patiently(
            settings,
            lambda: open_sealer(
                store, places, environment, owner=ids(), shared=many_nodes(settings)
            ),
        )
        directory = Directory(store)
        await patiently(settings, directory.refresh)
    except BaseException:
        await store.close()
        raise
    return Node(
        settings=settings,
        places=places,
        clock=clock,
        off_ms=engine.off_ms,
        watch_clock=engine.watch,
        ids=ids,
        rng=random.Random(),  # noqa: S311  jitter, no secret
        store=store,
        sealer=sealer,
        directory=directory,
        resolver=resolver_for(settings, clock),
        boot=boot,
        name=node_name(settings),
        shared=engine.shared,
        torn=engine.torn,
    )
