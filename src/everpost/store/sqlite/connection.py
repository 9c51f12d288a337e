"""Connections with the settings that the promises rest on, checked when opened; and what SQLite's
errors mean to the store's callers."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import apsw

from everpost import telemetry
from everpost.model.message import Durability
from everpost.store.interface import StoreCorrupt, StoreError, StoreUnavailable
from everpost.store.queries import load

__all__ = [
    "OLDEST_SQLITE",
    "SQL",
    "STORAGE_FAULTS",
    "as_store_error",
    "connect",
    "create_file",
    "integer",
]

SQL: Mapping[str, str] = load(Path(__file__).parent / "sql")
"""The engine's named queries."""

OLDEST_SQLITE = (3, 51, 3)
"""Versions 3.7.0 to 3.51.2 can corrupt a WAL database when two connections write and checkpoint at
once (RULINGS "SQLite")."""

STORAGE_FAULTS = (
    apsw.FullError,
    apsw.IOError,
    apsw.ReadOnlyError,
    apsw.CantOpenError,
    apsw.BusyError,
    apsw.LockedError,
    apsw.ProtocolError,
    apsw.NoMemError,
    apsw.PermissionsError,
)
"""Faults of the store as a whole: no operation of a batch is to blame."""

_CORRUPTION = (apsw.CorruptError, apsw.NotADBError, apsw.FormatError)

_SYNCHRONOUS = {Durability.COMMITTED: 2, Durability.RELAXED: 1}  # FULL, NORMAL
_OPENING_MS = 10_000
"""Another process may be recovering the log, or closing it as the last one."""

_BUSY_MS = 50
_CACHE_KIB = 4096
_STATEMENTS = 256

_WORTH_A_LINE = frozenset(
    {
        apsw.SQLITE_NOTICE,
        apsw.SQLITE_WARNING,
        apsw.SQLITE_CORRUPT,
        apsw.SQLITE_NOTADB,
        apsw.SQLITE_IOERR,
        apsw.SQLITE_FULL,
        apsw.SQLITE_CANTOPEN,
    }
)


def _log(code: int, message: str) -> None:
    if code & 0xFF in _WORTH_A_LINE:  # such as "recovered 12 frames from WAL file"
        telemetry.event("sqlite.said", code=code, message=message)


def _listen_to_sqlite() -> None:
    try:
        apsw.config(apsw.SQLITE_CONFIG_LOG, _log)
    except apsw.MisuseError:  # some other user of SQLite in this process came first
        pass


_listen_to_sqlite()


def create_file(path: Path) -> None:
    """Make an empty database file that only its owner may read, and make its name durable: SQLite
    syncs the folder for its journals, not for the database itself (F2)."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def connect(
    path: Path, durability: Durability, *, read_only: bool = False, vfs: str | None = None
) -> apsw.Connection:
    """Open the database with the promised settings. Raises StoreError when SQLite is too old or
    answers with other settings than asked for, apsw.Error when the file cannot be used."""
    _refuse_old_sqlite()
    db = apsw.Connection(
        str(path),
        flags=apsw.SQLITE_OPEN_READWRITE,
        vfs=vfs,
        statementcachesize=_STATEMENTS,
    )
    try:
        db.set_busy_timeout(_OPENING_MS)
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA temp_store = MEMORY")
        db.execute("PRAGMA mmap_size = 0")  # an I/O error in a mapping is a SIGBUS
        db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        mode = db.pragma("journal_mode", "wal")
        db.execute("PRAGMA wal_autocheckpoint = 0")  # one process checkpoints, when it is told to
        db.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[durability]}")
        level = db.pragma("synchronous")
        if mode != "wal" or level != _SYNCHRONOUS[durability]:
            raise StoreError(
                f"{path}: SQLite answers journal_mode={mode}, synchronous={level}; durability "
                f"{durability.value!r} needs wal and {_SYNCHRONOUS[durability]}. Is the data "
                "directory on a network file system?"
            )
        if read_only:
            db.execute("PRAGMA query_only = ON")
        db.set_busy_timeout(_BUSY_MS)
    except BaseException:
        db.close(force=True)
        raise
    return db


def _refuse_old_sqlite() -> None:
    version = apsw.sqlite_lib_version()
    if tuple(int(part) for part in version.split(".")[:3]) < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise StoreError(f"SQLite {version} can corrupt a store: install an apsw with >= {oldest}")


def as_store_error(error: BaseException) -> BaseException:
    """What a caller is told: SQLite's errors as the store's, everything else as it is. Text that is
    no UTF-8 is damage of one row."""
    if isinstance(error, UnicodeDecodeError):
        telemetry.alarm("row_corrupt").raise_(error=str(error))
        damaged = StoreCorrupt("a stored row is damaged: its text cannot be read")
        damaged.__cause__ = error
        return damaged
    if not isinstance(error, apsw.Error):
        return error
    if isinstance(error, STORAGE_FAULTS):
        told: StoreError = StoreUnavailable(f"{type(error).__name__}: {error}")
    elif isinstance(error, _CORRUPTION):
        telemetry.alarm("store_corrupt").raise_(error=str(error))
        told = StoreCorrupt(
            f"the database is damaged ({error}): stop the service, keep all files of the data "
            "directory, and restore a backup"
        )
    else:
        told = StoreError(f"{type(error).__name__}: {error}")
    told.__cause__ = error
    return told


def integer(db: apsw.Connection, query: str, values: "apsw.Bindings | None" = None) -> int:
    """The first column of the first row, as an int; 0 when there is none or it is NULL."""
    rows = db.execute(query, values).fetchall()
    return int(cast(int, rows[0][0] or 0)) if rows else 0
