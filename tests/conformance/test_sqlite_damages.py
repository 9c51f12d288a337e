"""What only a file of SQLite's can suffer: text that is none, columns mistyped, torn pages."""

import asyncio
from pathlib import Path

import apsw
import pytest

from everpost.ledger import Findings, check_store, repair, walk
from everpost.model.states import State
from tests.conformance.engines import SqliteEngine
from tests.conformance.making import make_id, message
from tests.conformance.stage import Stage, on_a_stage

DAMAGES: dict[str, tuple[str, set[str]]] = {
    "address no text any more": (
        "UPDATE recipients SET address = CAST(X'61FF' AS TEXT) WHERE message = :queued AND n = 1",
        {"recipient_damaged"},
    ),
    "state no text any more": (
        "UPDATE recipients SET state = CAST(X'71FF' AS TEXT) WHERE message = :queued AND n = 1",
        {"state_unknown", "tally_off"},
    ),
    "event no text any more": (
        "UPDATE events SET data = CAST(X'7BFF' AS TEXT) WHERE message = :delivered AND seq = 2",
        {"event_unreadable"},
    ),
}
"""What is done: the findings that it must give, and no others."""


@pytest.mark.parametrize("name", sorted(DAMAGES))
def test_text_that_is_no_text_any_more_is_named(sqlite_engine: SqliteEngine, name: str) -> None:
    sql, expected = DAMAGES[name]

    async def scene(stage: Stage) -> None:
        stage.damage(sql)
        found = await stage.found()
        assert set(found.counts) == expected, found.kept

    on_a_stage(sqlite_engine, scene)


@pytest.mark.parametrize("name", sorted(DAMAGES))
def test_what_cannot_be_read_is_never_made_worse_by_a_repair(
    sqlite_engine: SqliteEngine, name: str, tmp_path: Path
) -> None:
    sql, expected = DAMAGES[name]

    async def scene(stage: Stage) -> None:
        stage.damage(sql)
        await repair(
            stage.store, owner=make_id(), clock=sqlite_engine.clock, folder=tmp_path / "set-aside"
        )
        left = await stage.found()
        assert set(left.counts) == expected - {"tally_off"}
        assert not any(finding.mends for finding in left.kept)

    on_a_stage(sqlite_engine, scene)


def _damage_whatever_it_is(engine: SqliteEngine, stage: Stage, table: str, change: str) -> None:
    """As `damage` of a table, past the types of its columns."""
    query = "SELECT sql FROM sqlite_schema WHERE name = ?"
    strict = str(apsw.Connection(engine.place).execute(query, (table,)).get)
    loose = strict.replace("STRICT, ", "").replace(") STRICT", ")").replace("NOT NULL", "")
    for schema, then in ((loose, change), (strict, None)):
        db = apsw.Connection(engine.place)
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (schema, table))
        db.close()
        if then is not None:
            stage.damage(then)


@pytest.mark.parametrize(
    ("table", "change", "expected"),
    [
        ("recipients", "state = NULL WHERE message = :queued AND n = 1", {"state_unknown"}),
        ("recipients", "address = NULL WHERE message = :queued AND n = 1", {"recipient_damaged"}),
        ("events", "data = NULL WHERE message = :queued", {"event_unreadable"}),
        ("events", "type = NULL WHERE message = :queued", {"event_unknown"}),
        ("contents", "sealed = NULL WHERE id = :queued", {"content_damaged"}),
        ("contents", "sealed = CAST(sealed AS TEXT) WHERE id = :queued", {"content_damaged"}),
        ("parts", "sealed = NULL WHERE hash = CAST('queued' AS BLOB)", {"part_damaged"}),
    ],
)
def test_a_bit_makes_a_column_another_type(
    sqlite_engine: SqliteEngine, table: str, change: str, expected: set[str]
) -> None:
    """A finding like any other: the patrol goes on."""

    async def scene(stage: Stage) -> None:
        _damage_whatever_it_is(sqlite_engine, stage, table, f"UPDATE {table} SET {change}")
        findings = Findings()
        await walk(stage.store, findings, limit=2)
        await check_store(stage.store, findings, engine=False)
        assert set(findings.counts) - {"tally_off"} == expected, findings.kept

    on_a_stage(sqlite_engine, scene)


UNREADABLE = "CAST(X'61ff40312e74657374' AS TEXT)"


def test_several_things_are_damaged_at_once_and_what_is_safe_is_still_mended(
    sqlite_engine: SqliteEngine, tmp_path: Path
) -> None:
    async def scene(stage: Stage) -> None:
        stage.damage("DELETE FROM workers")
        stage.damage(f"UPDATE messages SET in_doubt = {UNREADABLE} WHERE id = :claimed")
        stage.damage(f"UPDATE recipients SET address = {UNREADABLE} WHERE message = :claimed")
        stage.damage("UPDATE contents SET sealed = :no_bytes WHERE id = :queued")
        stage.damage("UPDATE recipients SET state = 'quened' WHERE message = :queued AND n = 1")
        stage.damage(f"UPDATE recipients SET state = {UNREADABLE} WHERE message = :tried AND n = 1")
        stage.damage("DELETE FROM contents WHERE id = :tried")
        done = await repair(
            stage.store, owner=make_id(), clock=sqlite_engine.clock, folder=tmp_path
        )
        assert (done.taken_back, done.held) == (1, 3)
        row = await stage.store.message(1, stage.ids["claimed"])
        assert row is not None
        assert row.recipients[0].state is State.HELD  # what its policy was, nobody knows

    on_a_stage(sqlite_engine, scene)


def test_a_file_whose_pages_are_torn_is_reported_and_not_half_checked(
    sqlite_engine: SqliteEngine,
) -> None:
    async def fill() -> None:
        async with sqlite_engine.opened() as store:
            await store.accept(1, [message(sealed=b"x" * 3000) for _ in range(300)])
            await store.checkpoint()

    asyncio.run(fill())
    data = bytearray(sqlite_engine.path.read_bytes())
    for at in range(len(data) // 2, len(data), 4096):
        data[at // 4096 * 4096 : at // 4096 * 4096 + 64] = b"\xa5" * 64
    sqlite_engine.path.write_bytes(data)

    async def scene() -> None:
        findings = Findings()
        async with sqlite_engine.opened() as store:
            checked = await walk(store, findings)
            rest, _ = await check_store(store, findings)
        assert findings.counts["store_damaged"] >= 2  # the walk, and the engine's own word
        assert not checked.complete
        checked.merge(rest)
        assert not checked.complete

    asyncio.run(scene())
