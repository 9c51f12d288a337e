"""Pools and routes as their operator describes them, judged before anything is kept. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from everpost.catalog.checks import count, title
from everpost.catalog.fields import NewPool, NewRoute, PoolFields, RouteFields, said
from everpost.catalog.membership import tiers_of
from everpost.ids import Id, parse, text
from everpost.model.address import parse_domain
from everpost.model.errors import Conflict, Invalid
from everpost.store.interface import PoolRow, ProjectRow, RelayRow, RouteRow

__all__ = [
    "MOST_POOLS", "MOST_ROUTES", "PoolForm", "RouteForm", "by_word", "change_pool", "change_route",
    "check_tags", "find_pool", "find_project", "read_pool", "read_route",
]  # fmt: skip

_MOST_TIERS = 16
_MOST_RELAYS = 1_000
"""In one pool."""
MOST_POOLS = 1_000
MOST_ROUTES = 10_000
_TAG = re.compile(r"([A-Za-z0-9_-]{1,256})(?:=([A-Za-z0-9_-]{1,256}))?")
_MOST_TAGS = 50
_TAG_WORD = re.compile(r"[A-Za-z0-9_-]{1,256}")


class PoolForm(NamedTuple):
    name: str
    settings: dict[str, Any]


class RouteForm(NamedTuple):
    name: str
    pool: Id
    settings: dict[str, Any]
    position: int | None


# --- pools ----------------------------------------------------------------------------------------


def by_word(relays: Sequence[RelayRow]) -> Mapping[str, Id]:
    """Relays by what one may call them: an id before a name."""
    named = {relay.name: relay.id for relay in relays}
    return {**named, **{text(relay.id): relay.id for relay in relays}}


def read_pool(given: NewPool, relays: Mapping[str, Id]) -> PoolForm:
    """Judge all of it; `relays` as `by_word` has them. Raises Invalid or Missing naming the
    field."""
    settings: dict[str, Any] = {"tiers": _tiers(given.tiers, relays)}
    values = {name: value for name, value in said(given).items() if value is not None}
    if "spill_below" in values:
        share = float(values["spill_below"])
        if not 0.0 <= share <= 1.0:
            raise Invalid("Invalid `spill_below` field. A share from 0 to 1.", field="spill_below")
        settings["spill_below"] = share
    if "floor" in values:
        settings["floor"] = count(values["floor"], "floor", low=0, high=_MOST_RELAYS)
    return PoolForm(title(given.name, "name"), settings)


def change_pool(row: PoolRow, given: PoolFields, relays: Sequence[RelayRow]) -> PoolForm:
    """The row with what is given changed, judged as a whole. Relays that are gone (removed while
    the pool was made) are no reason to refuse: they are left out."""
    there = {relay.id for relay in relays}
    was = {**row.settings, "name": row.name}
    tiers = ([text(id_) for id_ in tier if id_ in there] for tier in tiers_of(row))
    was["tiers"] = [tier for tier in tiers if tier]
    known = {name: value for name, value in was.items() if name in NewPool.__struct_fields__}
    return read_pool(NewPool(**(known | said(given))), by_word(relays))


def _tiers(given: Sequence[Sequence[str]], relays: Mapping[str, Id]) -> list[list[str]]:
    """Ids as text."""
    if not 1 <= len(given) <= _MOST_TIERS or not all(given):
        raise Invalid(
            f"Invalid `tiers` field. From 1 to {_MOST_TIERS} lists of relays, none of them empty.",
            field="tiers",
        )
    seen: set[Id] = set()
    tiers = []
    for tier in given:
        found = []
        for wanted in tier:
            id_ = relays.get(wanted)
            if id_ is None:
                raise Invalid(
                    f"Invalid `tiers` field. There is no relay {wanted[:100]!a}.", field="tiers"
                )
            if id_ in seen:
                raise Invalid(
                    f"Invalid `tiers` field. The relay {wanted[:100]!a} is there twice.",
                    field="tiers",
                )
            seen.add(id_)
            found.append(text(id_))
        tiers.append(found)
    if len(seen) > _MOST_RELAYS:
        raise Invalid(f"Invalid `tiers` field. At most {_MOST_RELAYS} relays.", field="tiers")
    return tiers


def find_pool(pools: Sequence[PoolRow], wanted: str) -> PoolRow:
    """By id or name, one that has relays. Raises Invalid naming `pool`; Conflict."""
    id_ = parse(wanted)
    found = [pool for pool in pools if pool.id == id_] or [p for p in pools if p.name == wanted]
    if not found:
        raise Invalid(f"Invalid `pool` field. There is no pool {wanted[:100]!a}.", field="pool")
    if not any(tiers_of(found[0])):
        raise Conflict(f"The pool {found[0].name} has no relays; give it one first.", field="pool")
    return found[0]


# --- routes ---------------------------------------------------------------------------------------


def read_route(
    given: NewRoute, pools: Sequence[PoolRow], projects: Sequence[ProjectRow]
) -> RouteForm:
    """Judge all of it. Raises Invalid or Missing naming the field."""
    values = {name: value for name, value in said(given).items() if value is not None}
    settings: dict[str, Any] = {}
    if "project" in values:
        settings["project"] = find_project(projects, values["project"]).id
    if "stream" in values:
        settings["stream"] = title(values["stream"], "stream")
    for field in ("sender_domain", "recipient_domain"):
        if field in values:
            settings[field] = _pattern(values[field], field)
    if "tag" in values:
        tag = _TAG.fullmatch(values["tag"])
        if tag is None:
            raise Invalid(
                "Invalid `tag` field. A tag's name, or name=value: 1 to 256 ASCII letters, digits, "
                "underscores or hyphens each.",
                field="tag",
            )
        settings["tag"] = [tag[1], tag[2]]
    position = values.get("position")
    if position is not None:
        count(position, "position", low=1, high=MOST_ROUTES)
    return RouteForm(title(given.name, "name"), find_pool(pools, given.pool).id, settings, position)


def change_route(
    row: RouteRow, given: RouteFields, pools: Sequence[PoolRow], projects: Sequence[ProjectRow]
) -> RouteForm:
    """The row with what is given changed, judged as a whole."""
    was: dict[str, Any] = {**row.settings, "name": row.name, "pool": text(row.pool)}
    if isinstance(was.get("tag"), list):
        was["tag"] = "=".join(part for part in was["tag"] if part is not None)
    known = {name: value for name, value in was.items() if name in NewRoute.__struct_fields__}
    return read_route(NewRoute(**(known | said(given))), pools, projects)


def _pattern(given: str, field: str) -> str:
    """A domain as A-labels in lower case, or `*.` and one."""
    star, rest = ("*.", given[2:]) if given.startswith("*.") else ("", given)
    return star + parse_domain(rest, field=field)


def check_tags(tags: Sequence[tuple[str, str]]) -> None:
    """Of a mail that might be sent: as intake takes them."""
    if len(tags) > _MOST_TAGS:
        raise Invalid(f"Invalid `tags` field. There may be at most {_MOST_TAGS}.", field="tags")
    if not all(_TAG_WORD.fullmatch(word) for tag in tags for word in tag):
        raise Invalid(
            "Invalid `tags` field. Names and values have 1 to 256 ASCII letters, digits, "
            "underscores or hyphens.",
            field="tags",
        )


def find_project(projects: Sequence[ProjectRow], wanted: int | str) -> ProjectRow:
    """By id or name. Raises Invalid naming `project`."""
    for project in projects:
        if wanted in (project.id, project.name):
            return project
    shown = wanted if isinstance(wanted, int) else f"{wanted[:100]!a}"
    raise Invalid(f"Invalid `project` field. There is no project {shown}.", field="project")
