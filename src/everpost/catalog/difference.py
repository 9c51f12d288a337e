"""Two states of what people manage, and what is different, in people's words. No secret is in it.
Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from everpost.catalog.membership import tiers_of
from everpost.catalog.relay_form import described
from everpost.ids import Id, text
from everpost.store.interface import (
    CatalogRow,
    PoolRow,
    ProjectRow,
    RelayRow,
    RouteRow,
    StreamRow,
)

__all__ = ["Difference", "FieldDifference", "difference", "pool_words", "route_words"]


class FieldDifference(msgspec.Struct, frozen=True):
    """None: not said, so the default. Of a secret only whether it is set, and that it changes."""

    field: str
    was: Any
    now: Any


class Difference(msgspec.Struct, frozen=True):
    """One thing that is made, changed field by field, or removed."""

    kind: str
    name: str
    change: Literal["added", "changed", "removed"]
    fields: list[FieldDifference] = []


def difference(
    kind: str,
    was: Sequence[CatalogRow],
    then: Sequence[CatalogRow],
    *,
    relays: Mapping[Id, str],
    pools: Mapping[Id, str],
) -> list[Difference]:
    """`relays` and `pools`: names by id."""
    before = {_name(row): _words(row, relays, pools) for row in was}
    after = {_name(row): _words(row, relays, pools) for row in then}
    found = []
    for name, words in after.items():
        known = before.get(name)
        fields = _fields(known or {}, words)
        if known is None:
            found.append(Difference(kind, name, "added", fields))
        elif fields:
            found.append(Difference(kind, name, "changed", fields))
    found += [Difference(kind, name, "removed") for name in before if name not in after]
    return found


def _name(row: CatalogRow) -> str:
    assert isinstance(row, RelayRow | PoolRow | RouteRow | StreamRow | ProjectRow)
    return f"{row.project}/{row.name}" if isinstance(row, StreamRow) else row.name


def _words(row: CatalogRow, relays: Mapping[Id, str], pools: Mapping[Id, str]) -> Mapping[str, Any]:
    match row:
        case RelayRow():
            return described(row) | {"password": row.password}
        case PoolRow():
            return pool_words(row, relays)
        case RouteRow():
            return route_words(row, pools)
        case StreamRow():
            return {
                "weight": row.weight, "pool": row.pool, "retry_first": row.retry_first_ms // 1000,
                "retry_cap": row.retry_cap_ms // 1000, "lifetime": row.lifetime_ms // 1000,
                "in_doubt": row.in_doubt.value, "durability": row.durability,
            }  # fmt: skip
        case ProjectRow():
            return {"weight": row.weight, "durability": row.durability}
        case _:
            raise AssertionError(type(row))


def pool_words(row: PoolRow, relays: Mapping[Id, str]) -> dict[str, Any]:
    """A pool as people say it, with its relays' names; those that are gone are left out."""
    return {
        "tiers": [[relays[id_] for id_ in tier if id_ in relays] for tier in tiers_of(row)],
        "spill_below": row.settings.get("spill_below"),
        "floor": row.settings.get("floor"),
    }


def route_words(row: RouteRow, pools: Mapping[Id, str]) -> dict[str, Any]:
    """A route as people say it, with its pool's name."""
    settings = row.settings
    tag = settings.get("tag")
    return {
        "position": row.position,
        "pool": pools.get(row.pool, text(row.pool)),
        "project": settings.get("project"),
        "stream": settings.get("stream"),
        "sender_domain": settings.get("sender_domain"),
        "recipient_domain": settings.get("recipient_domain"),
        "tag": "=".join(p for p in tag if p is not None) if isinstance(tag, list) else None,
    }


def _fields(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[FieldDifference]:
    found = []
    for field in (*now, *(field for field in was if field not in now)):
        before, after = was.get(field), now.get(field)
        if before == after:
            continue
        if isinstance(before, bytes) or isinstance(after, bytes):
            secret = "set" if before is None else "changed"
            after = None if after is None else secret
            before = None if before is None else "set"
        found.append(FieldDifference(field, before, after))
    return found
