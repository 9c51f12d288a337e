"""Disks that are full, broken or lie: nothing acknowledged is lost, nothing half is written, and
callers are told to come again."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from everpost import telemetry
from everpost.model.states import State
from everpost.store.interface import Accepted, StoreCorrupt, StoreUnavailable
from everpost.store.sqlite import SqliteStore
from everpost.store.sqlite.connection import connect
from tests.conformance.making import HandClock, claims, make_id, message
from tests.support.tracing import injecting

clock = HandClock()


def _store(path: Path, **options: Any) -> SqliteStore:
    return SqliteStore(path, clock=clock, **options)


def test_a_full_disk_refuses_and_takes_again_when_there_is_room(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLITE_FULL, by a cap on the database's pages."""
    opened: list[apsw.Connection] = []

    def capped(*args: Any, **options: Any) -> apsw.Connection:
        db = connect(*args, **options)
        if not options.get("read_only"):
            opened.append(db)
            db.pragma("max_page_count", 80)
        return db

    monkeypatch.setattr("everpost.store.sqlite.store.connect", capped)

    async def scene() -> None:
        engine = _store(database)
        await engine.open()
        taken = 0
        refused = 0
        big = [message(sealed=os.urandom(3000)) for _ in range(200)]
        for sent in big:
            try:
                await engine.accept(1, [sent])
                taken += 1
            except StoreUnavailable:
                refused += 1
        assert taken
        assert refused
        assert telemetry.alarm("store_unavailable").raised
        assert len((await engine.messages(1, limit=300))[0]) == taken
        assert (await engine.facts()).accepted == taken
        opened[-1].pragma("max_page_count", 100_000)
        assert await engine.accept(1, [message()]) == Accepted()
        assert not telemetry.alarm("store_unavailable").raised
        await engine.close()

    asyncio.run(scene())


_FILLS = """
import asyncio, os, sys
from pathlib import Path
from everpost.store.interface import StoreUnavailable
from everpost.store.sqlite import SqliteStore
from tests.conformance.making import HandClock, message

async def main():
    store = SqliteStore(Path(sys.argv[1]), clock=HandClock())
    await store.open()
    taken = []
    for _ in range(400):
        sent = message(sealed=os.urandom(3000))
        try:
            await store.accept(1, [sent])
        except StoreUnavailable:
            break
        taken.append(sent.id.hex())
    print(" ".join(taken), flush=True)
    os._exit(0)
asyncio.run(main())
"""


