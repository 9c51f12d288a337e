"""Many callers, one transaction, and none that waits for ever."""

import asyncio
import fcntl
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from everpost.store.interface import Accepted, StoreUnavailable
from everpost.store.sqlite import SqliteStore, writer
from everpost.store.sqlite.work import Single
from tests.conformance.making import HandClock, message

clock = HandClock()


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sizes: list[int] = []
    write = writer.Writer._write

    def counting(self: writer.Writer, works: Any) -> Any:
        sizes.append(len(works))
        return write(self, works)

    monkeypatch.setattr(writer.Writer, "_write", counting)
    return sizes


def test_callers_share_commits(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = _counted(monkeypatch)

    async def scene() -> None:
        store = SqliteStore(database, clock=clock)
        await store.open()
        for _ in range(5):
            await asyncio.gather(*(store.accept(1, [message()]) for _ in range(100)))
        await store.close()

    asyncio.run(scene())
    assert sum(sizes) == 500
    assert len(sizes) <= 50


def test_a_look_at_an_empty_queue_writes_nothing(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = _counted(monkeypatch)

    async def scene() -> None:
        store = SqliteStore(database, clock=clock)
        await store.open()
        await store.accept(1, [message(not_before=clock.now() + 9)])
        assert len(sizes) == 1
        for _ in range(5):
            assert list(await store.claim(b"o" * 16, limit=9, lease_ms=9)) == []
            assert await store.purge(before=clock.now(), limit=9) == 0
        assert len(sizes) == 1
        await store.close()

    asyncio.run(scene())


def test_a_lock_that_is_never_released(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped process sits on it: callers are refused in time, and what was refused is not
    written when the lock is free again."""
    monkeypatch.setattr(writer, "_LOOK_S", 0.02)

    async def scene() -> None:
        store = SqliteStore(database, clock=clock, patience_s=0.1)
        await store.open()
        lock = os.open(f"{database}.lock", os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(store.accept(1, [message()]), 10)
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert await asyncio.wait_for(store.accept(1, [message()]), 10) == Accepted()
        assert (await store.facts()).accepted == 1
        os.close(lock)
        await store.close()

    asyncio.run(scene())


def test_a_transaction_that_takes_longer_than_anyone_waits(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush that hangs: who is in it is told its end and nothing before; it might be written."""
    monkeypatch.setattr(writer, "_LOOK_S", 0.02)
    go_on = threading.Event()

    def hangs(_: Any) -> str:
        assert go_on.wait(20)
        return "written"

    async def scene() -> None:
        looked = asyncio.Event()
        look, until = writer.Writer._look, clock.monotonic() + 0.3

        def looking(self: writer.Writer) -> None:
            look(self)
            if clock.monotonic() > until:
                looked.set()

        monkeypatch.setattr(writer.Writer, "_look", looking)
        store = SqliteStore(database, clock=clock, patience_s=0.1)
        await store.open()
        assert store._writer is not None
        written = store._writer.do(Single(hangs))
        await asyncio.wait_for(looked.wait(), 20)
        assert not written.done()
        go_on.set()
        assert await asyncio.wait_for(written, 20) == "written"
        await store.close()

    asyncio.run(scene())


def test_more_callers_than_may_wait(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_MOST_PENDING", 10)

    async def scene() -> None:
        store = SqliteStore(database, clock=clock)
        await store.open()
        answers = await asyncio.gather(
            *(store.accept(1, [message()]) for _ in range(30)), return_exceptions=True
        )
        assert answers.count(Accepted()) == 10
        assert sum(isinstance(a, StoreUnavailable) for a in answers) == 20
        assert (await store.facts()).accepted == 10
        await store.close()

    asyncio.run(scene())


def test_a_verb_that_breaks_does_not_break_its_neighbours(database: Path) -> None:
    def breaks(_: Any) -> None:
        raise RuntimeError("a bug")

    async def scene() -> None:
        store = SqliteStore(database, clock=clock)
        await store.open()
        assert store._writer is not None
        broken = store._writer.do(Single(breaks))
        beside = [asyncio.ensure_future(store.accept(1, [message()])) for _ in range(5)]
        with pytest.raises(RuntimeError, match="a bug"):
            await broken
        assert await asyncio.gather(*beside) == [Accepted()] * 5
        await store.close()

    asyncio.run(scene())


def test_an_order_of_magnitude_more_rows_than_one_statement_holds(database: Path) -> None:
    async def scene() -> None:
        store = SqliteStore(database, clock=clock)
        await store.open()
        sent = message(*(f"x{i}@r.test" for i in range(1000)))
        await store.accept(1, [sent])
        owner = b"o" * 16
        (taken,) = await store.claim(owner, limit=5_000, lease_ms=9_000)
        assert len(taken.claims) == 1000
        named = [(c.message, c.n, c.term) for c in taken.claims]
        assert await store.extend(owner, named, lease_ms=99_000) == [True] * 1000
        assert await store.resign(owner, named) == [True] * 1000
        await store.close()

    asyncio.run(scene())


def test_a_loop_that_ends_without_closing(database: Path) -> None:
    """The threads end with the process; nothing hangs."""

    async def scene() -> None:
        store = SqliteStore(database, clock=clock)
        await store.open()
        assert await store.accept(1, [message()]) == Accepted()
        waiting = asyncio.ensure_future(store.accept(1, [message()]))
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(scene())
