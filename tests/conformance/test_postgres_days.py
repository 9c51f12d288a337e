"""PostgreSQL's days: mail never waits for a partition, and a day that is dropped takes nothing
along that somebody still needs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from everpost.ids import IdMaker
from everpost.ledger import Findings, check_store, walk
from everpost.model.message import NewMessage
from everpost.model.states import HeldReason, InDoubtPolicy
from everpost.store.interface import IdempotencyKey, Store, StoreUnavailable
from everpost.store.postgres import partitions
from tests.conformance.engines import PostgresEngine
from tests.conformance.making import DAY, START, claims, make_id, message
from tests.conformance.stage import DELIVERED, settled

TODAY = START // DAY
LEASE = 900_000


@asynccontextmanager
async def _keeping(engine: PostgresEngine, *, days: int = 0) -> AsyncIterator[Store]:
    async with engine.opened(keep_days=days) as store:
        yield store


async def _delivered(store: Store, *sent: NewMessage) -> None:
    await store.accept(1, sent)
    owner = make_id()
    while taken := claims(await store.claim(owner, limit=100, lease_ms=LEASE)):
        await store.settle(owner, [settled(c, DELIVERED, InDoubtPolicy.RESEND) for c in taken])


async def _later(engine: PostgresEngine, store: Store, *, days: int, rounds: int = 3) -> None:
    """So many days on, upkeep has looked after the store."""
    engine.clock.pass_(days * DAY)
    for _ in range(rounds):
        await store.checkpoint()
        engine.clock.pass_(3_600_000)


async def _books_are_right(store: Store) -> None:
    findings = Findings()
    checked = await walk(store, findings, limit=2)
    rest, _ = await check_store(store, findings)
    assert checked.complete
    assert rest.complete
    assert findings.kept == []


def _tables(engine: PostgresEngine) -> set[str]:
    rows = engine.server.execute(
        engine.database, "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent IN"
        " (SELECT oid FROM pg_class WHERE relkind = 'p')",
    )  # fmt: skip
    return {str(row[0]) for row in rows}


def _where(engine: PostgresEngine, table: str) -> set[str]:
    """The partitions of a table that have rows."""
    rows = engine.server.execute(
        engine.database, f"SELECT DISTINCT tableoid::regclass::text FROM {table}"
    )
    return {str(row[0]) for row in rows}


def _left(engine: PostgresEngine) -> dict[str, int]:
    found: dict[str, int] = {}
    for table in ("messages", "recipients", "contents", "parts", "events", "attempts"):
        ((found[table],),) = engine.server.execute(engine.database, f"SELECT count(*) FROM {table}")
    return {table: n for table, n in found.items() if n}


def test_days_are_made_before_they_begin(postgres_engine: PostgresEngine) -> None:
    engine = postgres_engine

    async def scene() -> None:
        async with _keeping(engine) as store:
            await store.checkpoint()
            for day in range(TODAY, TODAY + 4):
                assert {f"contents_{day}", f"events_{day}"} <= _tables(engine)
            await _delivered(store, message(parts=[(b"h" * 32, b"a part")]))
            for table in ("contents", "parts", "events", "attempts"):
                assert _where(engine, table) == {f"{table}_{TODAY}"}
            await _later(engine, store, days=3)
            tomorrow = message(id_=IdMaker(engine.clock.now)())
            await store.accept(1, [tomorrow])
            assert f"contents_{TODAY + 3}" in _where(engine, "contents")
            await _books_are_right(store)

    asyncio.run(scene())


def test_mail_comes_before_its_day_was_made(postgres_engine: PostgresEngine) -> None:
    engine = postgres_engine
    sent = message("a@1.test", "b@2.test", parts=[(b"h" * 32, b"a part")])

    async def scene() -> None:
        async with _keeping(engine) as store:
            await _delivered(store, sent)
            assert _where(engine, "contents") == {"contents_other"}
            await store.checkpoint()
            for table in ("contents", "parts", "events", "attempts"):
                assert _where(engine, table) == {f"{table}_{TODAY}"}
            found = await store.message(1, sent.id)
            assert found is not None
            assert found.sealed == sent.sealed
            assert await store.parts(1, [(TODAY, b"h" * 32)]) == [(7, b"a part")]
            await _books_are_right(store)

    asyncio.run(scene())


def test_so_much_came_before_its_day_was_made_that_it_stays_where_it_is(
    postgres_engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moving it would hold up mail for long."""
    engine = postgres_engine
    monkeypatch.setattr(partitions, "_MOST_MOVED", 2)

    async def scene() -> None:
        async with _keeping(engine, days=1) as store:
            await _delivered(store, *(message() for _ in range(3)))
            await store.checkpoint()
            assert _where(engine, "contents") == {"contents_other"}
            assert f"contents_{TODAY + 1}" in _tables(engine)
            await _books_are_right(store)
            await _later(engine, store, days=2)
            assert _left(engine) == {}
            await _books_are_right(store)

    asyncio.run(scene())


