"""The patrol goes on where it was, gives way, raises its alarm and clears it."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from everpost import telemetry
from everpost.ids import Id
from everpost.ledger import Patrol
from everpost.ledger.patrol import LEAD
from everpost.store.auditing import AuditPage
from everpost.store.interface import StoreCorrupt, StoreUnavailable
from everpost.store.sharing import Note
from everpost.store.sqlite import SqliteStore
from tests.conformance.making import HandClock, make_id, message


class Clock(HandClock):
    """Durations move by hand, too."""

    def monotonic(self) -> float:
        return self.time / 1000


class Watched(SqliteStore):
    """Notes which pages are asked for; `fails` is raised once."""

    def __init__(self, path: Path, clock: HandClock) -> None:
        super().__init__(path, clock=clock)
        self.asked: list[Id] = []
        self.fails: Exception | None = None

    async def audit_page(self, after: Id, *, limit: int, upto: Id | None = None) -> AuditPage:
        self.asked.append(after)
        if self.fails is not None:
            fails, self.fails = self.fails, None
            raise fails
        return await super().audit_page(after, limit=limit, upto=upto)


@pytest.fixture(autouse=True)
def no_alarm() -> Iterator[None]:
    telemetry.alarm("ledger").clear()
    yield
    telemetry.alarm("ledger").clear()


def run(path: Path, scene: Callable[[Watched, Clock], Coroutine[Any, Any, None]]) -> None:
    async def go() -> None:
        clock = Clock()
        store = Watched(path / "store.db", clock)
        await store.open()
        try:
            await scene(store, clock)
        finally:
            await store.close()

    asyncio.run(go())


def patrol(store: Watched, clock: HandClock, **options: Any) -> Patrol:
    """Two messages a slice."""
    return Patrol(owner=make_id(), store=store, clock=clock, rate=8, every_s=60, **options)


async def fill(store: Watched, n: int) -> list[Id]:
    sent = [message() for _ in range(n)]
    await store.accept(1, sent)
    return [one.id for one in sent]


def damage(path: Path, sql: str, *values: Any) -> None:
    db = apsw.Connection(str(path / "store.db"))
    db.set_busy_timeout(5_000)
    db.execute(sql, values)
    db.close()


async def full_pass(one: Patrol) -> int:
    """Slices until one says that there is nothing more to do."""
    steps = 0
    while await one.step():
        steps += 1
    return steps


def stands() -> bool:
    return telemetry.alarm("ledger").raised


def test_a_clean_store_raises_nothing(tmp_path: Path) -> None:
    async def scene(store: Watched, clock: Clock) -> None:
        ids = await fill(store, 5)
        one = patrol(store, clock)
        assert await full_pass(one) >= 3
        assert not stands()
        assert store.asked == [b"", ids[1], ids[3]]
        # a pass begins no sooner than `every_s` after the one before began
        assert not await one.step()
        clock.pass_(59_000)
        assert not await one.step()
        assert len(store.asked) == 3
        clock.pass_(1_000)
        assert await one.step()
        assert len(store.asked) == 4

    run(tmp_path, scene)


def test_a_row_lost_behind_its_back_raises_an_alarm_until_a_clean_pass(tmp_path: Path) -> None:
    async def scene(store: Watched, clock: Clock) -> None:
        ids = await fill(store, 5)
        one = patrol(store, clock)
        await asyncio.to_thread(
            damage, tmp_path, "UPDATE recipients SET settled_at = 1 WHERE message = ?", ids[0]
        )
        assert await one.step()
        assert stands()  # at once, and until a whole pass finds nothing
        await full_pass(one)
        await asyncio.to_thread(damage, tmp_path, "UPDATE recipients SET settled_at = NULL")
        clock.pass_(60_000)
        assert await one.step()
        assert stands()
        await full_pass(one)
        assert not stands()

    run(tmp_path, scene)


def test_a_tally_that_is_off(tmp_path: Path) -> None:
    async def scene(store: Watched, clock: Clock) -> None:
        await fill(store, 1)
        await asyncio.to_thread(damage, tmp_path, "UPDATE tallies SET n = n + 1")
        one = patrol(store, clock)
        await full_pass(one)
        assert stands()

    run(tmp_path, scene)


def test_a_restart_in_the_middle_of_a_pass_goes_on_where_it_was(tmp_path: Path) -> None:
    async def scene(store: Watched, clock: Clock) -> None:
        ids = await fill(store, 8)
        await asyncio.to_thread(
            damage, tmp_path, "UPDATE recipients SET settled_at = 1 WHERE message = ?", ids[0]
        )
        first = patrol(store, clock)
        assert await first.step()
        clock.pass_(31_000)  # now and then it writes down where it is
        assert await first.step()
        telemetry.alarm("ledger").clear()  # another process
        clock.pass_(60_000)  # the first one is gone, and so is its lease
        second = patrol(store, clock)
        store.asked.clear()
        assert await second.step()
        assert store.asked == [ids[3]]
        assert stands()

    run(tmp_path, scene)


def test_only_one_process_patrols(tmp_path: Path) -> None:
    async def scene(store: Watched, clock: Clock) -> None:
        await fill(store, 8)
        leader, other = patrol(store, clock), patrol(store, clock)
        assert await leader.step()
        assert not await other.step()
        assert len(store.asked) == 1
        clock.pass_(31_000)  # its lease has ended: it was paused
        assert await other.step()
        assert not await leader.step()

    run(tmp_path, scene)


def test_a_note_that_nobody_can_read(tmp_path: Path) -> None:
    async def scene(store: Watched, clock: Clock) -> None:
        await fill(store, 1)
        await store.note([Note(LEAD, "pass", {"after": "no hex"}, clock.now() + 1_000)])
        assert await patrol(store, clock).step()
        assert store.asked == [b""]

    run(tmp_path, scene)


def test_pages_that_cannot_be_read(tmp_path: Path) -> None:
    async def scene(store: Watched, clock: Clock) -> None:
        await fill(store, 1)
        one = patrol(store, clock)
        store.fails = StoreCorrupt("torn")
        assert not await one.step()
        assert stands()
        clock.pass_(60_000)
        await full_pass(one)
        assert not stands()

    run(tmp_path, scene)


def test_it_gives_way_to_a_busy_machine_and_survives_a_store_that_is_away(tmp_path: Path) -> None:
    slept: list[float] = []
    enough = asyncio.Event()

    async def scene(store: Watched, clock: Clock) -> None:
        ids = await fill(store, 100)

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            clock.pass_(int(seconds * 1000))
            if len(slept) == 3:
                clock.pass_(200)  # the loop was busy with something else
            if len(slept) == 6:
                store.fails = StoreUnavailable("no disk")
            if len(slept) == 9:
                enough.set()
                await asyncio.Event().wait()

        one = asyncio.create_task(patrol(store, clock, sleep=sleep).run())
        async with asyncio.timeout(10):
            await enough.wait()
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
        assert slept == [0.25, 0.25, 0.25, 2.5, 0.25, 0.25, 10.0, 0.25, 0.25]
        # it has said where it is, and given the lease back
        _, notes = await store.noted([LEAD])
        assert notes[0].data["after"] == ids[13].hex()
        assert await store.lead(LEAD, make_id(), lease_ms=1_000) is not None

    run(tmp_path, scene)
