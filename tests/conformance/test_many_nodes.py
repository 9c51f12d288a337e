"""Nodes that share a store: who is there, who leads, who takes over what another one has left."""

import asyncio
import contextlib
import fcntl
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from everpost import telemetry
from everpost.dispatch.dots import DotLog, Step
from everpost.ids import Id, text
from everpost.model.states import InDoubtPolicy, State
from everpost.recovery.company import LEADER, Company
from everpost.recovery.leading import Leading
from everpost.recovery.presence import Fellow, Presence, RollCall
from everpost.recovery.rescuer import Rescuer
from everpost.store.cluster import NodeRow
from everpost.store.interface import Claim, Store, WorkerRow
from tests.conformance.engines import Engine
from tests.conformance.making import HandClock, claims, delivered, make_id, message

GONE_S = 10.0
LEASE_MS = 60_000
LEAD_S = 8.0


class Member:
    """One node with a data directory of its own: upkeep, and dispatchers as the test wants."""

    def __init__(self, name: str, folder: Path, store: Store, clock: HandClock) -> None:
        folder.mkdir(exist_ok=True)
        self.name = name
        self.folder = folder
        self.store = store
        self.clock = clock
        self.roll = RollCall(folder, Fellow(("upkeep",), clock.now()))
        self.presence = Presence(
            store=store,
            node=NodeRow(name, "here", "1.0", "", (), clock.now()),
            roll=self.roll,
            clock=clock,
            heartbeat_s=2.0,
            gone_s=GONE_S,
        )
        self.rescuer = Rescuer(
            store=store,
            folder=folder,
            boot="boot",
            clock=clock,
            rng=random.Random(1),
            node=name,
            grace_ms=int(GONE_S * 1000),
        )
        self.leading = Leading("upkeep", owner=make_id(), store=store, clock=clock, lease_s=LEAD_S)
        self.company = Company(
            name=name,
            store=store,
            leading=self.leading,
            presence=self.presence,
            rescuer=self.rescuer,
            clock=clock,
            gone_s=GONE_S,
        )

    async def dispatcher(self, *, boot: str = "boot") -> tuple[WorkerRow, DotLog]:
        id_ = make_id()
        now = self.clock.now()
        worker = WorkerRow(
            id_, "dispatch", 7, boot, f"dots-{text(id_)}.log", now, now, node=self.name
        )
        dots = DotLog(self.folder / worker.dots)
        await self.store.register(worker)
        return worker, dots

    async def upkeep(self) -> int:
        """A round of it, and a sign of life."""
        await self.presence.appear()
        moved = await self.rescuer.lost_workers()
        moved += await self.rescuer.ended_terms(stretch_ms=self.company.stretch_ms())
        if await self.company.leads():
            moved += await self.company.look_after()
        return moved


@contextlib.asynccontextmanager
async def _nodes(engine: Engine, tmp_path: Path, *names: str) -> AsyncIterator[list[Member]]:
    async with contextlib.AsyncExitStack() as stack:
        members = []
        for name in names:
            store = await stack.enter_async_context(engine.opened())
            member = Member(name, tmp_path / name, store, engine.clock)
            stack.callback(member.roll.close)
            members.append(member)
        yield members


async def _beat(members: list[Member], engine: Engine, *, seconds: float) -> int:
    """So much time passes, with everybody's upkeep every two seconds; claims taken over."""
    moved = 0
    for _ in range(int(seconds / 2)):
        engine.clock.pass_(2_000)
        for member in members:
            moved += await member.upkeep()
    return moved


async def _claimed(member: Member, owner: Id, *, lease_ms: int = LEASE_MS) -> Claim:
    new = message(in_doubt=InDoubtPolicy.HOLD)
    await member.store.accept(1, [new])
    taken = claims(await member.store.claim(owner, limit=10, lease_ms=lease_ms))
    (claim,) = (each for each in taken if each.message == new.id)
    return claim