def test_two_processes_make_the_same_days_at_once(postgres_engine: PostgresEngine) -> None:
    engine = postgres_engine

    async def scene() -> None:
        async with _keeping(engine) as store, _keeping(engine) as other:
            await asyncio.gather(store.checkpoint(), other.checkpoint())
            await other.checkpoint()  # one that was not alone tries again
            await store.checkpoint()
            assert len(_tables(engine)) == 4 * (1 + 4)  # the default one, today and three ahead

    asyncio.run(scene())


def test_somebody_looks_at_a_table_for_long(postgres_engine: PostgresEngine) -> None:
    """A dump in progress: days wait, mail does not."""
    engine = postgres_engine

    async def scene() -> None:
        async with _keeping(engine) as store:
            with psycopg.connect(engine.server.url(engine.database)) as dump:
                dump.execute("SELECT * FROM contents_other")
                with pytest.raises(StoreUnavailable, match="days wait"):
                    await store.checkpoint()
                await asyncio.wait_for(_delivered(store, message()), 10)
            await store.checkpoint()
            assert f"contents_{TODAY}" in _tables(engine)

    asyncio.run(scene())


def test_a_day_is_kept_no_longer(postgres_engine: PostgresEngine) -> None:
    engine = postgres_engine
    old = [message("a@1.test", "b@2.test", parts=[(b"h" * 32, b"a part")]) for _ in range(3)]
    other = message(project=2, stream="transactional")

    async def scene() -> None:
        async with _keeping(engine, days=10) as store:
            await store.checkpoint()
            await _delivered(store, *old)
            await store.accept(2, [other])
            await store.cancel(2, other.id)
            await _later(engine, store, days=10)
            assert len((await store.messages(1, limit=9))[0]) == 3
            engine.clock.pass_(DAY)
            fresh = message(id_=IdMaker(engine.clock.now)(), not_before=engine.clock.now())
            await _delivered(store, fresh)
            await _later(engine, store, days=0)
            assert [row.id for row in (await store.messages(1, limit=9))[0]] == [fresh.id]
            assert await store.message(1, old[0].id) is None
            assert _left(engine) == {
                "messages": 1, "recipients": 1, "contents": 1, "events": 2, "attempts": 1,
            }  # fmt: skip
            assert not any(str(TODAY) in table for table in _tables(engine))
            facts = await store.facts()
            assert (facts.accepted, facts.states["delivered"], facts.states["cancelled"]) == (
                1, 1, 0,
            )  # fmt: skip
            await _books_are_right(store)
            (told,) = [row for row in await store.audit(limit=9) if row["actor"] == "keep_days"]
            assert (told["kind"], told["object"]) == ("day", "2027-01-15")
            assert told["detail"] == {"recipients": 7, "messages": 4}

    asyncio.run(scene())


@pytest.mark.parametrize("why", ["queued", "claimed", "held"])
def test_something_of_an_old_day_is_still_alive(postgres_engine: PostgresEngine, why: str) -> None:
    engine = postgres_engine
    alive = message("a@1.test", "b@2.test", not_before=START + 400 * DAY)

    async def scene() -> None:
        async with _keeping(engine, days=1) as store:
            await _delivered(store, message())
            await store.accept(1, [alive])
            if why == "held":
                await store.hold(1, alive.id, HeldReason.OPERATOR)
            if why == "claimed":
                await store.reschedule(1, alive.id, START)
                await store.claim(make_id(), limit=1, lease_ms=LEASE)
            await _later(engine, store, days=30)
            assert len((await store.messages(1, limit=9))[0]) == 2
            assert await store.message(1, alive.id) is not None
            await store.release(1, alive.id)
            engine.execute(
                "UPDATE recipients SET owner = NULL, state = 'cancelled', settled_at = 1"
            )
            await _later(engine, store, days=0)
            assert _left(engine) == {}

    asyncio.run(scene())


def test_a_living_day_does_not_keep_the_days_after_it(postgres_engine: PostgresEngine) -> None:
    engine = postgres_engine
    alive = message(not_before=START + 400 * DAY)

    async def scene() -> None:
        async with _keeping(engine, days=1) as store:
            await store.accept(1, [alive])
            engine.clock.pass_(DAY)
            await _delivered(
                store, message(id_=IdMaker(engine.clock.now)(), not_before=engine.clock.now())
            )
            await _later(engine, store, days=5)
            assert [row.id for row in (await store.messages(1, limit=9))[0]] == [alive.id]
            await _books_are_right(store)

    asyncio.run(scene())


def test_a_consumer_has_not_seen_the_day_yet(postgres_engine: PostgresEngine) -> None:
    engine = postgres_engine

    async def scene() -> None:
        async with _keeping(engine, days=1) as store:
            await _delivered(store, message(), message())
            events = await store.outbox("webhooks", limit=99)
            await store.mark_published("webhooks", events[2].position)
            await _later(engine, store, days=5)
            assert await store.outbox("webhooks", limit=99) == events[3:]
            await store.mark_published("webhooks", events[3].position)
            await _later(engine, store, days=0)
            assert _left(engine) == {}

    asyncio.run(scene())


