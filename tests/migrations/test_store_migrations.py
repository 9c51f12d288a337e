"""The order of schema revisions, and what an old, a new and a foreign schema come to."""

import asyncio
import subprocess
import sys
from pathlib import Path

import apsw
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

import everpost.store.sqlite
from everpost.model.message import Priority
from everpost.store.interface import StoreCorrupt
from everpost.store.migrate import BASE, HEADS, MigrationError, render
from everpost.store.sqlite import SqliteStore
from tests.conformance.making import HandClock, claims, make_id, message

MIGRATIONS = Path(everpost.store.sqlite.__file__).parent / "migrations"


def _open(path: Path) -> None:
    async def scene() -> None:
        store = SqliteStore(path, clock=HandClock())
        await store.open()
        await store.close()

    asyncio.run(scene())


def test_the_head_in_the_code_is_alembics() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [HEADS["sqlite"]]
    revisions = [r.revision for r in script.walk_revisions()]
    twins = {p.stem for p in (MIGRATIONS / "versions").glob("*.sql")}
    assert {p.stem for p in (MIGRATIONS / "versions").glob("[0-9]*.py")} == twins
    assert len(revisions) == len(twins)


def test_the_sql_is_the_twin_file_word_for_word() -> None:
    sql = render("sqlite", BASE)
    twin = (MIGRATIONS / "versions" / "0001_first_schema.sql").read_text()
    assert twin.rstrip() in sql
    assert "alembic_version" in sql


def test_every_table_is_strict_about_types(tmp_path: Path) -> None:
    """SQLite otherwise stores a text where a number belongs, and says nothing."""
    path = tmp_path / "s.db"
    _open(path)
    db = apsw.Connection(str(path))
    loose = db.execute(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND NOT strict"
        " AND name NOT LIKE 'sqlite%'"
    ).fetchall()
    assert loose == [("alembic_version",)]
    named = db.execute("SELECT value FROM meta WHERE key = 'store'").fetchall()
    assert len(str(named[0][0])) == 32
    assert db.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEADS["sqlite"],)]
    assert db.pragma("application_id") == int.from_bytes(b"EVpr", "big")
    assert db.pragma("integrity_check") == "ok"
    db.close()


def test_a_store_of_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    _open(path)
    db = apsw.Connection(str(path))
    db.execute("UPDATE alembic_version SET version_num = '9999'")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreCorrupt, match="newer Everpost"):
        _open(path)
    assert path.read_bytes() == before


def test_an_unknown_revision_cannot_be_rendered() -> None:
    with pytest.raises(MigrationError, match="9999"):
        render("sqlite", "9999")


_OPENS = """
import asyncio, sys
from pathlib import Path
from everpost.store.sqlite import SqliteStore
from tests.conformance.making import HandClock, message

async def main():
    store = SqliteStore(Path(sys.argv[1]), clock=HandClock())
    await store.open()
    await store.accept(1, [message()])
    print((await store.facts()).accepted)
    await store.close()
asyncio.run(main())
"""


def test_processes_that_start_at_once_make_one_schema(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", _OPENS, str(path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    said = [process.communicate(timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [0] * 4
    assert max(int(line) for line in said) == 4
    db = apsw.Connection(str(path))
    assert db.execute("SELECT count(*) FROM projects").fetchall() == [(1,)]
    db.close()


def test_a_migration_that_breaks_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.db"
    from everpost.store.sqlite import schema

    monkeypatch.setattr(schema, "render", lambda *_: "CREATE TABLE a (b); CREATE TABLE a (b);")
    with pytest.raises(Exception, match="already exists"):
        _open(path)
    monkeypatch.undo()
    _open(path)


_FIRST = MIGRATIONS / "versions" / "0001_first_schema.sql"


def _store_of_the_first_release(path: Path) -> apsw.Connection:
    db = apsw.Connection(str(path))
    db.execute(_FIRST.read_text())
    db.execute(
        "CREATE TABLE alembic_version (version_num TEXT NOT NULL);"
        "INSERT INTO alembic_version VALUES ('0001')"
    )
    return db


def _copy_rows(source: Path, target: apsw.Connection) -> None:
    """The rows of a store of this release into one of the first, as far as its columns go, with
    the lanes of the queue named as the first release did."""
    target.execute("ATTACH ? AS now", (str(source),))
    for table in ("contents", "messages", "recipients", "events", "tallies"):
        columns = ", ".join(
            str(row[0])
            for row in target.execute("SELECT name FROM pragma_table_info(?, 'main')", (table,))
        )
        target.execute(
            f"INSERT OR REPLACE INTO main.{table} ({columns}) SELECT {columns} FROM now.{table}"
        )
    target.execute("UPDATE main.recipients SET route = project || '/' || destination")
    target.execute("DETACH now")


def test_mail_that_was_queued_before_an_upgrade_goes_out_after_it(tmp_path: Path) -> None:
    new, old = tmp_path / "new.db", tmp_path / "old.db"
    owner = make_id()

    async def accept() -> None:
        store = SqliteStore(new, clock=HandClock())
        await store.open()
        await store.accept(1, [message("a@one.test", "b@two.test")])
        await store.accept(1, [message("c@one.test", priority=Priority.BROADCAST)])
        await store.claim(owner, limit=1, lease_ms=1_000)  # one is in a worker's hands
        await store.close()

    asyncio.run(accept())
    db = _store_of_the_first_release(old)
    _copy_rows(new, db)
    db.close()

    async def upgraded() -> set[str]:
        clock = HandClock()
        store = SqliteStore(old, clock=clock)
        await store.open()
        held = await store.claims_of(owner, expired_only=False, limit=9)
        found = claims(await store.claim(make_id(), limit=9, lease_ms=1_000))
        assert len(held) + len(found) == 3
        assert found
        routes = {claim.route for claim in found} | {claim.route for _, claim, _ in held}
        assert await store.claim(make_id(), limit=9, lease_ms=1_000) == []
        await store.close()
        return routes

    assert asyncio.run(upgraded()) == {
        "1/transactional/one.test", "1/transactional/two.test", "1/broadcast/one.test",
    }  # fmt: skip
    db = apsw.Connection(str(old))
    assert db.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEADS["sqlite"],)]
    assert db.execute("SELECT DISTINCT weight FROM streams").fetchall() == [(1,)]
    assert db.pragma("integrity_check") == "ok"
    db.close()
