"""The loop with a real store and a far end that the test plays: faults must strand nothing."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from everpost.clock import SystemClock
from everpost.delivery import Carrier, Envelope, Render, Report
from everpost.dispatch import Dispatcher, DispatchLimits, DotLog, Renderer, Step, read_dots
from everpost.ids import IdMaker
from everpost.model.message import Address, Content, NewMessage, NewRecipient, Priority
from everpost.model.outcome import AttemptRecord, Delivered, Reply
from everpost.model.pool import DEFAULT_POOL
from everpost.model.relay import Relay
from everpost.model.states import InDoubtPolicy, State
from everpost.net.resolver import Resolver
from everpost.net.wake import WakeListener
from everpost.protocol.smtp.extensions import Extensions
from everpost.store.directory import Directory
from everpost.store.interface import (
    DomainRow,
    PoolRow,
    Settlement,
    StoreCorrupt,
    StoreUnavailable,
    StreamRow,
    WorkerRow,
)
from everpost.store.sqlite import SqliteStore

CLOCK = SystemClock()
IDS = IdMaker(CLOCK.now)
RELAY = Relay(id=b"r", name="one", host="mx.test")


class PlainSealer:
    """Content in clear: sealing is not what these tests are about."""

    def unseal(self, key_id: int, sealed: bytes, *, context: bytes) -> bytes:
        return sealed


class FarEnd(Carrier):
    """Takes what it is given, or does what `act` says before or after the dot."""

    def __init__(self, act: Callable[[str], Awaitable[None]] | None = None) -> None:
        super().__init__(clock=CLOCK, helo="test", resolver=Resolver([]), rng=random.Random(1))
        self.use([RELAY])
        self.act = act
        self.taken: list[Envelope] = []

    async def carry(
        self, envelope: Envelope, render: Render, *, before_dot: Callable[[], None]
    ) -> Report:
        await render(Extensions(), RELAY)
        if self.act is not None:
            await self.act("before")
        before_dot()
        if self.act is not None:
            await self.act("after")
        self.taken.append(envelope)
        now = CLOCK.now()
        outcome = Delivered(reply=Reply(code=250, text="ok"))
        record = AttemptRecord(started_at=now, ended_at=now)
        return Report(outcomes=(outcome,) * len(envelope.recipients), record=record)


class Setting:
    """A store in a folder, one dispatcher, and what the test wants to see of them."""

    def __init__(self, folder: Path, far: FarEnd, **limits: Any) -> None:
        self.folder = folder
        self.far = far
        self.limits = DispatchLimits(poll_s=0.02, **limits)
        self.caught_up: Callable[[int], Awaitable[None]] | None = None

    async def __aenter__(self) -> "Setting":
        self.store = SqliteStore(self.folder / "s.db", clock=CLOCK)
        await self.store.open()
        self.directory = Directory(self.store)
        row = DomainRow(
            id=IDS(), project=1, name="a.test", status="verified", signing="unsigned",
            trusted=True, created_at=0,
        )  # fmt: skip
        await self.store.put(row, actor="test", action="add")
        await self.directory.refresh()
        self.worker = IDS()
        await self.store.register(
            WorkerRow(
                id=self.worker,
                role="dispatch",
                pid=1,
                boot="b",
                dots="d.log",
                started_at=0,
                seen_at=0,
            )
        )
        self.threads = ThreadPoolExecutor(1)
        self.dots = DotLog(self.folder / "d.log")
        self.wake = WakeListener(self.folder, "dispatch", "t")
        self.dispatcher = Dispatcher(
            owner=self.worker,
            store=self.store,
            directory=self.directory,
            carrier=self.far,
            renderer=Renderer(
                sealer=PlainSealer(),
                directory=self.directory,
                contents=self.store.content,
                parts=self.store.parts,
                threads=self.threads,
                clock=CLOCK,
            ),
            dots=self.dots,
            wake=self.wake,
            clock=CLOCK,
            ids=IDS,
            rng=random.Random(1),
            limits=self.limits,
            catch_up=self._catch_up,
            routes=tuple,
        )
        self.run = asyncio.create_task(self.dispatcher.run())
        return self

    async def _catch_up(self, revision: int) -> None:
        if self.caught_up is not None:
            await self.caught_up(revision)
        await self.directory.refresh()

    async def __aexit__(self, *_: object) -> None:
        await self.dispatcher.stop(deadline_s=5)
        self.run.cancel()
        await asyncio.gather(self.run, return_exceptions=True)
        await self.far.close(deadline=1)
        self.wake.close()
        self.dots.close(remove=False)
        self.threads.shutdown()
        await self.store.close()

    async def accept(
        self,
        count: int = 1,
        *,
        lifetime_ms: int = 10**9,
        stream: str = "transactional",
        only: bytes | None = None,
    ) -> None:
        now = CLOCK.now()
        for _ in range(count):
            id_ = IDS()
            content = Content(
                sender=Address("s@a.test"), to=(Address("b@c.test"),), subject="x",
                message_id="m@a.test", date=0, boundary="b", text="y\n",
            )  # fmt: skip
            message = NewMessage(
                id=id_, project=1, stream=stream, priority=Priority.TRANSACTIONAL,
                sealed=msgspec.msgpack.encode(content), key_id=1, size=1, message_id="m@a.test",
                sender="s@a.test", subject="x", to=("b@c.test",),
                recipients=(NewRecipient("b@c.test", "c.test"),), not_before=now,
                expires_at=now + lifetime_ms, in_doubt=InDoubtPolicy.RESEND, return_token=b"t",
                only=only,
            )  # fmt: skip
            await self.store.accept(1, [message])
        self.wake.set()

    async def until(self, state: State, count: int) -> None:
        async with asyncio.timeout(20):
            while (await self.store.facts()).states.get(state.value, 0) < count:
                await asyncio.sleep(0)

    async def until_empty_handed(self) -> None:
        """The store knows an outcome a moment before the dispatcher hears of it."""
        async with asyncio.timeout(20):
            while self.dispatcher.in_hand:
                await asyncio.sleep(0)


def test_a_store_that_cannot_write_for_a_while_loses_outcomes(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Setting(tmp_path, FarEnd()) as setting:
            settle, refusals = setting.store.settle, iter([True] * 5)

            async def sometimes(owner: bytes, rows: Sequence[Settlement]) -> Sequence[bool]:
                if next(refusals, False):
                    raise StoreUnavailable("disk full")
                return await settle(owner, rows)

            setting.store.settle = sometimes  # type: ignore[method-assign,assignment]
            await setting.accept(10)
            await setting.until(State.DELIVERED, 10)
            assert len(setting.far.taken) == 10
            await setting.until_empty_handed()

    asyncio.run(scene())


def test_a_fault_of_the_store_keeps_claims_in_hand_for_ever(tmp_path: Path) -> None:
    """What cannot be settled is let go, and its dot stays on record for recovery."""

    async def scene() -> None:
        async with Setting(tmp_path, FarEnd()) as setting:

            async def broken(owner: bytes, rows: Sequence[Settlement]) -> Sequence[bool]:
                raise StoreCorrupt("no")

            setting.store.settle = broken  # type: ignore[method-assign,assignment]
            await setting.accept(3)
            await setting.until(State.CLAIMED, 3)
            async with asyncio.timeout(10):
                while setting.dispatcher.in_hand or len(setting.far.taken) < 3:
                    await asyncio.sleep(0)
            steps = list(read_dots(tmp_path / "d.log").values())
            assert steps == [Step.DOT] * 3

    asyncio.run(scene())


def test_one_outcome_that_cannot_be_written_strands_its_neighbours(tmp_path: Path) -> None:
    """Outcomes of one turn of the loop are written together, and apart when that fails."""

    async def scene() -> None:
        async with Setting(tmp_path, FarEnd()) as setting:
            settle = setting.store.settle
            guilty: list[bytes] = []
            together: list[int] = []

            async def broken(owner: bytes, rows: Sequence[Settlement]) -> Sequence[bool]:
                together.append(len(rows))
                guilty[:] = guilty or [rows[0].message]
                if any(row.message == guilty[0] for row in rows):
                    raise StoreCorrupt("no")
                return await settle(owner, rows)

            setting.store.settle = broken  # type: ignore[method-assign,assignment]
            await setting.accept(8)
            await setting.until(State.DELIVERED, 7)
            await setting.until_empty_handed()
            assert max(together) > 1
            assert (guilty[0], 1, 1) in read_dots(tmp_path / "d.log")

    asyncio.run(scene())


def test_settings_that_cannot_be_read_strand_what_was_claimed(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Setting(tmp_path, FarEnd()) as setting:
            failures = iter([True] * 3)

            async def at_times(_: int) -> None:
                if next(failures, False):
                    raise StoreUnavailable("busy")

            setting.caught_up = at_times
            await setting.accept(5)
            await setting.until(State.DELIVERED, 5)

    asyncio.run(scene())


def test_an_own_fault_before_the_dot_is_tried_again_and_after_it_in_doubt(tmp_path: Path) -> None:
    async def scene() -> None:
        for moment, event in (("before", "deferred"), ("after", "in_doubt")):
            folder = tmp_path / moment
            folder.mkdir()

            async def act(now: str, moment: str = moment) -> None:
                if now == moment:
                    raise ZeroDivisionError

            async with Setting(folder, FarEnd(act)) as setting:
                await setting.accept()
                await setting.until(State.QUEUED, 1)
                rows, _ = await setting.store.messages(1, limit=1)
                async with asyncio.timeout(10):
                    while not await setting.store.attempts(1, rows[0].id):
                        await asyncio.sleep(0)
                types = [e.type for e in await setting.store.events(1, rows[0].id)]
                assert types == ["accepted", event]
                await setting.until_empty_handed()

    asyncio.run(scene())


def test_a_process_paused_beyond_its_lease_sends_all_the_same(tmp_path: Path) -> None:
    """F35: when it wakes up just before the dot, the claim is another's: nothing leaves."""

    async def scene() -> None:
        async def pause(now: str) -> None:
            if now == "before":
                hands = setting.dispatcher._hands
                for claim in hands.claims():
                    hands.hold(msgspec.structs.replace(claim, deadline=CLOCK.steady()))

        setting = Setting(tmp_path, FarEnd(pause))
        async with setting:
            await setting.accept()
            await setting.until(State.CLAIMED, 1)
            async with asyncio.timeout(10):
                while setting.dispatcher.in_hand:
                    await asyncio.sleep(0)
            assert setting.far.taken == []

    asyncio.run(scene())