def test_a_write_that_the_file_system_refuses(database: Path) -> None:
    """EFBIG in the middle of the log, and no orderly close afterwards."""
    done = subprocess.run(
        ["prlimit", f"--fsize={600_000}", sys.executable, "-c", _FILLS, str(database)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    taken = done.stdout.split()
    assert 10 < len(taken) < 400

    async def scene() -> None:
        engine = _store(database)
        await engine.open()
        page, _ = await engine.messages(1, limit=500)
        assert {m.id.hex() for m in page} == set(taken)
        assert (await engine.facts()).accepted == len(taken)
        assert await engine.accept(1, [message()]) == Accepted()
        await engine.close()

    asyncio.run(scene())


_ASKS = """
import asyncio, os, sys
from pathlib import Path
from everpost.store.interface import StoreUnavailable
from everpost.store.sqlite import SqliteStore
from tests.conformance.making import HandClock, message

async def main():
    store = SqliteStore(Path(sys.argv[1]), clock=HandClock())
    await store.open()
    await store.accept(1, [message()])
    await store.facts()  # another connection, else the failed one's close would remove the log
    for line in iter(lambda: (print("ask", flush=True), sys.stdin.readline())[1], ""):
        sent = message()
        try:
            await store.accept(1, [sent])
            print("taken", sent.id.hex(), flush=True)
        except StoreUnavailable:
            print("refused", sent.id.hex(), flush=True)
    os._exit(0)
asyncio.run(main())
"""


@pytest.fixture
def asked(database: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", _ASKS, str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        stream.close()


@pytest.mark.parametrize("more", [0, 2])
def test_a_flush_that_fails_once_and_then_lies(
    database: Path, asked: subprocess.Popen[str], more: int
) -> None:
    """F3: the commit is refused, the handle is never trusted again, and what was refused does not
    come back when the log is recovered after a crash, be it at once or `more` commits later."""
    assert asked.stdin is not None
    assert asked.stdout is not None
    assert asked.stdout.readline() == "ask\n"
    with injecting(asked.pid, "fsync,fdatasync:error=EIO:when=1"):
        said = []
        for _ in range(1 + more):
            asked.stdin.write("go\n")
            asked.stdin.flush()
            said.append(asked.stdout.readline().split())
            assert asked.stdout.readline() == "ask\n"
    assert [word for word, _ in said] == ["refused"] + ["taken"] * more
    asked.kill()
    asked.wait()

    async def scene() -> None:
        engine = _store(database)
        await engine.open()
        found = {m.id.hex() for m in (await engine.messages(1, limit=9))[0]}
        assert said[0][1] not in found
        assert {id_ for _, id_ in said[1:]} < found
        assert (await engine.facts()).accepted == len(found) == 1 + more
        await engine.close()

    asyncio.run(scene())


def test_a_bit_flips_in_stored_content(database: Path) -> None:
    """F9: it is held with an alarm, and never sent; its neighbours go out."""
    telemetry.alarm("content_corrupt").clear()

    async def scene() -> None:
        engine = _store(database)
        await engine.open()
        bad, good, gone = message("a@1.test", "b@2.test"), message(), message()
        await engine.accept(1, [bad, good, gone])
        db = apsw.Connection(str(database))
        flipped = bytes([bad.sealed[0] ^ 1]) + bad.sealed[1:]
        db.execute("UPDATE contents SET sealed = ? WHERE id = ?", (flipped, bad.id))
        db.execute("DELETE FROM contents WHERE id = ?", (gone.id,))
        db.close()
        taken = await engine.claim(make_id(), limit=9, lease_ms=9_000)
        assert [c.message for c in claims(taken)] == [good.id]
        assert telemetry.alarm("content_corrupt").raised
        for id_, why in ((bad.id, "content checksum"), (gone.id, "content missing")):
            row = await engine.message(1, id_)
            assert row is not None
            assert row.sealed is None
            assert {(r.state, r.reason) for r in row.recipients} == {(State.HELD, "damaged")}
            events = await engine.events(1, id_)
            assert [e.data for e in events[1:]] == [{"reason": why}] * len(row.recipients)
        facts = await engine.facts()
        assert (facts.states["held"], facts.states["claimed"]) == (3, 1)
        await engine.close()

    asyncio.run(scene())
    telemetry.alarm("content_corrupt").clear()


def test_a_bit_flips_in_an_address(database: Path) -> None:
    """F9: mail goes to no address that the disk made; its neighbours and older rows go out."""
    telemetry.alarm("row_corrupt").clear()

    async def scene() -> None:
        engine = _store(database)
        await engine.open()
        bad, old = message("a@1.test", "b@2.test"), message()
        await engine.accept(1, [bad, old])
        db = apsw.Connection(str(database))
        change = "UPDATE recipients SET address = 'c@1.test' WHERE message = ? AND n = 1"
        db.execute(change, (bad.id,))
        db.execute("UPDATE recipients SET crc = NULL WHERE message = ?", (old.id,))
        taken = claims(await engine.claim(make_id(), limit=9, lease_ms=9_000))
        assert {(c.message, c.n) for c in taken} == {(bad.id, 2), (old.id, 1)}
        assert telemetry.alarm("row_corrupt").raised
        row = await engine.message(1, bad.id)
        assert row is not None
        assert (row.recipients[0].state, row.recipients[0].reason) == (State.HELD, "damaged")
        events = await engine.events(1, bad.id)
        assert events[-1].data == {"reason": "recipient checksum"}
        db.execute(
            "UPDATE recipients SET address = 'a@1.test' WHERE message = ? AND n = 1", (bad.id,)
        )
        db.close()
        await engine.release(1, bad.id)
        again = claims(await engine.claim(make_id(), limit=9, lease_ms=9_000))
        assert [(c.message, c.n, c.address) for c in again] == [(bad.id, 1, "a@1.test")]
        await engine.close()

    asyncio.run(scene())
    telemetry.alarm("row_corrupt").clear()


def test_a_recipient_whose_message_is_gone(database: Path) -> None:
    async def scene() -> None:
        engine = _store(database)
        await engine.open()
        lost, good = message(), message()
        await engine.accept(1, [lost, good])
        db = apsw.Connection(str(database))
        db.execute("DELETE FROM messages WHERE id = ?", (lost.id,))
        db.close()
        taken = await engine.claim(make_id(), limit=9, lease_ms=9_000)
        assert [c.message for c in claims(taken)] == [good.id]
        assert (await engine.facts()).states["held"] == 1
        await engine.close()

    asyncio.run(scene())
    telemetry.alarm("content_corrupt").clear()


def test_a_damaged_part_is_refused(database: Path) -> None:
    async def scene() -> None:
        engine = _store(database)
        await engine.open()
        await engine.accept(1, [message(parts=[(b"h" * 32, b"sealed")])])
        db = apsw.Connection(str(database))
        db.execute("UPDATE parts SET sealed = x'00'")
        day = db.execute("SELECT day FROM parts").fetchall()[0][0]
        db.close()
        assert isinstance(day, int)
        with pytest.raises(StoreCorrupt):
            await engine.parts(1, [(day, b"h" * 32)])
        await engine.close()

    asyncio.run(scene())
    telemetry.alarm("content_corrupt").clear()


def test_a_log_that_lost_its_tail(database: Path) -> None:
    """F10: the store starts, with every commit whose frames are whole."""

    async def fill() -> list[bytes]:
        engine = _store(database)
        await engine.open()
        sent = [message() for _ in range(20)]
        for each in sent:
            await engine.accept(1, [each])
        # as a crash leaves it: the log's end torn off
        for suffix in ("", "-wal"):
            shutil.copy(f"{database}{suffix}", f"{database}.crashed{suffix}")
        await engine.close()
        return [m.id for m in sent]

    ids = asyncio.run(fill())
    crashed = Path(f"{database}.crashed")
    wal = Path(f"{crashed}-wal")
    os.truncate(wal, wal.stat().st_size - 512)

    async def scene() -> None:
        engine = _store(crashed)
        await engine.open()
        found = [m.id for m in (await engine.messages(1, limit=99))[0]]
        assert found == ids[:-1][::-1]
        assert (await engine.facts()).accepted == 19
        assert await engine.accept(1, [message()]) == Accepted()
        await engine.close()

    asyncio.run(scene())


def test_a_foreign_program_holds_the_database(database: Path) -> None:
    """F39: a backup or a shell in the way is waited for, not reported."""

    async def scene() -> None:
        engine = _store(database)
        await engine.open()
        foreign = apsw.Connection(str(database))
        foreign.execute("BEGIN IMMEDIATE")
        writing = asyncio.ensure_future(engine.accept(1, [message()]))
        await asyncio.wait([writing], timeout=0.2)
        assert not writing.done()
        assert await engine.messages(1, limit=1) == ([], False)
        foreign.execute("COMMIT")
        assert await asyncio.wait_for(writing, 10) == Accepted()
        foreign.close()
        await engine.close()

    asyncio.run(scene())


def test_a_long_reader_holds_up_neither_writers_nor_housekeeping(database: Path) -> None:
    wal = f"{database}-wal"

    async def scene() -> None:
        engine = _store(database, wal_bytes=1)
        await engine.open()
        reader = apsw.Connection(str(database))
        reader.execute("BEGIN")
        before = reader.execute("SELECT count(*) FROM messages").fetchall()
        for _ in range(30):
            await engine.accept(1, [message(sealed=os.urandom(9000)) for _ in range(10)])
            await engine.checkpoint()
        assert reader.execute("SELECT count(*) FROM messages").fetchall() == before
        reader.execute("COMMIT")
        assert os.stat(wal).st_size > 1_000_000
        await engine.checkpoint()
        await engine.checkpoint()
        assert os.stat(wal).st_size == 0
        assert (await engine.facts()).accepted == 300
        reader.close()
        await engine.close()

    asyncio.run(scene())
