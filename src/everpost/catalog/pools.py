"""Pools: relays in tiers that carry the same mail. They belong to the server."""

from collections.abc import Sequence

import msgspec

from everpost.catalog.checks import must_operate
from everpost.catalog.fields import NewPool, PoolFields
from everpost.catalog.membership import tiers_of, used_by
from everpost.catalog.pool_form import MOST_POOLS, by_word, change_pool, read_pool
from everpost.catalog.unusable import Unusable
from everpost.clock import Clock
from everpost.ids import Id, IdMaker
from everpost.model.credential import Credential
from everpost.model.errors import Conflict, NotFound
from everpost.model.pool import Pool
from everpost.store.directory import Directory
from everpost.store.interface import Catalog, Change, PoolRow, StreamRow

__all__ = ["Pools", "renamed_streams"]


class Pools:
    """All pools of this server."""

    def __init__(self, store: Catalog, directory: Directory, *, clock: Clock, ids: IdMaker) -> None:
        self._store = store
        self._directory = directory
        self._clock = clock
        self._ids = ids
        self._unusable = Unusable("pool")

    async def add(self, credential: Credential, given: NewPool) -> PoolRow:
        """A new pool. One named `default` takes the place of the one that holds every relay. Raises
        Invalid, Forbidden; Conflict when the name is taken."""
        must_operate(credential)
        form = read_pool(given, by_word(await self._store.relays()))
        rows = await self._store.pools()
        _refuse_taken(form.name, rows)
        if len(rows) >= MOST_POOLS:
            raise Conflict(f"There may be at most {MOST_POOLS} pools.")
        row = PoolRow(
            id=self._ids(), name=form.name, settings=form.settings, created_at=self._clock.now()
        )
        await self._store.put(row, actor=credential.actor, action="pool.add")
        await self._directory.refresh()
        return row

    def list(self, credential: Credential) -> Sequence[PoolRow]:
        """All pools, oldest first."""
        must_operate(credential)
        return sorted(self._directory.now.pools, key=lambda row: row.id)

    def get(self, credential: Credential, id_: Id) -> PoolRow:
        """Raises NotFound."""
        must_operate(credential)
        return _of(self._directory.now.pools, id_)

    async def change(self, credential: Credential, id_: Id, given: PoolFields) -> PoolRow:
        """Change what is given; streams follow a new name. What changes nothing is not written.
        Raises Invalid, NotFound; Conflict when the name is taken."""
        must_operate(credential)
        rows = await self._store.pools()
        row = _of(rows, id_)
        form = change_pool(row, given, await self._store.relays())
        changed = msgspec.structs.replace(row, name=form.name, settings=form.settings)
        if changed != row:
            _refuse_taken(changed.name, rows, known=id_)
            streams = await self._store.streams()
            changes = [Change("pool.change", changed)]
            changes += [
                Change("stream.change", each) for each in renamed_streams(streams, row, changed)
            ]
            await self._store.change(changes, actor=credential.actor)
            await self._directory.refresh()
        return changed

    async def remove(self, credential: Credential, id_: Id) -> bool:
        """Forget a pool; its relays stay. False when there is none. Raises Conflict while a route
        or a stream sends mail to it."""
        must_operate(credential)
        for row in await self._store.pools():
            if row.id == id_:
                user = used_by(
                    row,
                    routes=await self._store.routes(),
                    streams=await self._store.streams(),
                    implied=False,
                )
                if user is not None:
                    raise Conflict(f"The pool {row.name} is used by {user}; change that first.")
                gone = await self._store.drop(
                    "pool", id_, actor=credential.actor, action="pool.remove"
                )
                await self._directory.refresh()
                return gone
        return False

    def load_all(self) -> Sequence[Pool]:
        """Every pool of the directory as delivery and dispatch need it; relays that are gone are
        left out. A row that cannot be read raises the alarm `pool_unusable:<name>` and comes out
        without relays: its mail waits."""
        now = self._directory.now
        self._unusable.only(row.name for row in now.pools)
        relays = {relay.id for relay in now.relays}
        return [self._load(row, relays) for row in now.pools]

    def _load(self, row: PoolRow, relays: set[Id]) -> Pool:
        tiers = (tuple(id_ for id_ in tier if id_ in relays) for tier in tiers_of(row))
        known = {key: row.settings[key] for key in ("spill_below", "floor") if key in row.settings}
        try:
            msgspec.convert(row.settings.get("tiers"), list[list[str]])
            pool = msgspec.convert(
                {"name": row.name, "tiers": tuple(tier for tier in tiers if tier), **known}, Pool
            )
        except msgspec.ValidationError as error:
            self._unusable.found(row.name, reason="its row", error=error)
            return Pool(name=row.name, tiers=())
        self._unusable.fine(row.name)
        return pool


def renamed_streams(
    streams: Sequence[StreamRow], was: PoolRow, now: PoolRow
) -> Sequence[StreamRow]:
    """The streams that name the pool, with its new name."""
    if was.name == now.name:
        return []
    return [
        msgspec.structs.replace(stream, pool=now.name)
        for stream in streams
        if stream.pool == was.name
    ]


def _of(rows: Sequence[PoolRow], id_: Id) -> PoolRow:
    for row in rows:
        if row.id == id_:
            return row
    raise NotFound("Pool not found")


def _refuse_taken(name: str, rows: Sequence[PoolRow], *, known: Id | None = None) -> None:
    if any(row.name == name and row.id != known for row in rows):
        raise Conflict(f"A pool named {name} exists already; give another `name`", field="name")
