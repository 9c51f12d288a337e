"""The journal's file: what a disk, a crash and a full disk do to it."""

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

import apsw
import pytest

from everpost import telemetry
from everpost.store.interface import StoreError, StoreUnavailable
from everpost.store.journal_rows import NewJournalRow
from everpost.store.sqlite.journal import JournalFile
from everpost.store.sqlite.work import Single, Transaction
from tests.conformance.making import HandClock
from tests.support.journalling import desk
from tests.unit.journal.test_drain import _journalled


def _rows(count: int, size: int = 3_000) -> list[NewJournalRow]:
    return [NewJournalRow(b"%016d" % n, "a", n, bytes([n % 251]) * size) for n in range(count)]


async def _opened(path: Path) -> JournalFile:
    file = JournalFile(path, clock=HandClock())
    await file.open()
    return file


async def _write(path: Path, rows: Iterable[NewJournalRow]) -> None:
    file = await _opened(path)
    await file.write(list(rows))
    await file.close()


async def _found(path: Path) -> dict[int, bytes | None]:
    file = await _opened(path)
    found, after = {}, 0
    while rows := await file.pending(after=after, most=1_000):
        found.update({row.at: row.body for row in rows})
        after = rows[-1].number
    await file.close()
    return found


@pytest.fixture(name="path")
def _path(database: Path) -> Path:
    return database.with_name("j.db")


@pytest.fixture(autouse=True)
def _calm() -> Iterable[None]:
    yield
    for name in ("journal_damaged", "journal_unavailable"):
        telemetry.alarm(name).clear()


def test_one_written_twice_is_there_once(path: Path) -> None:
    async def scene() -> None:
        file = await _opened(path)
        assert await file.write(_rows(2)) == [1, 2]
        assert list(await file.write(_rows(3)))[:2] == [0, 0]
        assert (await file.size()).entries == 3
        await file.close()

    asyncio.run(scene())


def test_large_ones_come_a_few_at_a_time(path: Path) -> None:
    async def scene() -> None:
        file = await _opened(path)
        await file.write(_rows(4, size=7 << 20))
        assert len(await file.pending(after=0, most=64)) == 2
        await file.close()

    asyncio.run(scene())


def test_a_bit_flips_in_a_body(database: Path) -> None:
    """It is found and told, the others are handed over."""

    async def scene() -> None:
        path = database.with_name("journal.db")
        async with desk(database) as node:
            ids = await _journalled(node, 3)
        db = apsw.Connection(str(path))
        (body,) = db.execute("SELECT body FROM bodies WHERE number = 2").fetchall()[0]
        assert isinstance(body, bytes)
        flipped = bytes([body[0]]) + body[1:-1] + bytes([body[-1] ^ 4])
        db.execute("UPDATE bodies SET body = ? WHERE number = 2", (flipped,))
        db.close()
        async with desk(database) as node:
            await node.drain.round()
            assert sorted(await node.in_store()) == sorted([ids[0], ids[2]])
            assert telemetry.alarm("journal_damaged").raised
            size = await node.file.size()
            assert (size.pending, size.damaged) == (0, 1)

    asyncio.run(scene())


def test_pages_of_the_file_are_damaged(path: Path) -> None:
    """What can be read of it goes on in a new file; the old one is kept."""
    asyncio.run(_write(path, _rows(500)))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 3 * 4096] = b"\x55" * (3 * 4096)
    path.write_bytes(data)
    found = asyncio.run(_found(path))
    assert 480 < len(found) < 500
    assert all(body == bytes([at % 251]) * 3_000 for at, body in found.items())
    assert path.with_name("j.db.damaged-1").read_bytes()[middle] == 0x55
    assert telemetry.alarm("journal_damaged").raised


def test_the_file_is_damaged_while_it_is_in_use(path: Path) -> None:
    """That is the journal's trouble, and told so: the database is well, no backup of it is needed,
    and the node can go on with it."""

    async def scene() -> None:
        file = await _opened(path)
        await file.write(_rows(200))
        await file.close()
        file = await _opened(path)
        _ruin(path)
        with pytest.raises(StoreUnavailable):
            await file.pending(after=0, most=10)
        with pytest.raises(StoreUnavailable):
            await file.write(_rows(300))
        assert telemetry.alarm("journal_damaged").raised
        assert not telemetry.alarm("store_corrupt").raised
        await file.close()

    asyncio.run(scene())


