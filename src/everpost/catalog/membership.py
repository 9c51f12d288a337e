"""Which relays are in which pools, in the rows as they are stored. Pure."""

from collections.abc import Collection, Iterable, Sequence

import msgspec

from everpost.ids import Id, parse, text
from everpost.model.errors import Conflict
from everpost.model.pool import DEFAULT_POOL
from everpost.store.interface import PoolRow, RouteRow, StreamRow

__all__ = ["leave_pools", "tiers_of", "used_by"]


def tiers_of(row: PoolRow) -> list[list[Id]]:
    """Relay ids, tier by tier; what cannot be read is left out."""
    found = row.settings.get("tiers")
    tiers = found if isinstance(found, list) else []
    return [
        [id_ for each in tier if isinstance(each, str) and (id_ := parse(each)) is not None]
        for tier in tiers
        if isinstance(tier, list)
    ]


def used_by(
    pool: PoolRow,
    *,
    routes: Iterable[RouteRow],
    streams: Iterable[StreamRow],
    implied: bool = True,
) -> str | None:
    """What sends mail to the pool, in words; None: nothing does. `implied`: by its name alone, as
    the default pool, too."""
    for route in routes:
        if route.pool == pool.id:
            return f"route {route.name}"
    for stream in streams:
        if stream.pool == pool.name:
            return f"stream {stream.name} of project {stream.project}"
    by_name = implied and pool.name == DEFAULT_POOL
    return "all mail that no route sends elsewhere" if by_name else None


def leave_pools(
    pools: Iterable[PoolRow],
    gone: Collection[Id],
    *,
    routes: Sequence[RouteRow],
    streams: Sequence[StreamRow],
) -> list[PoolRow]:
    """The pools that had a relay of `gone`, without it; a tier that is empty then goes, too. Raises
    Conflict where a pool that is used would be left with none."""
    changed = []
    for pool in pools:
        tiers = tiers_of(pool)
        if not any(id_ in gone for tier in tiers for id_ in tier):
            continue
        kept = [[text(id_) for id_ in tier if id_ not in gone] for tier in tiers]
        left = [tier for tier in kept if tier]
        user = used_by(pool, routes=routes, streams=streams)
        if not left and user is not None:
            raise Conflict(
                f"The pool {pool.name} would be left without a relay, and is used by {user}; give"
                " it another relay first, or remove it."
            )
        settings = {**pool.settings, "tiers": left}
        changed.append(msgspec.structs.replace(pool, settings=settings))
    return changed
