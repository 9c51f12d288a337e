"""Rows of what users manage as columns, from columns, and as the audit table tells of them."""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar, cast

import msgspec

from everpost.ids import text
from everpost.model.message import Assurance
from everpost.model.states import InDoubtPolicy
from everpost.store.catalog_rows import (
    ApiKeyRow,
    CatalogRow,
    DkimKeyRow,
    DomainRow,
    PoolRow,
    ProjectRow,
    RelayRow,
    RouteRow,
    StreamRow,
)

__all__ = [
    "DROPPABLE",
    "KINDS",
    "audit_entry",
    "columns",
    "from_columns",
    "name_of",
    "object_of",
    "told",
]

R = TypeVar("R")

KINDS: Mapping[type[CatalogRow], str] = {
    ProjectRow: "project",
    StreamRow: "stream",
    ApiKeyRow: "api_key",
    DomainRow: "domain",
    DkimKeyRow: "dkim_key",
    RelayRow: "relay",
    PoolRow: "pool",
    RouteRow: "route",
}
DROPPABLE = ("api_key", "domain", "relay", "pool", "route")

_NEVER_TOLD = frozenset({"hash", "sealed", "password", "secret", "token", "key", "wrapped"})
"""Fields of rows and of settings whose values never reach the audit table."""

_AUDIT = ("position", "at", "actor", "action", "kind", "object", "detail")

_encode = msgspec.json.Encoder().encode


def columns(row: CatalogRow) -> dict[str, Any]:
    """By name; `settings` as JSON text, flags as 0 and 1, words as text."""
    values = {name: _plain(getattr(row, name)) for name in row.__struct_fields__}
    if isinstance(row, RelayRow | PoolRow | RouteRow):
        values["settings"] = _encode(row.settings).decode()
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return value.value if isinstance(value, StrEnum) else value


def from_columns(kind: Callable[..., R], names: Sequence[str], row: Sequence[Any]) -> R:
    """A row of `kind` from a table's columns: 0 and 1 of a bool field become a bool, text its
    words, `settings` its values."""
    values = dict(zip(names, row, strict=True))
    for name, function in _converters(kind).items():
        values[name] = function(values[name])
    return kind(**values)


@cache
def _converters(kind: Callable[..., Any]) -> Mapping[str, Callable[[Any], Any]]:
    fields = {field.name: field.type for field in msgspec.structs.fields(cast(Any, kind))}
    found: dict[str, Callable[[Any], Any]] = {n: bool for n, t in fields.items() if t is bool}
    if "in_doubt" in fields:
        found["in_doubt"] = InDoubtPolicy
    if "durability" in fields:
        found["durability"] = _assurance
    if "settings" in fields:
        found["settings"] = msgspec.json.decode
    return found


def _assurance(stored: str | None) -> Assurance | None:
    return None if stored is None else Assurance(stored)


def name_of(row: CatalogRow) -> str:
    if isinstance(row, StreamRow):
        return f"{row.project}/{row.name}"
    return str(row.selector if isinstance(row, DkimKeyRow) else row.name)


def object_of(row: CatalogRow) -> str:
    """What the audit table calls it."""
    return name_of(row) if isinstance(row, ProjectRow | StreamRow) else text(row.id)


def told(row: CatalogRow) -> str:
    """The row as JSON without secrets; ids as text."""
    shown = _without_secrets({n: getattr(row, n) for n in row.__struct_fields__})
    return _encode(shown).decode()


def _without_secrets(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _without_secrets(v) for k, v in value.items() if str(k) not in _NEVER_TOLD}
    if isinstance(value, list | tuple):
        return [_without_secrets(v) for v in value]
    if isinstance(value, bytes):
        return text(value) if len(value) == 16 else value.hex()
    return value


def audit_entry(row: Sequence[Any]) -> Mapping[str, Any]:
    """A row of the audit table; its detail as values."""
    entry = dict(zip(_AUDIT, row, strict=True))
    entry["detail"] = msgspec.json.decode(entry["detail"])
    return entry