def _ruin(path: Path) -> None:
    """All but the first page, in place."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\x55" * (size - 4096))


def test_the_file_is_no_database_any_more(path: Path) -> None:
    path.write_bytes(b"nonsense" * 1_000)
    assert asyncio.run(_found(path)) == {}
    asyncio.run(_write(path, _rows(1)))
    assert len(asyncio.run(_found(path))) == 1


def test_the_log_is_torn(path: Path) -> None:
    """What was flushed before the tear is there."""

    async def scene() -> None:
        file = await _opened(path)
        await file.write(_rows(1))
        whole = path.with_name("j.db-wal").stat().st_size
        await file.write([NewJournalRow(b"z" * 16, "a", 99, b"z" * 3_000)])
        copy = path.with_name("torn.db")
        for tail in ("", "-wal"):
            data = path.with_name("j.db" + tail).read_bytes()
            copy.with_name("torn.db" + tail).write_bytes(data)
        await file.close()
        os.truncate(copy.with_name("torn.db-wal"), whole + 1_000)
        assert list(await _found(copy)) == [0]

    asyncio.run(scene())


@pytest.mark.parametrize("text", [b"node-of-ours", b"pending"])
def test_one_bit_of_an_entrys_row_flips(path: Path, text: bytes) -> None:
    """In the table or in an index: no entry is hidden by it, none holds up the others."""
    rows = [NewJournalRow(b"%016d" % n, "node-of-ours", n, b"body" * 20) for n in range(6)]
    asyncio.run(_write(path, rows))
    data = path.read_bytes()
    places = [at for at in range(len(data)) if data.startswith(text, at)]
    assert len(places) >= 12
    for at in places:
        for each in path.parent.glob("j.db*"):
            each.unlink()
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x80]) + data[at + 1 :])
        assert sorted(asyncio.run(_found(path))) == list(range(6)), at


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_killed_while_a_damaged_file_is_rescued(
    path: Path, nth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each of the steps by which the rescued file comes to the damaged one's place."""
    asyncio.run(_write(path, _rows(100)))
    data = bytearray(path.read_bytes())
    data[40 * 4096 : 42 * 4096] = b"\x55" * (2 * 4096)
    path.write_bytes(data)
    renamed, rename = 0, os.rename

    def killed(was: Path, then: Path) -> None:
        nonlocal renamed
        renamed += 1
        if renamed == nth:
            raise _Killed
        rename(was, then)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", killed)
        with pytest.raises(_Killed):
            asyncio.run(_found(path))
    assert 95 < len(asyncio.run(_found(path))) < 100
    assert [each.name for each in path.parent.glob("j.db.[nr]*")] == []
    assert path.with_name("j.db.damaged-1").read_bytes()[40 * 4096] == 0x55


class _Killed(BaseException):
    pass


def test_a_disk_that_is_full(path: Path) -> None:
    """Refused, and nothing of it is there; with room it goes on."""

    async def scene() -> None:
        file = await _opened(path)
        await file.write(_rows(1))
        writer = file._open_writer()
        await writer.do(_limit(20))
        with pytest.raises(StoreUnavailable):
            await file.write([NewJournalRow(b"big" * 5, "a", 7, b"x" * 200_000)])
        assert telemetry.alarm("journal_unavailable").raised
        await writer.do(_limit(100_000))
        assert (await file.size()).entries == 1
        await file.write([NewJournalRow(b"big" * 5, "a", 7, b"x" * 200_000)])
        assert not telemetry.alarm("journal_unavailable").raised
        await file.close()

    asyncio.run(scene())


def _limit(pages: int) -> Single[None]:
    def do(tx: Transaction) -> None:
        tx.db.execute(f"PRAGMA max_page_count = {pages}").fetchall()

    return Single(do)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    async def scene() -> None:
        with pytest.raises(StoreError):
            await _opened(tmp_path / "absent" / "j.db")

    asyncio.run(scene())
