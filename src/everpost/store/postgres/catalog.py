"""What users manage: whole tables out, one row in. Every change writes its audit row and raises the
settings revision in the same transaction."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import psycopg

from everpost.ids import Id, text
from everpost.model.errors import Conflict
from everpost.store.catalog_columns import (
    DROPPABLE,
    KINDS,
    audit_entry,
    columns,
    from_columns,
    name_of,
    object_of,
    told,
)
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
from everpost.store.postgres.connection import SQL, Db
from everpost.store.postgres.work import Transaction, fetch_all, integer, run

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

_PUT = {kind: SQL[f"put_{kind}"] for kind in KINDS.values()}
_DROP = {kind: SQL[f"drop_{kind}"] for kind in DROPPABLE}
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


def revision(db: Db) -> int:
    return integer(db, _REVISION)


def projects(db: Db) -> Sequence[ProjectRow]:
    return _rows(db, _PROJECTS, ProjectRow)


def streams(db: Db) -> Sequence[StreamRow]:
    return _rows(db, _STREAMS, StreamRow)


def api_keys(db: Db) -> Sequence[ApiKeyRow]:
    return _rows(db, _API_KEYS, ApiKeyRow)


def domains(db: Db) -> Sequence[DomainRow]:
    return _rows(db, _DOMAINS, DomainRow)


def dkim_keys(db: Db) -> Sequence[DkimKeyRow]:
    return _rows(db, _DKIM_KEYS, DkimKeyRow)


def relays(db: Db) -> Sequence[RelayRow]:
    return _rows(db, _RELAYS, RelayRow)


def pools(db: Db) -> Sequence[PoolRow]:
    return _rows(db, _POOLS, PoolRow)


def routes(db: Db) -> Sequence[RouteRow]:
    return _rows(db, _ROUTES, RouteRow)


def _rows(db: Db, query: bytes, kind: Callable[..., R]) -> list[R]:
    cursor = db.rows.execute(query)
    names = [column.name for column in cursor.description or ()]
    return [from_columns(kind, names, row) for row in cursor]


def put(tx: Transaction, row: CatalogRow, *, actor: str, action: str) -> None:
    """Insert, or replace the row of that id. Raises Conflict when a unique name is taken."""
    kind = KINDS[type(row)]
    try:
        run(tx.db, _PUT[kind], columns(row))
    except psycopg.IntegrityError as error:
        raise _conflict(kind, row, error) from error
    _record(tx, actor=actor, action=action, kind=kind, object_=object_of(row), detail=told(row))


def _conflict(kind: str, row: CatalogRow, error: psycopg.IntegrityError) -> Exception:
    noun = kind.replace("_", " ")
    if isinstance(error, psycopg.errors.ForeignKeyViolation):
        return Conflict(f"The {noun} belongs to something that does not exist (any more).")
    if isinstance(error, psycopg.errors.UniqueViolation):
        column = _column(error.diag)
        shown = name_of(row) if column in ("name", "selector") else f"this {column}"
        return Conflict(f"There is a {noun} with {column} {shown!r} already.", field=column)
    return error  # a value that the schema refuses: our own fault


def _column(diagnostic: psycopg.errors.Diagnostic) -> str:
    """The last column of the unique constraint, as PostgreSQL names them: table_columns_key."""
    constraint = diagnostic.constraint_name or ""
    columns_ = constraint.removeprefix(f"{diagnostic.table_name}_").removesuffix("_key")
    if columns_ == "pkey":
        return "name"
    return "selector" if columns_.endswith("_selector") else columns_


def drop(tx: Transaction, kind: str, id_: Id, *, actor: str, action: str) -> bool:
    query = _DROP.get(kind)
    if query is None:
        raise ValueError(f"no {kind!r} can be dropped")
    try:
        gone = run(tx.db, query, (id_,))
    except psycopg.IntegrityError as error:
        noun = kind.replace("_", " ")
        raise Conflict(f"The {noun} is in use; change what uses it first.") from error
    if not gone:
        return tx.doubted  # by the same call, whose COMMIT had held after all
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
    run(tx.db, _ADD_AUDIT, (tx.now, actor, action, kind, object_, detail))
    run(tx.db, _RAISE_REVISION)


def audit(
    db: Db, *, limit: int, after: int | None, before: int | None
) -> Sequence[Mapping[str, Any]]:
    """A page, newest first, by keyset."""
    newer = before is not None and after is None
    bound = before if newer else after
    query = _AUDIT_NEWER if newer else _AUDIT_OLDER
    values = {"bound": _AFTER_ALL if bound is None else bound, "most": limit}
    found = [audit_entry(row) for row in fetch_all(db, query, values)]
    if newer:
        found.reverse()
    return found


def data_keys(db: Db) -> Sequence[tuple[int, int, bytes]]:
    return [(id_, project, wrapped) for id_, project, wrapped in fetch_all(db, _DATA_KEYS)]


def add_data_key(tx: Transaction, project: int, wrapped: bytes) -> int:
    return integer(tx.db, _ADD_DATA_KEY, (project, wrapped, tx.now))
