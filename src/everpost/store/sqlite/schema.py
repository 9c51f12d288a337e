"""Bringing the schema up to date when a store is opened."""

from pathlib import Path

import apsw

from everpost import telemetry
from everpost.model.message import Durability
from everpost.store.interface import StoreCorrupt
from everpost.store.migrate import BASE, HEADS, VERSION_TABLE, MigrationError, render
from everpost.store.sqlite.connection import connect, create_file
from everpost.store.sqlite.lock import WriteLock
from everpost.store.sqlite.torn import Torn, judge, scan

__all__ = ["prepare"]

_ENGINE = "sqlite"
_HEAD = HEADS[_ENGINE]


def prepare(path: Path, durability: Durability, *, alone: bool = False) -> Torn | None:
    """Create the database or migrate it, while no other process does. With `alone`, nobody
    else has it open: the answer is then what its log has lost. Raises StoreCorrupt when the
    file is not a store of this release or an older one, apsw.Error when it cannot be used."""
    lock = WriteLock(path)
    try:
        with lock:  # turning a new file into a WAL database tolerates no company either
            create_file(path)
            log = scan(Path(f"{path}-wal")) if alone else None
            db = connect(path, durability)
            try:
                _migrate(db, path)
                return None if log is None else judge(log, recovered=_recovered(db))
            finally:
                db.close()
    finally:
        lock.close()


def _recovered(db: apsw.Connection) -> int:
    """Frames of the log that SQLite took."""
    frames, _ = db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
    return max(frames, 0)


def _revision(db: apsw.Connection, path: Path) -> str:
    """The schema's revision; BASE when the file is empty."""
    tables = {
        str(row[0]) for row in db.execute("SELECT name FROM sqlite_schema WHERE type='table'")
    }
    if VERSION_TABLE in tables:
        rows = db.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchall()
        return str(rows[0][0]) if rows else BASE
    if tables:
        raise StoreCorrupt(f"{path} is a database, but not an Everpost store")
    return BASE


def _migrate(db: apsw.Connection, path: Path) -> None:
    current = _revision(db, path)
    if current == _HEAD:
        return
    try:
        sql = render(_ENGINE, current)
    except MigrationError as error:
        raise StoreCorrupt(
            f"{path} has schema {current!r}, this release knows up to {_HEAD!r} ({error}). If a "
            "newer Everpost wrote it, start that release; else restore a backup"
        ) from error
    with db:  # one transaction: all of it, or nothing
        db.execute(sql).fetchall()  # else a statement that returns rows would end it
        if _revision(db, path) != _HEAD:
            raise StoreCorrupt(f"{path}: the migrations did not lead to {_HEAD!r}")
    telemetry.event("store.migrated", path=str(path), was=current, now=_HEAD)
