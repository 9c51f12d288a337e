"""The database is away, slow, or back: what an accept is answered, and what becomes of it."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from everpost import telemetry
from everpost.journal import JournalLimits
from everpost.journal.entry import encode
from everpost.model.message import Assurance
from everpost.store.interface import Accepted, Conflicting, Replayed, StoreUnavailable
from tests.conformance.making import message
from tests.support.journalling import desk, entry, key


def test_a_database_that_answers_is_all_there_is(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            sent = message()
            assert await node.accepting.accept(1, [sent]) == Accepted()
            assert await node.in_store() == [sent.id]
            assert node.journal.waiting == 0
            assert node.fellows.sent == []

    asyncio.run(scene())


@pytest.mark.parametrize("mode", ["down", "silent", "late"])
def test_a_database_that_does_not_answer(database: Path, mode: str) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            node.switch.mode = mode
            sent = message()
            assert await node.accepting.accept(1, [sent]) == Accepted(Assurance.JOURNAL)
            assert (await node.file.size()).pending == 1
            node.switch.mode = "up"
            node.switch.answer.set()
            await node.drain.round()
            assert await node.in_store() == [sent.id]
            assert node.journal.waiting == 0
            committed = mode == "late"
            assert await node.shown(sent.id) == ("committed" if committed else "journal")

    asyncio.run(scene())


def test_a_peer_has_a_copy(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            node.switch.mode = "down"
            node.fellows.has = True
            sent = message()
            assert await node.accepting.accept(1, [sent]) == Accepted(Assurance.JOURNAL_PEER)
            node.switch.mode = "up"
            await node.drain.round()
            assert await node.shown(sent.id) == "journal+peer"

    asyncio.run(scene())


def test_only_the_first_waits_for_a_database_that_is_away(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            node.switch.mode = "silent"
            for _ in range(5):
                await node.accepting.accept(1, [message()])
            assert node.switch.asked == 1
            node.switch.mode = "up"
            await node.drain.round()
            assert await node.accepting.accept(1, [message()]) == Accepted()
            assert len(await node.in_store()) == 6

    asyncio.run(scene())


def test_an_answer_that_comes_late_says_that_the_database_is_back(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            node.switch.mode = "late"
            await node.accepting.accept(1, [message()])
            assert node.reach.away
            node.switch.mode = "up"
            node.switch.answer.set()
            while node.reach.away:
                await asyncio.sleep(0)
            assert await node.accepting.accept(1, [message()]) == Accepted()
            await node.drain.round()
            assert len(await node.in_store()) == 2

    asyncio.run(scene())


def test_a_database_that_says_itself_that_it_is_not_safe_is_not_asked(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            node.switch.says_well = False
            assert await node.accepting.accept(1, [message()]) == Accepted(Assurance.JOURNAL)
            assert node.switch.asked == 0

    asyncio.run(scene())


def test_more_is_demanded_than_a_journal_gives(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            node.switch.mode = "down"
            with pytest.raises(StoreUnavailable):
                await node.accepting.strict.accept(1, [message()])
            assert (await node.file.size()).entries == 0
            # Nothing waits that would find out: the next one asks.
            node.switch.mode = "up"
            assert await node.accepting.accept(1, [message()]) == Accepted()

    asyncio.run(scene())


def test_who_demands_more_is_not_in_the_way_of_others(database: Path) -> None:
    """One waits for as long as the database does, and the others are told so at once."""

    async def scene() -> None:
        async with desk(database) as node:
            node.switch.mode = "silent"
            first = asyncio.ensure_future(node.accepting.strict.accept(1, [message()]))
            while not node.reach.away:
                await asyncio.sleep(0)
            for _ in range(3):
                with pytest.raises(StoreUnavailable):
                    await node.accepting.strict.accept(1, [message()])
            assert node.switch.asked == 1
            assert not first.done()
            node.switch.answer.set()
            with pytest.raises(StoreUnavailable):
                await first
            node.switch.mode = "up"
            assert await node.accepting.strict.accept(1, [message()]) == Accepted()

    asyncio.run(scene())


def test_a_key_that_comes_again_while_the_database_is_away(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            node.switch.mode = "down"
            node.fellows.has = True
            await node.accepting.accept(1, [message()], key())
            again = await node.accepting.accept(1, [message()], key(answer=b"other"))
            assert again == Replayed(b'{"id":"first"}', Assurance.JOURNAL_PEER)
            other = await node.accepting.accept(1, [message()], key(payload=b"2"))
            assert other == Conflicting()
            strict = await node.accepting.strict.accept(1, [message()], key())
            assert isinstance(strict, Replayed)
            known = await node.accepting.answered(1, "k")
            assert known is not None
            assert known.answer == b'{"id":"first"}'
            assert node.journal.waiting == 1

    asyncio.run(scene())


def test_the_same_key_at_once_while_the_database_is_away(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            node.switch.mode = "silent"
            answers = await asyncio.gather(
                *(node.accepting.accept(1, [message()], key()) for _ in range(8))
            )
            assert sum(isinstance(each, Accepted) for each in answers) == 1
            assert sum(isinstance(each, Replayed) for each in answers) == 7
            assert (await node.file.size()).entries == 1

    asyncio.run(scene())


def test_a_key_that_a_peer_has_accepted(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            node.switch.mode = "down"
            theirs = entry(named=key(answer=b"theirs"))
            await node.journal.hold([(theirs, encode(theirs))])
            again = await node.accepting.accept(1, [message()], key())
            assert again == Replayed(b"theirs", Assurance.JOURNAL_PEER)

    asyncio.run(scene())


def test_a_key_that_the_database_knew_becomes_a_further_name(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            first, second = message(), message()
            await node.accepting.accept(1, [first], key())
            node.switch.mode = "down"
            assert await node.accepting.accept(1, [second], key()) == Accepted(Assurance.JOURNAL)
            node.switch.mode = "up"
            await node.drain.round()
            shown = await node.store.message(1, second.id)
            assert shown is not None
            assert shown.id == second.id
            facts = await node.store.facts()
            assert facts.accepted == 1

    asyncio.run(scene())


def test_a_key_whose_time_is_over(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            node.switch.mode = "down"
            await node.accepting.accept(1, [message()], key())
            node.clock.pass_(4_000_000)
            later = key()
            fresh = msgspec.structs.replace(later, expires_at=node.clock.now() + 1_000)
            again = await node.accepting.accept(1, [message()], fresh)
            assert again == Accepted(Assurance.JOURNAL)

    asyncio.run(scene())


def test_whether_a_key_was_answered_is_not_known_while_the_database_is_away(
    database: Path,
) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            node.switch.mode = "silent"
            with pytest.raises(StoreUnavailable):
                await node.accepting.answered(1, "k")

    asyncio.run(scene())


def test_a_full_journal_takes_no_more(database: Path) -> None:
    async def scene() -> None:
        async with desk(database, limits=JournalLimits(entries=2)) as node:
            node.switch.mode = "down"
            for _ in range(2):
                await node.accepting.accept(1, [message()])
            with pytest.raises(StoreUnavailable):
                await node.accepting.accept(1, [message()])
            asked = node.switch.asked
            assert not node.journal.taking
            node.switch.mode = "up"  # and then the store is asked, whatever it was before
            assert await node.accepting.accept(1, [message()]) == Accepted()
            assert node.switch.asked == asked + 1

    asyncio.run(scene())


def test_a_journal_of_too_many_octets(database: Path) -> None:
    async def scene() -> None:
        async with desk(database, limits=JournalLimits(octets=5_000)) as node:
            node.switch.mode = "down"
            with pytest.raises(StoreUnavailable):
                await node.accepting.accept(1, [message(sealed=b"x" * 6_000)])
            assert await node.accepting.accept(1, [message()]) == Accepted(Assurance.JOURNAL)

    asyncio.run(scene())


def test_a_disk_that_is_short_of_room(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            node.switch.mode = "down"
            node.low = True
            with pytest.raises(StoreUnavailable):
                await node.accepting.accept(1, [message()])
            assert (await node.file.size()).entries == 0

    asyncio.run(scene())


def test_a_client_that_goes_away_does_not_stop_a_commit(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            node.switch.mode = "late"
            sent = message()
            asking = asyncio.ensure_future(node.accepting.accept(1, [sent]))
            while not await node.in_store():
                await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            node.switch.answer.set()
            assert await node.in_store() == [sent.id]

    asyncio.run(scene())


def test_a_fault_of_the_database_is_no_absence(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            with pytest.raises(ValueError, match="project"):
                await node.accepting.accept(2, [message(project=1)])
            assert node.journal.waiting == 0
            assert not telemetry.alarm("journal_unavailable").raised

    asyncio.run(scene())
