"""What the first start makes, once, whoever comes first: the master key, the default project's data
key, and the first API key."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping

from everpost.access import OPERATOR
from everpost.assembly.places import Places
from everpost.catalog import ApiKeys
from everpost.clock import Clock
from everpost.ids import Id, IdMaker
from everpost.model.errors import Refusal
from everpost.security import MasterKey, MasterKeyError, Sealer
from everpost.store.directory import Directory
from everpost.store.interface import Store, StoreError, StoreUnavailable

__all__ = ["FIRST_KEY", "first_key", "open_sealer"]

FIRST_KEY = "EVERPOST_FIRST_API_KEY"
DEFAULT_PROJECT = 1

_LEASE = "first start"
_LEASE_MS = 10_000
_AGAIN_S = 0.05
_PATIENCE_S = 30.0


@contextlib.asynccontextmanager
async def _one_by_one(store: Store, owner: Id) -> AsyncIterator[None]:
    """Only one process of all nodes is in here. Raises StoreUnavailable."""
    tries = int(_PATIENCE_S / _AGAIN_S)
    while await store.lead(_LEASE, owner, lease_ms=_LEASE_MS) is None:
        if not tries:
            raise StoreUnavailable("another process has been making the first keys for long")
        tries -= 1
        await asyncio.sleep(_AGAIN_S)
    try:
        yield
    finally:
        with contextlib.suppress(StoreError):  # it ends by itself; what was made is made
            await store.yield_lead(_LEASE, owner)


async def open_sealer(
    store: Store,
    places: Places,
    environment: Mapping[str, str],
    *,
    owner: Id,
    shared: bool,
) -> Sealer:
    """The sealer with all data keys of the store, and one for the default project among them.

    A master key is made where nothing was sealed yet: a store with sealed content and no master key
    is not to be given a new one, since the old one may be in a backup, and only that one helps.
    `shared`: other nodes need the same one. Raises MasterKeyError.
    """
    wrapped = await store.data_keys()
    try:
        if any(project == DEFAULT_PROJECT for _, project, _ in wrapped):
            return Sealer(_master(places, environment, create=False), wrapped)
        async with _one_by_one(store, owner):
            wrapped = await store.data_keys()
            sealer = Sealer(_master(places, environment, create=not wrapped), wrapped)
            if not sealer.has(DEFAULT_PROJECT):
                key = sealer.new_data_key(DEFAULT_PROJECT)
                sealer.add(await store.add_data_key(DEFAULT_PROJECT, key), DEFAULT_PROJECT, key)
            return sealer
    except MasterKeyError as error:
        if not shared:
            raise
        raise MasterKeyError(
            f"{error}. All nodes of a cluster have the same master key: copy {places.master_key} "
            "(mode 0600) from the data directory of a node that runs"
        ) from error


def _master(places: Places, environment: Mapping[str, str], *, create: bool) -> MasterKey:
    return MasterKey.load(
        places.master_key,
        environment=environment,
        create=create,
        randomness=secrets.token_bytes,
    )


async def first_key(
    store: Store,
    directory: Directory,
    *,
    given: str | None,
    clock: Clock,
    ids: IdMaker,
) -> str | None:
    """Make the first API key, the one that the operator chose or a random one, where there is none
    yet; its token, or None. Raises Refusal."""
    if directory.now.keys:
        return None
    async with _one_by_one(store, ids()):
        await directory.refresh()
        if directory.now.keys:
            return None
        keys = ApiKeys(store, directory, clock=clock, ids=ids, randomness=secrets.token_bytes)
        try:
            _, token = await keys.create(OPERATOR, "first key", token=given)
        except Refusal as error:
            raise Refusal(f"{FIRST_KEY}: {error.message}") from error
        return token
