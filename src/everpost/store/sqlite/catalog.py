"""What users manage: whole tables out, one row in. Every change writes its audit row and raises the
settings revision in the same transaction."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import apsw
import msgspec

from everpost.ids import Id, text
from everpost.model.errors import Conflict
from everpost.model.message import Assurance
from everpost.model.states import InDoubtPolicy
from everpost.store.catalog_rows import (
    ApiKeyRow,
    CatalogRow,
    Change,
    DkimKeyRow,
    DomainRow,
    PoolRow,
    ProjectRow,
    RelayRow,
    RouteRow,
    StreamRow,
)
from everpost.store.sqlite.connection import SQL, integer
from everpost.store.sqlite.moves import json_text
from everpost.store.sqlite.work import Transaction

__all__ = [
    "add_data_key",
    "api_keys",
    "audit",
    "change",
    "data_keys",
    "dkim_keys",
    "domains",
    "drop",
    "pools",
    "projects",
    "put",
    "relays",
    "revision",
    "routes",
    "streams",
]

R = TypeVar("R")

_KINDS: Mapping[type[CatalogRow], str] = {
    ProjectRow: "project",
    StreamRow: "stream",
    ApiKeyRow: "api_key",
    DomainRow: "domain",
    DkimKeyRow: "dkim_key",
    RelayRow: "relay",
    PoolRow: "pool",
    RouteRow: "route",
}
_PUT = {kind: SQL[f"put_{kind}"] for kind in _KINDS.values()}
_DROP = {kind: SQL[f"drop_{kind}"] for kind in ("api_key", "domain", "relay", "pool", "route")}
_ADD_AUDIT = SQL["add_audit"]
_RAISE_REVISION = SQL["raise_revision"]
_REVISION = SQL["revision"]
_AUDIT_OLDER = SQL["audit_older"]
_AUDIT_NEWER = SQL["audit_newer"]
_AFTER_ALL = (1 << 63) - 1
_DATA_KEYS = SQL["data_keys"]
_ADD_DATA_KEY = SQL["add_data_key"]
_PROJECTS = SQL["projects"]
_STREAMS = SQL["streams"]
_API_KEYS = SQL["api_keys"]
_DOMAINS = SQL["domains"]
_DKIM_KEYS = SQL["dkim_keys"]
_RELAYS = SQL["relays"]
_POOLS = SQL["pools"]
_ROUTES = SQL["routes"]

_NEVER_TOLD = frozenset({"hash", "sealed", "password", "secret", "token", "key", "wrapped"})
"""Fields of rows and of settings whose values never reach the audit table."""


def revision(db: apsw.Connection) -> int:
    return integer(db, _REVISION)


def projects(db: apsw.Connection) -> Sequence[ProjectRow]:
    return _rows(db, _PROJECTS, ProjectRow, durability=_assurance)


def streams(db: apsw.Connection) -> Sequence[StreamRow]:
    return _rows(db, _STREAMS, StreamRow, in_doubt=InDoubtPolicy, durability=_assurance)


def _assurance(stored: str | None) -> Assurance | None:
    return None if stored is None else Assurance(stored)


def api_keys(db: apsw.Connection) -> Sequence[ApiKeyRow]:
    return _rows(db, _API_KEYS, ApiKeyRow)


def domains(db: apsw.Connection) -> Sequence[DomainRow]:
    return _rows(db, _DOMAINS, DomainRow)


def dkim_keys(db: apsw.Connection) -> Sequence[DkimKeyRow]:
    return _rows(db, _DKIM_KEYS, DkimKeyRow)


def relays(db: apsw.Connection) -> Sequence[RelayRow]:
    return _rows(db, _RELAYS, RelayRow, settings=msgspec.json.decode)


def pools(db: apsw.Connection) -> Sequence[PoolRow]:
    return _rows(db, _POOLS, PoolRow, settings=msgspec.json.decode)


def routes(db: apsw.Connection) -> Sequence[RouteRow]:
    return _rows(db, _ROUTES, RouteRow, settings=msgspec.json.decode)


def _rows(
    db: apsw.Connection, query: str, kind: Callable[..., R], **convert: Callable[[Any], Any]
) -> list[R]:
    """A table as rows of `kind`: columns are fields, 0 and 1 of a bool field become a bool."""
    bools = {f.name for f in msgspec.structs.fields(cast(Any, kind)) if f.type is bool}
    converters = {**dict.fromkeys(bools, bool), **convert}
    cursor = db.execute(query)
    found = []
    for row in cursor:
        names = (column[0] for column in cursor.get_description())
        values = dict(zip(names, row, strict=True))
        for name, function in converters.items():
            values[name] = function(values[name])
        found.append(kind(**values))
    return found


def put(tx: Transaction, row: CatalogRow, *, actor: str, action: str) -> None:
    """Insert, or replace the row of that id. Raises Conflict when a unique name is taken."""
    kind = _KINDS[type(row)]
    values = {name: getattr(row, name) for name in row.__struct_fields__}
    if isinstance(row, RelayRow | PoolRow | RouteRow):
        values["settings"] = json_text(row.settings)
    values = {n: int(v) if isinstance(v, bool) else v for n, v in values.items()}
    try:
        tx.db.execute(_PUT[kind], values)
    except apsw.ConstraintError as error:
        raise _conflict(kind, row, error) from error
    object_ = _name(row) if isinstance(row, ProjectRow | StreamRow) else text(row.id)
    _record(tx, actor=actor, action=action, kind=kind, object_=object_, detail=_told(row))


def _name(row: CatalogRow) -> str:
    if isinstance(row, StreamRow):
        return f"{row.project}/{row.name}"
    return str(row.selector if isinstance(row, DkimKeyRow) else row.name)


def _conflict(kind: str, row: CatalogRow, error: apsw.ConstraintError) -> Exception:
    noun = kind.replace("_", " ")
    code: int = vars(error).get("extendedresult", 0)
    if code == apsw.SQLITE_CONSTRAINT_FOREIGNKEY:
        return Conflict(f"The {noun} belongs to something that does not exist (any more).")
    unique = (apsw.SQLITE_CONSTRAINT_UNIQUE, apsw.SQLITE_CONSTRAINT_PRIMARYKEY)
    if code in unique:
        column = str(error).rpartition(".")[2] or "name"
        shown = _name(row) if column in ("name", "selector") else f"this {column}"
        return Conflict(f"There is a {noun} with {column} {shown!r} already.", field=column)
    return error  # a value that the schema refuses: our own fault


def drop(tx: Transaction, kind: str, id_: Id, *, actor: str, action: str) -> bool:
    query = _DROP.get(kind)
    if query is None:
        raise ValueError(f"no {kind!r} can be dropped")
    try:
        tx.db.execute(query, (id_,))
    except apsw.ConstraintError as error:
        noun = kind.replace("_", " ")
        raise Conflict(f"The {noun} is in use; change what uses it first.") from error
    if not tx.db.changes():
        return False
    _record(tx, actor=actor, action=action, kind=kind, object_=text(id_), detail="{}")
    return True


def change(tx: Transaction, changes: Sequence[Change], *, actor: str) -> None:
    """All of them, in order; raises Conflict as `put` and `drop` do."""
    for one in changes:
        if one.row is not None:
            put(tx, one.row, actor=actor, action=one.action)
        elif one.drop is not None:
            drop(tx, *one.drop, actor=actor, action=one.action)


def _record(
    tx: Transaction, *, actor: str, action: str, kind: str, object_: str, detail: str
) -> None:
    tx.db.execute(_ADD_AUDIT, (tx.now, actor, action, kind, object_, detail))
    tx.db.execute(_RAISE_REVISION)


def _told(row: CatalogRow) -> str:
    """The row as JSON without secrets; ids as text."""
    return json_text(_without_secrets({n: getattr(row, n) for n in row.__struct_fields__}))


def _without_secrets(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _without_secrets(v) for k, v in value.items() if str(k) not in _NEVER_TOLD}
    if isinstance(value, list | tuple):
        return [_without_secrets(v) for v in value]
    if isinstance(value, bytes):
        return text(value) if len(value) == 16 else value.hex()
    return value


def audit(
    db: apsw.Connection, *, limit: int, after: int | None, before: int | None
) -> Sequence[Mapping[str, Any]]:
    """A page, newest first, by keyset."""
    newer = before is not None and after is None
    bound = before if newer else after
    query = _AUDIT_NEWER if newer else _AUDIT_OLDER
    names = ("position", "at", "actor", "action", "kind", "object", "detail")
    found = []
    for row in db.execute(query, {"bound": _AFTER_ALL if bound is None else bound, "most": limit}):
        entry = dict(zip(names, row, strict=True))
        entry["detail"] = msgspec.json.decode(entry["detail"])
        found.append(entry)
    if newer:
        found.reverse()
    return found


def data_keys(db: apsw.Connection) -> Sequence[tuple[int, int, bytes]]:
    return [(id_, project, wrapped) for id_, project, wrapped in db.execute(_DATA_KEYS)]


def add_data_key(tx: Transaction, project: int, wrapped: bytes) -> int:
    return integer(tx.db, _ADD_DATA_KEY, (project, wrapped, tx.now))