class TwoPools(FarEnd):
    """Room in every pool but those of `full`."""

    def __init__(self) -> None:
        super().__init__()
        self.full: set[str] = set()

    def ready(self, pool: str) -> bool:
        return True

    def capacity(self, pool: str) -> int:
        return 0 if pool in self.full else 10


SLOW = PoolRow(id=b"s" * 16, name="slow", settings={"tiers": []}, created_at=0)


def _reports(pool: str | None) -> StreamRow:
    return StreamRow(
        project=1, name="reports", priority="transactional", in_doubt=InDoubtPolicy.RESEND,
        lifetime_ms=10**9, retry_first_ms=1_000, retry_cap_ms=1_000, pool=pool,
    )  # fmt: skip


def test_a_pool_without_room_holds_up_the_others_and_keeps_its_mail_for_ever(
    tmp_path: Path,
) -> None:
    """What waits in hand for it is assigned again when settings change."""

    async def scene() -> None:
        far = TwoPools()
        far.full = {"slow"}
        async with Setting(tmp_path, far) as setting:
            await setting.store.put(SLOW, actor="test", action="add")
            await setting.store.put(_reports("slow"), actor="test", action="add")
            await setting.accept(8, stream="reports")
            await setting.until(State.CLAIMED, 8)
            await setting.accept(30)
            await setting.until(State.DELIVERED, 30)
            assert {envelope.pool for envelope in far.taken} == {DEFAULT_POOL}
            await setting.store.put(_reports(None), actor="test", action="change")
            await setting.directory.refresh()
            setting.wake.set()
            await setting.until(State.DELIVERED, 38)
            assert {envelope.pool for envelope in far.taken} == {DEFAULT_POOL}

    asyncio.run(scene())


def test_mail_leaves_by_another_pool_than_its_streams(tmp_path: Path) -> None:
    async def scene() -> None:
        far = TwoPools()
        async with Setting(tmp_path, far) as setting:
            await setting.store.put(SLOW, actor="test", action="add")
            await setting.store.put(_reports("slow"), actor="test", action="add")
            await setting.accept(3, stream="reports")
            await setting.accept(3)
            await setting.until(State.DELIVERED, 6)
            assert sorted(e.pool for e in far.taken) == [DEFAULT_POOL] * 3 + ["slow"] * 3

    asyncio.run(scene())


def test_a_message_for_one_relay_waits_for_a_pool(tmp_path: Path) -> None:
    async def scene() -> None:
        far = TwoPools()
        far.full = {DEFAULT_POOL}
        async with Setting(tmp_path, far) as setting:
            await setting.accept(only=b"r" * 16)
            await setting.until(State.DELIVERED, 1)
            assert [envelope.only for envelope in far.taken] == [b"r" * 16]

    asyncio.run(scene())