async def _state(store: Store, claim: Claim) -> State:
    row = await store.message(1, claim.message)
    assert row is not None
    return row.recipients[0].state


async def _dispatchers(store: Store) -> set[Id]:
    return {worker.id for worker in await store.workers()}


# --- claims of others -----------------------------------------------------------------------------


def test_a_node_dies_and_its_claims_are_in_doubt_when_their_terms_end(
    engine: Engine, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with _nodes(engine, tmp_path, "one", "two") as (one, two):
            await _beat([one, two], engine, seconds=2)
            worker, dots = await two.dispatcher()
            claim = await _claimed(two, worker.id)
            dots.mark(Step.DOT, [(claim.message, claim.n, claim.term)])
            assert await _beat([one], engine, seconds=LEASE_MS / 1000 - 4) == 0
            assert await _state(one.store, claim) is State.CLAIMED
            assert worker.id in await _dispatchers(one.store)
            assert await _beat([one], engine, seconds=6) == 1
            assert await _state(one.store, claim) is State.HELD  # in doubt, and its policy is hold
            assert worker.id not in await _dispatchers(one.store)
            dots.close(remove=True)

    asyncio.run(scene())


def test_a_node_that_lives_takes_its_dead_process_over_itself(
    engine: Engine, tmp_path: Path
) -> None:
    """It has the dot log: what never left goes back to the queue at once."""

    async def scene() -> None:
        async with _nodes(engine, tmp_path, "one", "two") as (one, two):
            await _beat([one, two], engine, seconds=20)
            worker, dots = await two.dispatcher()
            claim = await _claimed(two, worker.id)
            dots.close(remove=False)  # as the kernel does when it dies
            assert await one.upkeep() == 0
            assert await two.upkeep() == 1
            assert await _state(one.store, claim) is State.QUEUED

    asyncio.run(scene())


def test_a_node_comes_back_after_others_took_its_claims(engine: Engine, tmp_path: Path) -> None:
    """It was paused (F35): what it writes with the old term is refused (I13)."""

    async def scene() -> None:
        async with _nodes(engine, tmp_path, "one", "two") as (one, two):
            await _beat([one, two], engine, seconds=2)
            worker, dots = await two.dispatcher()
            claim = await _claimed(two, worker.id, lease_ms=20_000)
            assert await _beat([one], engine, seconds=24) == 1
            assert await two.store.settle(worker.id, [delivered(claim)]) == [False]
            await _beat([one, two], engine, seconds=4)
            assert [node.name for node in await one.store.nodes()] == ["one", "two"]
            assert await _state(one.store, claim) is State.HELD
            dots.close(remove=True)

    asyncio.run(scene())


def test_a_living_node_is_left_time_to_take_back_what_its_process_let_end(
    engine: Engine, tmp_path: Path
) -> None:
    """A process of its own hangs: its node reads the log at once, others wait for that."""

    async def scene() -> None:
        async with _nodes(engine, tmp_path, "one", "two") as (one, two):
            await _beat([one, two], engine, seconds=20)
            worker, dots = await two.dispatcher()
            claim = await _claimed(two, worker.id, lease_ms=2_000)
            engine.clock.pass_(8_000)
            assert await one.upkeep() == 0
            assert await two.upkeep() == 1
            assert await _state(one.store, claim) is State.QUEUED  # nothing of it was begun
            later = await _claimed(two, worker.id, lease_ms=2_000)
            for _ in range(8):  # it lives, but nobody does its upkeep
                engine.clock.pass_(2_000)
                await two.presence.appear()
                await one.upkeep()
            assert await _state(one.store, later) is State.HELD
            dots.close(remove=True)

    asyncio.run(scene())


def test_a_worker_of_no_known_node_is_taken_over_when_its_term_ends(
    engine: Engine, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with _nodes(engine, tmp_path, "one") as (one,):
            await _beat([one], engine, seconds=20)
            stray = WorkerRow(make_id(), "dispatch", 9, "boot", "dots-x.log", 0, 0)
            await one.store.register(stray)
            claim = await _claimed(one, stray.id, lease_ms=20_000)
            assert await _beat([one], engine, seconds=16) == 0
            assert await _beat([one], engine, seconds=8) == 1
            assert await _state(one.store, claim) is State.HELD
            assert await _dispatchers(one.store) == set()

    asyncio.run(scene())


def test_a_dot_log_of_our_own_is_lost(engine: Engine, tmp_path: Path) -> None:
    """The container came back with another disk: its claims are left to their terms."""

    async def scene() -> None:
        async with _nodes(engine, tmp_path, "one") as (one,):
            await one.upkeep()
            worker, dots = await one.dispatcher()
            claim = await _claimed(one, worker.id, lease_ms=20_000)
            dots.close(remove=True)
            assert await _beat([one], engine, seconds=18) == 0
            assert worker.id in await _dispatchers(one.store)
            assert await _beat([one], engine, seconds=4) == 1
            assert await _state(one.store, claim) is State.HELD
            assert await _dispatchers(one.store) == set()

    asyncio.run(scene())


def test_the_database_was_away_for_longer_than_nodes_may_be_silent(
    engine: Engine, tmp_path: Path
) -> None:
    """Nobody could write signs of life, so nobody is gone; and who had an answer of a mail server
    in hand meanwhile gets to write it down."""

    async def scene() -> None:
        async with _nodes(engine, tmp_path, "one", "two") as (one, two):
            await _beat([one, two], engine, seconds=20)
            worker, dots = await two.dispatcher()
            claim = await _claimed(two, worker.id, lease_ms=20_000)
            engine.clock.pass_(120_000)
            assert await one.upkeep() + await two.upkeep() == 0
            assert await two.store.settle(worker.id, [delivered(claim)]) == [True]
            assert await _beat([one, two], engine, seconds=20) == 0
            dots.close(remove=True)

    asyncio.run(scene())


# --- the lead -------------------------------------------------------------------------------------


def test_the_leader_dies_and_another_leads_with_a_later_term(
    engine: Engine, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with _nodes(engine, tmp_path, "one", "two") as (one, two):
            await _beat([one, two], engine, seconds=4)
            assert (one.leading.leads, two.leading.leads) == (True, False)
            first = one.leading.term
            assert first is not None
            await _beat([two], engine, seconds=LEAD_S + 2)
            assert two.leading.leads
            assert two.leading.term == first + 1
            _, notes = await one.store.noted((LEADER,))
            assert notes[-1].data == {"node": "two", "term": first + 1}

    asyncio.run(scene())


def test_a_leader_is_paused_and_goes_on_beside_the_next_one(engine: Engine, tmp_path: Path) -> None:
    """F89: its trust is over without asking, and what it does all the same is done once."""

    async def scene() -> None:
        async with _nodes(engine, tmp_path, "one", "two", "three") as (one, two, three):
            await _beat([one, two, three], engine, seconds=20)
            worker, dots = await three.dispatcher()
            claim = await _claimed(three, worker.id, lease_ms=20_000)
            await _beat([two], engine, seconds=16)  # one is paused, three is dead
            assert two.leading.leads
            assert not one.leading.leads
            engine.clock.pass_(5_000)
            await two.presence.appear()
            moved = await asyncio.gather(one.company.look_after(), two.company.look_after())
            assert sum(moved) == 1
            events = await one.store.events(1, claim.message)
            assert [event.type for event in events].count("in_doubt") == 1
            assert not await one.company.leads()
            dots.close(remove=True)

    asyncio.run(scene())


def test_a_leader_that_ends_hands_the_lead_on_at_once(engine: Engine, tmp_path: Path) -> None:
    async def scene() -> None:
        async with _nodes(engine, tmp_path, "one", "two") as (one, two):
            await _beat([one, two], engine, seconds=4)
            await one.company.step_down()
            engine.clock.pass_(2_000)
            assert await two.company.leads()

    asyncio.run(scene())


def test_a_node_gone_for_a_day_is_forgotten(engine: Engine, tmp_path: Path) -> None:
    async def scene() -> None:
        async with _nodes(engine, tmp_path, "one", "two") as (one, two):
            await _beat([one, two], engine, seconds=20)
            await _beat([one], engine, seconds=20)
            assert telemetry.alarm("node_gone").raised
            assert len(await one.store.nodes()) == 2
            engine.clock.pass_(86_400_000)
            await _beat([one], engine, seconds=20)
            assert [node.name for node in await one.store.nodes()] == ["one"]
            assert not telemetry.alarm("node_gone").raised

    asyncio.run(scene())


# --- a node's processes ---------------------------------------------------------------------------


def test_a_node_is_there_until_its_last_process_leaves(engine: Engine, tmp_path: Path) -> None:
    async def scene() -> None:
        async with _nodes(engine, tmp_path, "one") as (one,):
            sender = tmp_path / "one" / "here-1.json"
            with sender.open("wb") as file:
                file.write(b'{"roles":["dispatch"],"started_at":5,"address":"http://one:1"}')
                file.flush()
                fcntl.flock(file, fcntl.LOCK_EX)
                await one.presence.appear()
                (row,) = await one.store.nodes()
                assert (row.roles, row.started_at) == (("dispatch", "upkeep"), 5)
                assert row.address == "http://one:1"
            await one.presence.appear()
            (row,) = await one.store.nodes()
            assert row.roles == ("upkeep",)
            assert not sender.exists()
            await one.presence.leave()
            assert list(await one.store.nodes()) == []

    asyncio.run(scene())


def test_a_node_that_is_told_to_speak_seldom_speaks_before_it_counts_as_gone(
    engine: Engine, tmp_path: Path
) -> None:
    """Else nobody could be told from one that is gone, and what the dead have left stayed there."""

    async def scene() -> None:
        async with engine.opened() as store:
            member = Member("one", tmp_path / "one", store, engine.clock)
            presence = Presence(
                store=store,
                node=NodeRow("one", "here", "1.0", "", (), engine.clock.now()),
                roll=member.roll,
                clock=engine.clock,
                heartbeat_s=3600.0,
                gone_s=0.3,
            )
            running = asyncio.ensure_future(presence.run())
            async with asyncio.timeout(20):
                for _ in range(3):
                    seen = engine.clock.now()
                    engine.clock.pass_(50)
                    while [n.seen_at for n in await store.nodes()] != [seen + 50]:
                        await asyncio.sleep(0)
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            member.roll.close()

    asyncio.run(scene())


def test_a_neighbour_clears_a_newcomers_file_away_before_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleared: list[int] = []

    def flock(fd: int, how: int) -> None:
        if not cleared:
            cleared.append(fd)
            for path in tmp_path.glob("here-*.json"):
                path.unlink()
        lock(fd, how)

    lock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", flock)
    roll = RollCall(tmp_path, Fellow(("upkeep",), 1))
    monkeypatch.undo()
    assert cleared
    (there,) = tmp_path.glob("here-*.json")
    with there.open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    roll.close()


@pytest.mark.parametrize("names", [("one", "one"), ("one", "two")], ids=" and ".join)
def test_two_nodes_have_one_name(engine: Engine, tmp_path: Path, names: tuple[str, str]) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            members = []
            for number, name in enumerate(names):
                engine.clock.pass_(1_000)
                members.append(Member(name, tmp_path / str(number), store, engine.clock))
            for _ in range(4):
                for member in members:
                    await member.presence.appear()
            assert telemetry.alarm("node_name_taken").raised is (names[0] == names[1])
            for member in members:
                member.roll.close()
            telemetry.alarm("node_name_taken").clear()

    asyncio.run(scene())
