"""Shares of limits from a real store, over a real carrier: asked for in one call when there is
mail, never when there is none, and gone when the store is."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from everpost.clock import SystemClock
from everpost.delivery import Carrier, Report, Timeouts
from everpost.delivery import lanes as delivery_lanes
from everpost.delivery import leases as delivery_leases
from everpost.dispatch import Leasing
from everpost.ids import Id, IdMaker
from everpost.model.health import CircuitState, Health
from everpost.model.outcome import Deferred, Delivered
from everpost.model.pool import Pool
from everpost.model.shares import Ask, Grant
from everpost.store.interface import StoreUnavailable
from everpost.store.sqlite import SqliteStore
from everpost.store.sqlite.connection import integer
from tests.support.carrying import Names, carrier, carry, direct, relay, run
from tests.support.tiny_smtp import ScriptedServer, Silence, serve

CLOCK = SystemClock()
IDS = IdMaker(CLOCK.now)


class CountedStore(SqliteStore):
    """Counts the calls for shares, and refuses them while it is told to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, clock=CLOCK)
        self.calls: list[Sequence[Ask]] = []
        self.refuses = False
        self.refused = asyncio.Event()

    async def share(
        self, owner: Id, asks: Sequence[Ask], *, lease_ms: int, among: int = 1
    ) -> Sequence[Grant]:
        self.calls.append(asks)
        if self.refuses:
            self.refused.set()
            raise StoreUnavailable("not now")
        return await super().share(owner, asks, lease_ms=lease_ms, among=among)

    async def seats_held(self) -> int:
        held = "SELECT coalesce(sum(amount), 0) FROM seats"
        return await self._read(lambda db: integer(db, held))


@contextlib.asynccontextmanager
async def _leased(path: Path, c: Carrier) -> AsyncIterator[CountedStore]:
    store = CountedStore(path)
    await store.open()
    granted = asyncio.Event()
    leasing = Leasing(owner=IDS(), store=store, leases=c.leases, clock=CLOCK, granted=granted.set)
    task = asyncio.create_task(leasing.run())
    try:
        yield store
        await c.close(deadline=1)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await leasing.leave()
        await store.close()


def ok(report: Report) -> bool:
    return all(isinstance(outcome, Delivered) for outcome in report.outcomes)


def test_a_first_message_waits_for_one_call_and_the_next_ones_for_none(tmp_path: Path) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(relay(far.port), relay(far.port, name="r2", messages_per_day=100))
            async with _leased(tmp_path / "s.db", c) as store:
                assert c.capacity("default") == 1
                assert ok(await carry(c))
                assert len(store.calls) == 1
                # Both relays of the pool are awake, by one call.
                assert sorted(ask.cap for ask in store.calls[0]) == [2, 2, 100]
                assert c.capacity("default") == 4
                for _ in range(8):
                    assert ok(await carry(c))
                assert len(store.calls) == 1

    run("uvloop", main())


def test_a_process_without_mail_asks_for_nothing_and_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everpost.delivery.allowance.SLICE_S", 0.1)

    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(relay(far.port), timeouts=Timeouts(idle=0.05))
            async with _leased(tmp_path / "s.db", c) as store:
                assert not store.calls
                assert ok(await carry(c))
                await far.reached.wait()  # the idle session says goodbye
                while (store.calls[-1][0].want, store.calls[-1][0].used) != (0, 0):
                    await asyncio.sleep(0)
                calls = len(store.calls)
                while c.leases.look_in() is not None:
                    await asyncio.sleep(0)
                assert len(store.calls) == calls
                assert await store.seats_held() == 0
                assert c.capacity("default") == 1

    run("uvloop", main())


def test_when_the_store_is_gone_what_is_granted_runs_out_and_mail_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everpost.delivery.allowance._TRUST_S", 0.2)
    monkeypatch.setattr("everpost.delivery.allowance.SLICE_S", 0.05)

    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(relay(far.port))
            async with _leased(tmp_path / "s.db", c) as store:
                assert ok(await carry(c))
                store.refuses = True
                await store.refused.wait()
                await far.reached.wait()  # its seats have ended, so the idle session goes
                waiting = asyncio.create_task(carry(c))
                store.refused.clear()
                await store.refused.wait()
                assert not waiting.done()
                assert far.connections == 1
                store.refuses = False
                assert ok(await waiting)
                assert far.connections == 2

    run("uvloop", main())


def test_mail_goes_to_the_others_when_one_relay_has_spent_its_day(tmp_path: Path) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as frugal, serve(ScriptedServer()) as other:
            c = carrier()
            relays = [
                relay(frugal.port, name="frugal", messages_per_day=3),
                relay(other.port, name="other"),
            ]
            c.use(relays)
            async with _leased(tmp_path / "s.db", c):
                reports = await asyncio.gather(*(carry(c) for _ in range(20)))
                assert all(map(ok, reports))
                names = [report.record.relay for report in reports]
                assert names.count("frugal") <= 3
                assert names.count("other") >= 17

    run("uvloop", main())


