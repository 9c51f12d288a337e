"""Bringing the schema up to date when a store is opened."""

from everpost import telemetry
from everpost.store.interface import StoreCorrupt
from everpost.store.migrate import BASE, HEADS, MigrationError, render
from everpost.store.postgres.connection import SQL, Db
from everpost.store.postgres.work import fetch_all

__all__ = ["prepare"]

_ENGINE = "postgres"
_HEAD = HEADS[_ENGINE]

_DEADLINE_S = 600.0
"""A step of a migration may have to read a large table."""

_ALONE = SQL["schema_alone"]
_TABLES = SQL["schema_tables"]
_REVISION = SQL["schema_revision"]
_OLDEST = SQL["schema_oldest"]


def prepare(db: Db) -> None:
    """Make the schema or migrate it, while no other process does. Raises StoreCorrupt when the
    database is no store of ours, or one that this release must not touch; psycopg.Error."""
    current, oldest = _found(db)
    if _fits(current, oldest):
        return
    rendered = _render(current, oldest)
    db.execute(b"BEGIN")
    fetch_all(db, _ALONE)
    db.deadline_s = _DEADLINE_S
    current_now, oldest = _found(db)
    if current_now == current:
        db.execute(rendered.encode())
        if _found(db)[0] != _HEAD:
            raise StoreCorrupt(f"the migrations did not lead to {_HEAD!r}")
        telemetry.event("store.migrated", was=current, now=_HEAD)
    elif not _fits(current_now, oldest):  # another release came first
        raise StoreCorrupt(_told(current_now))
    db.execute(b"COMMIT")


def _fits(current: str, oldest: str) -> bool:
    """A newer schema fits while its release says so: during an upgrade, node by node."""
    return current == _HEAD or (current != BASE and oldest <= _HEAD < current)


def _found(db: Db) -> tuple[str, str]:
    """The schema's revision, and the oldest whose programs may run on it."""
    tables, versioned = fetch_all(db, _TABLES)[0]
    if not versioned:
        if tables:
            raise StoreCorrupt("the database has tables, but is no Everpost store")
        return BASE, BASE
    rows = fetch_all(db, _REVISION)
    current = str(rows[0][0]) if rows else BASE
    if current == BASE:
        return BASE, BASE
    oldest = fetch_all(db, _OLDEST)
    return current, str(oldest[0][0]) if oldest else current


def _render(current: str, oldest: str) -> str:
    if current > _HEAD and current != BASE:
        raise StoreCorrupt(
            f"{_told(current)} It says that {oldest!r} is the oldest that may use it."
        )
    try:
        return render(_ENGINE, current)
    except MigrationError as error:
        raise StoreCorrupt(f"{_told(current)} ({error})") from error


def _told(current: str) -> str:
    return (
        f"the database has schema {current!r}, this release knows up to {_HEAD!r}. If a newer "
        "Everpost wrote it, start that release; else restore a backup."
    )
