"""The database comes back: what waits is handed over once, by both who have it, and again after a
failover."""

import asyncio
from pathlib import Path

import pytest

from everpost import telemetry
from everpost.ids import Id
from everpost.journal.drain import pause
from everpost.journal.entry import encode
from everpost.model.message import NewMessage
from everpost.store.interface import IdempotencyKey, StoreUnavailable
from tests.conformance.making import START, message
from tests.support.journalling import Desk, desk, entry, key


async def _journalled(node: Desk, count: int = 1) -> list[Id]:
    mode, node.switch.mode = node.switch.mode, "down"
    sent = [message() for _ in range(count)]
    for each in sent:
        await node.accepting.accept(1, [each])
    node.switch.mode = mode
    return [each.id for each in sent]


def test_a_database_that_is_back_gets_everything_in_order(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            ids = await _journalled(node, 150)
            await node.drain.round()
            rows, _ = await node.store.messages(1, limit=100)
            assert [row.id for row in rows] == sorted(ids, reverse=True)[:100]
            size = await node.file.size()
            assert (size.pending, size.entries) == (0, 150)
            assert not node.reach.away

    asyncio.run(scene())


def test_a_database_that_is_away_is_tried_with_one(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            await _journalled(node, 10)
            node.switch.mode = "down"
            await node.drain.round()
            assert node.switch.adopted == 1
            assert node.journal.waiting == 10

    asyncio.run(scene())


def test_a_failover_takes_back_what_was_handed_over(database: Path, tmp_path: Path) -> None:
    """The new primary has not got it, and is on another timeline."""

    async def before() -> Id:
        async with desk(database, journal=tmp_path / "journal.db") as node:
            (id_,) = await _journalled(node)
            await node.drain.round()
            assert await node.in_store() == [id_]
            return id_

    async def after(id_: Id) -> None:
        async with desk(database, journal=tmp_path / "journal.db") as node:
            await node.drain.round()
            assert await node.in_store() == []
            node.switch.timeline = 2
            await node.drain.round()
            assert await node.in_store() == [id_]
            adopted = node.switch.adopted
            await node.drain.round()
            assert node.switch.adopted == adopted

    id_ = asyncio.run(before())
    for tail in ("", "-wal", "-shm"):
        database.with_name(database.name + tail).unlink(missing_ok=True)
    asyncio.run(after(id_))


def test_what_was_handed_over_goes_after_ten_minutes(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            await _journalled(node, 3)
            await node.drain.round()
            node.clock.pass_(599_000)
            await node.drain.round()
            assert (await node.file.size()).entries == 3
            node.clock.pass_(2_000)
            await node.drain.round()
            assert (await node.file.size()).entries == 0

    asyncio.run(scene())


def test_what_waits_for_long_is_told(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            await _journalled(node)
            node.switch.mode = "down"
            await node.drain.round()
            assert not telemetry.alarm("journal_pending").raised
            node.clock.pass_(61_000)
            await node.drain.round()
            assert telemetry.alarm("journal_pending").raised
            node.switch.mode = "up"
            await node.drain.round()
            assert not telemetry.alarm("journal_pending").raised

    asyncio.run(scene())


def test_the_node_that_accepted_has_died(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            theirs = entry()
            await node.journal.hold([(theirs, encode(theirs))])
            await node.drain.round()
            assert await node.in_store() == [theirs.first]
            assert await node.shown(theirs.first) == "journal+peer"

    asyncio.run(scene())


def test_both_hand_it_over(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            node.fellows.has = True
            (id_,) = await _journalled(node)
            await node.drain.round()
            (body,) = node.fellows.sent
            async with desk(database, journal=database.with_name("peer.db")) as peer:
                copy = await _hold(peer, body)
                await peer.drain.round()
                assert copy == id_
                assert await peer.in_store() == [id_]
                assert (await peer.store.facts()).accepted == 1

    asyncio.run(scene())


async def _hold(node: Desk, body: bytes) -> Id:
    from everpost.journal.entry import decode

    one = decode(body)
    await node.journal.hold([(one, body)])
    return one.first


def test_one_that_the_store_refuses_does_not_hold_up_the_others(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            poison, *others = await _journalled(node, 3)
            plain = node.switch.adopt

            async def adopt(
                project: int, messages: list[NewMessage], named: IdempotencyKey | None = None
            ) -> object:
                if messages[0].id == poison:
                    raise ValueError("cannot be bound")
                return await plain(project, messages, named)

            node.switch.adopt = adopt  # type: ignore[method-assign,assignment]
            await node.drain.round()
            assert sorted(await node.in_store()) == sorted(others)
            assert node.journal.waiting == 1
            assert telemetry.alarm("journal_refused").raised
            # It is nobody who would find out that a database is back.
            node.switch.mode = "down"
            with pytest.raises(StoreUnavailable):
                await node.accepting.strict.accept(1, [message()])
            node.switch.mode = "up"
            await node.accepting.strict.accept(1, [message()])
            telemetry.alarm("journal_refused").clear()

    asyncio.run(scene())


@pytest.mark.parametrize("at", [0, 1, 7])
def test_one_that_the_store_never_answers_for(database: Path, at: int) -> None:
    """It is too large for the line, or kills the server that writes it: whatever shares its
    transaction has no answer either. It stays, and all the others get through; who accepts is not
    kept from the store by it."""

    async def scene() -> None:
        async with desk(database) as node:
            ids = await _journalled(node, 8)
            plain = node.switch.adopt

            async def adopt(
                project: int, messages: list[NewMessage], named: IdempotencyKey | None = None
            ) -> object:
                poisoned.append(messages[0].id)
                await asyncio.sleep(0)  # all that come together share a transaction
                mine = ids[at] in poisoned
                await asyncio.sleep(0)
                poisoned.clear()
                if mine:
                    raise StoreUnavailable("server closed the connection")
                return await plain(project, messages, named)

            poisoned: list[Id] = []
            node.switch.adopt = adopt  # type: ignore[method-assign,assignment]
            for _ in range(8):
                await node.drain.round()
            assert sorted(await node.in_store()) == sorted(id_ for id_ in ids if id_ != ids[at])
            assert (node.journal.waiting, node.journal.moving) == (1, 0)
            assert telemetry.alarm("journal_refused").raised
            asked = node.switch.asked
            await node.accepting.accept(1, [message()])
            assert node.switch.asked == asked + 1
            node.switch.adopt = plain  # type: ignore[method-assign]
            node.drain._refused.clear()  # a minute later
            await node.drain.round()
            assert sorted(await node.in_store())[: len(ids)] == sorted(ids)
            assert not telemetry.alarm("journal_refused").raised

    asyncio.run(scene())


def test_the_only_one_is_never_answered_for(database: Path) -> None:
    """The store is well by its own word: who will have nothing but the store gets it again."""

    async def scene() -> None:
        async with desk(database) as node:
            (poison,) = await _journalled(node)

            async def adopt(*_: object) -> object:
                raise StoreUnavailable("server closed the connection")

            node.switch.adopt = adopt  # type: ignore[method-assign,assignment]
            sent = message()
            for _ in range(5):
                with pytest.raises(StoreUnavailable):
                    await node.accepting.strict.accept(1, [sent])
                await node.drain.round()
            await node.accepting.strict.accept(1, [sent])
            assert await node.in_store() == [sent.id]
            assert node.journal.find(1, poison) is not None
            telemetry.alarm("journal_refused").clear()

    asyncio.run(scene())


def test_a_restart_while_the_database_is_away(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            node.switch.mode = "down"
            sent = message()
            await node.accepting.accept(1, [sent], key())
        async with desk(database) as node:
            node.switch.mode = "down"
            assert node.journal.find(1, sent.id) is not None
            known = await node.accepting.answered(1, "k")
            assert known is not None
            node.switch.mode = "up"
            await node.drain.round()
            assert await node.in_store() == [sent.id]

    asyncio.run(scene())


def test_one_process_takes_anothers_place_while_it_drains(database: Path) -> None:
    """Both have the file. What the old one has handed over is no longer the journal's to show, nor
    to refuse a change of, in the new one either."""

    async def scene() -> None:
        async with desk(database) as old:
            (id_,) = await _journalled(old)
            async with desk(database) as new:
                assert new.journal.find(1, id_) is not None
                await old.drain.round()
                await new.drain.round()
                assert new.journal.find(1, id_) is None
                assert new.journal.moving == 0
                assert await new.accepting.answered(1, "k") is None  # asks the store
                assert not telemetry.alarm("journal_damaged").raised

    asyncio.run(scene())


def test_a_damaged_index_hides_what_waits(database: Path) -> None:
    """It is told, and what is hidden is not forgotten: the next start brings it forth."""

    async def scene() -> None:
        async with desk(database) as node:
            (id_,) = await _journalled(node)
            plain = node.file.pending

            async def pending(*, after: int, most: int) -> object:
                return [] if after == 0 else await plain(after=after, most=most)

            node.file.pending = pending  # type: ignore[method-assign,assignment]
            await node.drain.round()
            assert node.journal.find(1, id_) is not None
            assert telemetry.alarm("journal_damaged").raised
            telemetry.alarm("journal_damaged").clear()
        async with desk(database) as node:
            await node.drain.round()
            assert await node.in_store() == [id_]

    asyncio.run(scene())


def test_the_same_key_on_two_nodes(database: Path) -> None:
    """One is sent, the other's id is a further name of it."""

    async def scene() -> None:
        async with (
            desk(database) as one,
            desk(database, journal=database.with_name("other.db")) as other,
        ):
            first, second = message(), message()
            for node, sent in ((one, first), (other, second)):
                node.switch.mode = "down"
                await node.accepting.accept(1, [sent], key())
                node.switch.mode = "up"
            await one.drain.round()
            await other.drain.round()
            assert (await one.store.facts()).accepted == 1
            shown = await one.store.message(1, second.id)
            assert shown is not None
            assert shown.id == second.id

    asyncio.run(scene())


def test_its_own_file_cannot_be_read_for_a_moment(database: Path) -> None:
    """The round ends with a word, the next one is as before."""

    async def scene() -> None:
        async with desk(database) as node:
            (id_,) = await _journalled(node)
            plain, broken = node.file.pending, asyncio.Event()

            async def pending(*, after: int, most: int) -> object:
                if not broken.is_set():
                    broken.set()
                    raise StoreUnavailable("I/O error")
                return await plain(after=after, most=most)

            node.file.pending = pending  # type: ignore[method-assign,assignment]
            running = asyncio.ensure_future(node.drain.run())
            await broken.wait()
            node.journal.news.set()
            while node.journal.waiting:
                await asyncio.sleep(0)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert await node.in_store() == [id_]

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("failures", "chance", "seconds"),
    [(1, 0.0, 0.125), (1, 1.0, 0.25), (2, 1.0, 0.5), (4, 1.0, 2.0), (60, 1.0, 2.0)],
)
def test_tries_grow_rarer_and_spread(failures: int, chance: float, seconds: float) -> None:
    assert pause(failures, chance) == seconds


def test_what_is_new_wakes_it(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            node.switch.says_well = False
            running = asyncio.ensure_future(node.drain.run())
            sent = message(not_before=START)
            await node.accepting.accept(1, [sent])
            while node.journal.waiting:
                await asyncio.sleep(0)
            assert await node.in_store() == [sent.id]
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scene())