def test_when_every_relay_has_spent_its_day_mail_is_told_when_to_come_back(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(relay(far.port, name="frugal", messages_per_day=3))
            async with _leased(tmp_path / "s.db", c):
                reports = await asyncio.gather(*(carry(c) for _ in range(10)))
                assert sum(map(ok, reports)) == 3
                refused: list[Any] = [r.outcomes[0] for r in reports if not ok(r)]
                assert all(isinstance(outcome, Deferred) for outcome in refused)
                midnight = (CLOCK.now() // 86_400_000 + 1) * 86_400_000
                assert {outcome.until for outcome in refused} == {midnight}
                assert all(outcome.untried for outcome in refused)
                assert "frugal: has sent its 3 of this day, next at 20" in refused[0].reason
                assert c.capacity("default") > 1  # all may come, to be told so
                # A larger limit holds at once.
                c.use([relay(far.port, name="frugal", messages_per_day=5)])
                while c.capacity("default") > 2:
                    await asyncio.sleep(0)
                assert ok(await carry(c))

    run("uvloop", main())


def test_a_pool_that_was_asleep_asks_at_once_though_another_is_awake(tmp_path: Path) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier()
            one, two = relay(far.port), relay(far.port, name="r2")
            pools = [Pool(name=n, tiers=((r.id,),)) for n, r in (("default", one), ("b", two))]
            c.use([one, two], pools)
            async with _leased(tmp_path / "s.db", c) as store:
                assert ok(await carry(c))
                began = asyncio.get_running_loop().time()
                assert ok(await carry(c, pool="b"))
                assert asyncio.get_running_loop().time() - began < 0.2
                assert len(store.calls) == 2
                assert ok(await carry(c, pinned=one.id))

    run("uvloop", main())


def test_a_large_pool_asks_for_its_first_relays_though_they_are_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_leases, "_MOST_WOKEN", 1)
    monkeypatch.setattr(delivery_lanes, "_MOST_MATES", 0)

    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(relay(far.port, name="dead"), relay(far.port, name="good"))
            now = CLOCK.now()
            c.learn([Health(relay=b"dead", state=CircuitState.OPEN, since=now, until=now + 60_000)])
            async with _leased(tmp_path / "s.db", c):
                assert (await carry(c)).record.relay == "good"

    run("uvloop", main())


def test_a_line_in_a_large_pool_waits_for_relays_that_nobody_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were awake go out of service while mail waits for them."""
    monkeypatch.setattr(delivery_leases, "_MOST_WOKEN", 1)
    monkeypatch.setattr(delivery_lanes, "_MOST_MATES", 0)

    async def main() -> None:
        stuck = ScriptedServer({"RCPT": Silence()})
        async with serve(stuck), serve(ScriptedServer()) as good:
            c = carrier(relay(stuck.port, connections=1), relay(good.port, name="good"))
            async with _leased(tmp_path / "s.db", c):
                hangs = asyncio.ensure_future(carry(c))
                await stuck.silent.wait()
                waiting = asyncio.ensure_future(carry(c))
                await asyncio.sleep(0)
                soon = CLOCK.now() + 1
                c.learn(
                    [Health(relay=b"r1", state=CircuitState.OPEN, since=soon, until=soon + 9_000)]
                )
                assert (await waiting).record.relay == "good"
                assert not hangs.done()
                hangs.cancel()
                await asyncio.wait([hangs])

    run("uvloop", main())


def test_two_processes_share_one_seat_in_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everpost.delivery.allowance.SLICE_S", 0.2)

    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            first = carrier(relay(far.port, connections=1))
            second = carrier(relay(far.port, connections=1))
            async with (
                _leased(tmp_path / "s.db", first),
                _leased(tmp_path / "s.db", second),
            ):
                assert ok(await carry(first))
                assert ok(await carry(second))
                assert ok(await carry(first))
                assert far.peak == 1

    run("uvloop", main())


def test_a_site_sees_no_more_connections_than_it_may_from_two_processes(tmp_path: Path) -> None:
    records = {("there.test", "MX"): ["10 mx.there.test."], ("mx.there.test", "A"): ["127.0.0.1"]}

    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            both = [
                carrier(direct(far.port, destination_connections=2), resolver=Names(records))
                for _ in range(2)
            ]
            async with (
                _leased(tmp_path / "s.db", both[0]),
                _leased(tmp_path / "s.db", both[1]),
            ):
                carried = (
                    carry(c, "you@there.test", destination="there.test")
                    for c in both
                    for _ in range(30)
                )
                assert all(map(ok, await asyncio.gather(*carried)))
                assert far.peak == 2

    run("uvloop", main())


def test_a_relay_without_mail_can_still_be_probed(tmp_path: Path) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            r = relay(far.port)
            c = carrier(r)
            async with _leased(tmp_path / "s.db", c) as store:
                probed = await c.probe(r.id, "postmaster@sender.test")
                assert probed is not None
                assert probed.refusal is None
                assert await store.seats_held() == 2
                store.refuses = True
                other = relay(far.port, name="r2")
                c.use([other])
                assert await c.probe(other.id, "postmaster@sender.test") is None

    run("uvloop", main())


def test_a_relay_that_is_removed_takes_its_seats_along(tmp_path: Path) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(relay(far.port), relay(far.port, name="r2"))
            async with _leased(tmp_path / "s.db", c) as store:
                assert ok(await carry(c))
                c.use([relay(far.port, name="r2", connections=1)])
                assert ok(await carry(c))
                asked = {ask.name for ask in store.calls[-1]}
                c.use([relay(far.port, name="r3")])
                assert ok(await carry(c))
                assert {ask.name for ask in store.calls[-1]}.isdisjoint(asked)

    run("uvloop", main())
