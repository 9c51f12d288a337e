"""What a document of wishes comes to: the changes that make it true, and the difference for people.
Nothing is written here. The whole is judged first; a refusal names its place: `relays[2].weight`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from everpost.catalog.difference import Difference, difference
from everpost.catalog.fields import Document
from everpost.catalog.membership import leave_pools, used_by
from everpost.catalog.pool_form import (
    MOST_POOLS,
    MOST_ROUTES,
    by_word,
    find_project,
    read_pool,
    read_route,
)
from everpost.catalog.relay_form import MOST_RELAYS, read_form, refuse_other_kind
from everpost.catalog.relay_url import Login
from everpost.catalog.relays import changed_row, new_row
from everpost.catalog.routes import in_order
from everpost.catalog.streams import changed_project, changed_stream
from everpost.ids import Id
from everpost.model.errors import Conflict, Invalid, Missing, Refusal
from everpost.security import Sealer
from everpost.store.interface import (
    CatalogRow,
    Change,
    PoolRow,
    ProjectRow,
    RelayRow,
    RouteRow,
    StreamRow,
)

__all__ = ["Plan", "World", "plan"]

_Named = TypeVar("_Named", RelayRow, PoolRow, RouteRow)
_Entry = TypeVar("_Entry", bound=msgspec.Struct)


class World(msgspec.Struct, frozen=True, kw_only=True):
    """What there is."""

    relays: Sequence[RelayRow]
    pools: Sequence[PoolRow]
    routes: Sequence[RouteRow]
    streams: Sequence[StreamRow]
    projects: Sequence[ProjectRow]


class Plan(msgspec.Struct, frozen=True):
    """Changes in the order to write them; nothing, when all is as it should be."""

    changes: list[Change]
    differences: list[Difference]


def plan(
    document: Document,
    world: World,
    *,
    project: int,
    prune: bool,
    now: int,
    ids: Callable[[], Id],
    sealer: Sealer,
) -> Plan:
    """`project`: whose streams are meant where an entry names none. `prune`: relays, pools and
    routes that are not in their list go; kinds that are not mentioned stay. Raises Invalid,
    Missing, Conflict."""
    _refuse_many(document)
    relays = _relays(document, world, prune=prune, now=now, ids=ids, sealer=sealer)
    pools = _pools(document, world, relays, prune=prune, now=now, ids=ids)
    routes = _routes(document, world, pools, prune=prune, now=now, ids=ids)
    streams = _streams(document, world, pools, project)
    projects = _projects(document, world)
    for pool in _gone(world.pools, pools):
        user = used_by(pool, routes=routes, streams=streams, implied=False)
        if user is not None:
            raise Conflict(f"The pool {pool.name} is not in `pools`, but is used by {user}.")
    gone = {relay.id for relay in _gone(world.relays, relays)}
    left = {row.id: row for row in leave_pools(pools, gone, routes=routes, streams=streams)}
    then = World(
        relays=relays,
        pools=[left.get(pool.id, pool) for pool in pools],
        routes=routes,
        streams=streams,
        projects=projects,
    )
    _refuse_many(then)
    return Plan(_changes(world, then), _differences(world, then))


# --- what there will be ---------------------------------------------------------------------------


def _relays(
    document: Document,
    world: World,
    *,
    prune: bool,
    now: int,
    ids: Callable[[], Id],
    sealer: Sealer,
) -> list[RelayRow]:
    known = {row.name: row for row in world.relays}
    wanted: list[RelayRow] = []
    seen: set[object] = set()
    for n, entry in enumerate(_listed(document.relays)):
        with _at(f"relays[{n}]"):
            if not isinstance(entry.name, str):
                raise Missing("Missing `name` field.", field="name")
            row = known.get(entry.name.strip())
            kept = None
            if row is not None:
                refuse_other_kind(row, entry.url)
                if row.password is not None:
                    kept = Login(row.host, row.settings.get("username"))
            form = read_form(entry, kept=kept)
            _refuse_twin(form.name, seen)
            if row is None:
                wanted.append(new_row(form, id_=ids(), now=now, sealer=sealer))
            else:
                wanted.append(changed_row(row, form, now=now, sealer=sealer))
    return _with_others(wanted, world.relays, prune=prune and document.relays is not UNSET)


def _pools(
    document: Document,
    world: World,
    relays: Sequence[RelayRow],
    *,
    prune: bool,
    now: int,
    ids: Callable[[], Id],
) -> list[PoolRow]:
    known = {row.name: row for row in world.pools}
    there = by_word(relays)
    wanted: list[PoolRow] = []
    seen: set[object] = set()
    for n, entry in enumerate(_listed(document.pools)):
        with _at(f"pools[{n}]"):
            form = read_pool(entry, there)
            _refuse_twin(form.name, seen)
            row = known.get(form.name) or PoolRow(ids(), form.name, {}, now)
            wanted.append(msgspec.structs.replace(row, settings=form.settings))
    return _with_others(wanted, world.pools, prune=prune and document.pools is not UNSET)


def _routes(
    document: Document,
    world: World,
    pools: Sequence[PoolRow],
    *,
    prune: bool,
    now: int,
    ids: Callable[[], Id],
) -> list[RouteRow]:
    known = {row.name: row for row in world.routes}
    wanted: list[RouteRow] = []
    seen: set[object] = set()
    for n, entry in enumerate(_listed(document.routes)):
        with _at(f"routes[{n}]"):
            form = read_route(entry, pools, world.projects)
            _refuse_twin(form.name, seen)
            if form.position is not None:
                raise Invalid(
                    "Invalid `position` field. The order of the entries says it.", field="position"
                )
            row = known.get(form.name) or RouteRow(ids(), form.name, 0, form.pool, {}, now)
            wanted.append(msgspec.structs.replace(row, pool=form.pool, settings=form.settings))
    return in_order(
        _with_others(wanted, world.routes, prune=prune and document.routes is not UNSET)
    )


def _streams(
    document: Document, world: World, pools: Sequence[PoolRow], project: int
) -> list[StreamRow]:
    rows = {(row.project, row.name): row for row in world.streams}
    seen: set[object] = set()
    for n, entry in enumerate(_listed(document.streams)):
        with _at(f"streams[{n}]"):
            owner = project
            if entry.project is not UNSET and entry.project is not None:
                owner = find_project(world.projects, entry.project).id
            key = (owner, entry.name)
            _refuse_twin(key, seen)
            if key not in rows:
                raise Invalid(
                    f"Invalid `name` field. There is no stream {entry.name[:100]!a} in project "
                    f"{owner}.",
                    field="name",
                )
            rows[key] = changed_stream(rows[key], entry, pools)
    return list(rows.values())


def _projects(document: Document, world: World) -> list[ProjectRow]:
    rows = {row.name: row for row in world.projects}
    seen: set[object] = set()
    for n, entry in enumerate(_listed(document.projects)):
        with _at(f"projects[{n}]"):
            _refuse_twin(entry.name, seen)
            if entry.name not in rows:
                raise Invalid(
                    f"Invalid `name` field. There is no project {entry.name[:100]!a}.",
                    field="name",
                )
            rows[entry.name] = changed_project(rows[entry.name], entry)
    return list(rows.values())


def _refuse_many(wanted: Document | World) -> None:
    """Of what is asked for before it is judged, and of all that there would be."""
    for kind, most in (("relays", MOST_RELAYS), ("pools", MOST_POOLS), ("routes", MOST_ROUTES)):
        if len(_listed(getattr(wanted, kind))) > most:
            raise Invalid(f"Invalid `{kind}` field. There may be at most {most}.", field=kind)


def _listed(entries: list[_Entry] | UnsetType) -> list[_Entry]:
    return [] if entries is UNSET else entries


def _refuse_twin(name: object, seen: set[object]) -> None:
    if name in seen:
        raise Invalid("Invalid `name` field. It is there twice.", field="name")
    seen.add(name)


@contextmanager
def _at(place: str) -> Iterator[None]:
    """A refusal in here names its place."""
    try:
        yield
    except Refusal as refusal:
        if refusal.field is None:
            refusal.message = f"`{place}`: {refusal.message}"
        else:
            field = f"{place}.{refusal.field}"
            refusal.message = refusal.message.replace(f"`{refusal.field}`", f"`{field}`", 1)
            refusal.field = field
        raise


def _with_others(wanted: list[_Named], rows: Sequence[_Named], *, prune: bool) -> list[_Named]:
    if prune:
        return wanted
    ids = {row.id for row in wanted}
    return wanted + [row for row in rows if row.id not in ids]


def _gone(was: Sequence[_Named], then: Sequence[_Named]) -> list[_Named]:
    ids = {row.id for row in then}
    return [row for row in was if row.id not in ids]


# --- what that comes to ---------------------------------------------------------------------------


def _changes(was: World, then: World) -> list[Change]:
    """In an order in which nothing is referred to that is not there."""
    changes = _drops("route", was.routes, then.routes)
    changes += _puts("relay", was.relays, then.relays)
    changes += _puts("pool", was.pools, then.pools)
    changes += _puts("route", was.routes, then.routes)
    changes += _puts("stream", was.streams, then.streams)
    changes += _puts("project", was.projects, then.projects)
    changes += _drops("pool", was.pools, then.pools)
    return changes + _drops("relay", was.relays, then.relays)


def _key(row: Any) -> object:
    return (row.project, row.name) if isinstance(row, StreamRow) else row.id


def _puts(kind: str, was: Sequence[CatalogRow], then: Sequence[CatalogRow]) -> list[Change]:
    before: Mapping[object, CatalogRow] = {_key(row): row for row in was}
    found = []
    for row in then:
        known = before.get(_key(row))
        if known != row:
            found.append(Change(f"{kind}.{'add' if known is None else 'change'}", row))
    return found


def _drops(
    kind: Literal["relay", "pool", "route"], was: Sequence[_Named], then: Sequence[_Named]
) -> list[Change]:
    return [Change(f"{kind}.remove", drop=(kind, row.id)) for row in _gone(was, then)]


def _differences(was: World, then: World) -> list[Difference]:
    names = {relay.id: relay.name for relay in (*was.relays, *then.relays)}
    pools = {pool.id: pool.name for pool in (*was.pools, *then.pools)}
    return [
        *difference("relay", was.relays, then.relays, relays=names, pools=pools),
        *difference("pool", was.pools, then.pools, relays=names, pools=pools),
        *difference("route", was.routes, then.routes, relays=names, pools=pools),
        *difference("stream", was.streams, then.streams, relays=names, pools=pools),
        *difference("project", was.projects, then.projects, relays=names, pools=pools),
    ]
