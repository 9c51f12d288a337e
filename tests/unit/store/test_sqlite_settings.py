"""The settings that the promises rest on are asked for, and checked."""

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest

from everpost.model.message import Durability
from everpost.store.interface import StoreCorrupt, StoreError, StoreUnavailable
from everpost.store.sqlite import SqliteStore, connection
from tests.conformance.making import HandClock, message


def _open(path: Path, **options: Any) -> None:
    async def scene() -> None:
        store = SqliteStore(path, clock=HandClock(), **options)
        await store.open()
        try:
            await store.accept(1, [message()])
        finally:
            await store.close()

    asyncio.run(scene())


@pytest.mark.parametrize(("durability", "level"), [("committed", 2), ("relaxed", 1)])
def test_a_connection_has_the_promised_settings(
    database: Path, durability: str, level: int
) -> None:
    db = connection.connect(database, Durability(durability))
    assert db.pragma("journal_mode") == "wal"
    assert db.pragma("synchronous") == level
    assert db.pragma("foreign_keys") == 1
    assert db.pragma("wal_autocheckpoint") == 0
    assert db.pragma("mmap_size") == 0
    assert db.pragma("temp_store") == 2
    db.close()
    db = connection.connect(database, Durability(durability), read_only=True)
    with pytest.raises(apsw.ReadOnlyError):
        db.execute("UPDATE meta SET value = 9")
    db.close()


def test_a_journal_that_is_not_a_log_refuses_to_start(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system without shared memory, where SQLite answers `delete`."""

    class Stubborn(apsw.Connection):
        def pragma(self, name: str, *value: Any, **more: Any) -> Any:
            answer = super().pragma(name, *value, **more)
            return "delete" if name == "journal_mode" else answer

    monkeypatch.setattr(apsw, "Connection", Stubborn)
    with pytest.raises(StoreError, match="journal_mode=delete"):
        _open(database)


def test_an_sqlite_that_can_corrupt_a_store_refuses_to_start(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")
    with pytest.raises(StoreError, match=r"3\.51\.3"):
        _open(database)


def test_weaker_settings_of_another_process_do_not_weaken_this_one(database: Path) -> None:
    async def scene() -> None:
        relaxed = SqliteStore(database, clock=HandClock(), durability=Durability.RELAXED)
        await relaxed.open()
        strict = connection.connect(database, Durability.COMMITTED)
        assert strict.pragma("synchronous") == 2
        strict.close()
        await relaxed.close()

    asyncio.run(scene())


def test_others_on_the_machine_may_not_read_the_store(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    old = os.umask(0)
    try:
        _open(path)
        db = connection.connect(path, Durability.COMMITTED)
        db.execute("UPDATE meta SET value = value")
        for name in tmp_path.iterdir():
            assert stat.S_IMODE(name.stat().st_mode) == 0o600, name
        assert {p.name for p in tmp_path.iterdir()} >= {"new.db", "new.db-wal", "new.db-shm"}
        db.close()
    finally:
        os.umask(old)


def test_a_database_that_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    db = apsw.Connection(str(path))
    db.execute("CREATE TABLE theirs (a)")
    db.close()
    with pytest.raises(StoreCorrupt, match="not an Everpost store"):
        _open(path)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_bytes(b"this is not a database at all, " * 100)
    with pytest.raises(StoreCorrupt):
        _open(path)


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        _open(tmp_path / "nowhere" / "store.db")


def test_the_audit_can_only_grow(database: Path) -> None:
    db = connection.connect(database, Durability.COMMITTED)
    db.execute("INSERT INTO audit VALUES (NULL, 1, 'me', 'did', 'relay', 'r1', '{}')")
    for change in ("UPDATE audit SET actor = 'you'", "DELETE FROM audit"):
        with pytest.raises(apsw.ConstraintError, match="append-only"):
            db.execute(change)
    db.close()


def test_heavy_libraries_stay_out_of_a_running_service(database: Path) -> None:
    code = (
        "import sys; import everpost.store.sqlite, everpost.store.migrate\n"
        "print([m for m in ('alembic', 'sqlalchemy', 'mako') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