def test_killed_at_every_step_of_dropping_a_day(
    postgres_engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes next goes on; at no moment do the books say anything is wrong."""
    engine = postgres_engine
    monkeypatch.setattr(partitions, "_SLICE", 2)
    monkeypatch.setattr(partitions, "_MOST_SLICES", 1)
    drop = partitions._drop_partitions
    tries = 0

    def fails_once(db: Any, day: int) -> bool:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise psycopg.OperationalError("the connection is gone")
        return drop(db, day)

    monkeypatch.setattr(partitions, "_drop_partitions", fails_once)
    key = IdempotencyKey("k", b"f", b"a", START + 1_000)

    async def scene() -> None:
        async with _keeping(engine) as store:
            first = message("a@1.test", "b@2.test", "c@3.test")
            await store.adopt(1, [first], key)
            again = message("a@1.test", "b@2.test", "c@3.test")
            await store.adopt(1, [again], key)  # a further name
            await _delivered(store, *(message("a@1.test", "b@2.test") for _ in range(4)))
        engine.clock.pass_(5 * DAY)
        rounds = 0
        while _left(engine):
            rounds += 1
            assert rounds < 20
            async with _keeping(engine, days=1) as store:
                try:
                    await store.checkpoint()
                except StoreUnavailable:
                    pass
                await _books_are_right(store)
        assert tries == 2
        assert rounds > 4

    asyncio.run(scene())


def test_a_day_that_is_just_being_dropped_gets_mail_from_a_journal_after_all(
    postgres_engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits until that has ended, too."""
    engine = postgres_engine
    monkeypatch.setattr(partitions, "_MOST_SLICES", 1)

    async def scene() -> None:
        async with _keeping(engine, days=1) as store:
            await _delivered(store, message())
            engine.clock.pass_(5 * DAY)
            await store.checkpoint()  # marked, and a slice is gone
            late = message()
            await store.adopt(1, [late])
            await _later(engine, store, days=0)
            assert (await store.message(1, late.id)) is not None
            owner = make_id()
            (claim,) = claims(await store.claim(owner, limit=9, lease_ms=LEASE))
            assert claim.message == late.id
            await store.settle(owner, [settled(claim, DELIVERED, InDoubtPolicy.RESEND)])
            await _later(engine, store, days=0)
            assert _left(engine) == {}
            await _books_are_right(store)

    asyncio.run(scene())


def test_mail_of_the_day_comes_at_the_very_moment_when_its_partitions_go(
    postgres_engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a journal was promised is not dropped along with what had ended."""
    engine = postgres_engine
    late = message(parts=[(b"h" * 32, b"a part")])
    drop = partitions._drop_partitions
    came: list[bool] = []

    def late_mail_first(db: Any, day: int) -> bool:
        """On another connection, as another node does."""

        async def adopt() -> None:
            async with engine.opened() as other:
                await other.adopt(1, [late])

        if not came:
            asyncio.run(adopt())
        came.append(drop(db, day))
        return came[-1]

    monkeypatch.setattr(partitions, "_drop_partitions", late_mail_first)

    async def scene() -> None:
        async with _keeping(engine, days=1) as store:
            await store.checkpoint()
            await _delivered(store, message(parts=[(b"h" * 32, b"a part")]))
            await _later(engine, store, days=5)
            assert came[0] is False
            assert await store.parts(1, [(TODAY, b"h" * 32)]) == [(7, b"a part")]
            owner = make_id()
            (taken,) = await store.claim(owner, limit=9, lease_ms=LEASE)
            assert (taken.message, taken.sealed) == (late.id, late.sealed)
            told = [settled(c, DELIVERED, InDoubtPolicy.RESEND) for c in taken.claims]
            await store.settle(owner, told)
            await _later(engine, store, days=0)
            assert _left(engine) == {}
            await _books_are_right(store)

    asyncio.run(scene())


def test_two_processes_drop_the_same_days_at_once(
    postgres_engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = postgres_engine
    monkeypatch.setattr(partitions, "_SLICE", 2)

    async def scene() -> None:
        async with _keeping(engine, days=1) as store, _keeping(engine, days=1) as other:
            for _ in range(3):
                await store.checkpoint()
                ids = IdMaker(engine.clock.now)
                await _delivered(
                    store, *(message(id_=ids(), not_before=engine.clock.now()) for _ in range(9))
                )
                engine.clock.pass_(DAY)
            engine.clock.pass_(5 * DAY)
            rounds = 0
            while _left(engine):
                rounds += 1
                assert rounds < 60
                await asyncio.gather(store.checkpoint(), other.checkpoint())
                engine.clock.pass_(3_600_000)
                await _books_are_right(store)
            await store.checkpoint()
            for _ in range(9):  # days of which there was no mail
                await store.checkpoint()
                engine.clock.pass_(3_600_000)
            days = {int(t.split("_")[1]) for t in _tables(engine) if "other" not in t}
            today = engine.clock.now() // DAY
            assert min(days) >= today - 1
            dropped = [row for row in await store.audit(limit=9) if row["kind"] == "day"]
            assert len(dropped) == 3

    asyncio.run(scene())
