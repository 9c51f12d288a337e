"""F29: the link to PostgreSQL breaks when a COMMIT is on its way, so nobody knows whether it held.
What was asked for is done once, and whoever asked hears so.

Invariants: I1, I4, I7, I9.
"""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from everpost.ids import Id
from everpost.model.states import State
from everpost.store.interface import (
    Accepted,
    IdempotencyKey,
    Replayed,
    Settlement,
    Store,
    StoreUnavailable,
)
from everpost.store.postgres import PostgresStore
from everpost.store.postgres.accepting import Accept
from everpost.store.postgres.work import Transaction
from tests.conformance.making import (
    DAY,
    START,
    HandClock,
    claims,
    deferred,
    delivered,
    make_id,
    message,
)
from tests.support.postgres import Postgres, serving_postgres
from tests.support.postgres_link import Cut, Link, until_it_is_taken

LEASE = 900_000
_TEMPLATE = "of_this_release"


async def _migrated(server: Postgres) -> None:
    store = PostgresStore(server.url(_TEMPLATE), clock=HandClock())
    await store.open()
    await store.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with serving_postgres(quick=False) as server:
        server.create(_TEMPLATE)
        asyncio.run(_migrated(server))
        yield server


@pytest.fixture
def database(server: Postgres) -> Iterator[str]:
    server.create("mail", template=_TEMPLATE)
    yield "mail"
    server.drop("mail")


@contextlib.asynccontextmanager
async def _linked(server: Postgres, database: str) -> AsyncIterator[tuple[Store, Link]]:
    async with Link(server.port).serving() as link:
        url = server.url(database, tcp=True).replace(f":{server.port}/", f":{link.port}/")
        store = PostgresStore(url, clock=HandClock(), deadline_s=5)
        await store.open()
        try:
            yield store, link
        finally:
            link.refusing = False
            await store.close()


async def _raised(store: Store, do: Callable[[Transaction], None]) -> BaseException | None:
    """What a verb of the moving lane raises."""
    assert isinstance(store, PostgresStore)
    return (await asyncio.gather(store._lanes.tend(do), return_exceptions=True))[0]


async def _states(store: Store, id_: Id) -> list[State]:
    found = await store.message(1, id_)
    assert found is not None
    return [row.state for row in found.recipients]


@pytest.mark.parametrize("cut", Cut)
def test_a_message_whose_commit_was_cut_is_accepted_once(
    server: Postgres, database: str, cut: Cut
) -> None:
    async def scene() -> None:
        async with _linked(server, database) as (store, link):
            await store.accept(1, [message()])  # the lane has its connection
            sent = [message("a@x.test", "b@x.test", parts=[(b"h" * 32, b"large")]), message()]
            neighbour = message()
            link.cut = cut
            together = await asyncio.gather(store.accept(1, sent), store.accept(1, [neighbour]))
            assert list(together) == [Accepted(), Accepted()]
            assert link.cuts == 1
            facts = await store.facts()
            assert (facts.accepted, facts.states["queued"]) == (5, 5)
            for one in (*sent, neighbour):
                assert [e.type for e in await store.events(1, one.id)] == ["accepted"]

    asyncio.run(scene())


@pytest.mark.parametrize("cut", Cut)
def test_a_key_whose_commit_was_cut_is_no_replay(server: Postgres, database: str, cut: Cut) -> None:
    key = IdempotencyKey("k", b"f", b"a", START + DAY)

    async def scene() -> None:
        async with _linked(server, database) as (store, link):
            await store.accept(1, [message()])
            link.cut = cut
            assert await store.accept(1, [message()], key) == Accepted()
            assert await store.accept(1, [message()], key) == Replayed(b"a")
            assert (await store.facts()).accepted == 2

    asyncio.run(scene())


def test_whoever_was_told_that_it_is_in_doubt_may_come_again(
    server: Postgres, database: str
) -> None:
    async def scene() -> None:
        async with _linked(server, database) as (store, link):
            await store.accept(1, [message()])
            sent = message()
            link.cut, link.refuse_after_cut = Cut.AFTER, True
            told = [
                isinstance(answer, StoreUnavailable)
                for answer in await asyncio.gather(store.accept(1, [sent]), return_exceptions=True)
            ]
            assert told == [True]
            async with asyncio.timeout(10):  # nobody holds it, its caller has the answer (I16)
                while gc.collect() or any(isinstance(one, Accept) for one in gc.get_objects()):
                    await asyncio.sleep(0)
            link.refusing = False
            assert await until_it_is_taken(store, sent) == Accepted()
            assert await _states(store, sent.id) == [State.QUEUED]
            assert (await store.facts()).accepted == 2

    asyncio.run(scene())


@pytest.mark.parametrize("cut", Cut)
def test_an_outcome_whose_commit_was_cut_is_written_once(
    server: Postgres, database: str, cut: Cut
) -> None:
    owner = make_id()

    async def scene() -> None:
        async with _linked(server, database) as (store, link):
            sent = [message("a@x.test", "b@x.test"), message()]
            for one in sent:
                await store.accept(1, [one])
            first, second, third = claims(await store.claim(owner, limit=9, lease_ms=LEASE))
            outcomes: list[Settlement] = [
                delivered(first),
                deferred(second, at=START + 60_000),
                delivered(third),
            ]
            link.cut = cut
            assert list(await store.settle(owner, outcomes)) == [True] * 3
            assert link.cuts == 1
            facts = await store.facts()
            assert (facts.states["delivered"], facts.states["queued"]) == (2, 1)
            events = [e for one in sent for e in await store.events(1, one.id)]
            assert len(events) == 2 + 3
            tried = [a for one in sent for a in await store.attempts(1, one.id)]
            assert len(tried) == 3
            assert list(await store.settle(owner, outcomes)) == [False] * 3

    asyncio.run(scene())


@pytest.mark.parametrize("cut", Cut)
def test_a_claim_whose_commit_was_cut_is_the_claimers(
    server: Postgres, database: str, cut: Cut
) -> None:
    owner = make_id()

    async def scene() -> None:
        async with _linked(server, database) as (store, link):
            for n in range(6):
                await store.accept(1, [message(f"a@{n}.test")])
            first = claims(await store.claim(owner, limit=3, lease_ms=LEASE))
            link.cut = cut
            second = claims(await store.claim(owner, limit=9, lease_ms=LEASE))
            assert link.cuts == 1
            assert len({claim.message for claim in (*first, *second)}) == 6
            outcomes = [delivered(claim) for claim in (*first, *second)]
            assert all(await store.settle(owner, outcomes))
            facts = await store.facts()
            assert (facts.states["delivered"], facts.states["claimed"]) == (6, 0)

    asyncio.run(scene())


def test_what_was_claimed_for_nobody_is_queued_again(server: Postgres, database: str) -> None:
    """The COMMIT of a claim held, no server answers any more, and the claimer hears an error: when
    one answers again, nobody waits for the end of the lease."""

    async def scene() -> None:
        async with _linked(server, database) as (store, link):
            sent = message("a@x.test", "b@x.test")
            await store.accept(1, [sent])
            assert await store.claim(make_id(), limit=9, lease_ms=LEASE, busy=["1/"]) == []
            await store.claim(make_id(), limit=0, lease_ms=LEASE)
            link.cut, link.refuse_after_cut = Cut.AFTER, True
            with pytest.raises(StoreUnavailable):
                await store.claim(make_id(), limit=9, lease_ms=LEASE)
            assert link.cuts == 1
            assert server.execute(database, "SELECT DISTINCT state FROM recipients") == [
                ("claimed",)
            ]
            link.refusing = False
            found: list[Id] = []
            async with asyncio.timeout(10):
                while not found:
                    with contextlib.suppress(StoreUnavailable):
                        taken = await store.claim(make_id(), limit=9, lease_ms=LEASE)
                        found = [claim.message for claim in claims(taken)]
            assert found == [sent.id] * 2
            facts = await store.facts()
            assert (facts.states["claimed"], facts.states["queued"]) == (2, 0)

    asyncio.run(scene())


@pytest.mark.parametrize("cut", Cut)
def test_a_cancelled_message_whose_commit_was_cut_is_cancelled_once(
    server: Postgres, database: str, cut: Cut
) -> None:
    async def scene() -> None:
        async with _linked(server, database) as (store, link):
            sent = message("a@x.test", "b@x.test")
            await store.accept(1, [sent])
            link.cut = cut
            assert await store.cancel(1, sent.id) == 2
            assert await _states(store, sent.id) == [State.CANCELLED] * 2
            events = [event.type for event in await store.events(1, sent.id)]
            assert events == ["accepted", "cancelled", "cancelled"]

    asyncio.run(scene())


@pytest.mark.parametrize("cut", Cut)
def test_a_message_whose_new_hour_was_cut_is_moved_once(
    server: Postgres, database: str, cut: Cut
) -> None:
    async def scene() -> None:
        async with _linked(server, database) as (store, link):
            sent = message("a@x.test", "b@x.test")
            await store.accept(1, [sent])
            link.cut = cut
            assert await store.reschedule(1, sent.id, START + DAY) == 2
            assert link.cuts == 1
            found = await store.message(1, sent.id)
            assert found is not None
            assert {row.not_before for row in found.recipients} == {START + DAY}
            events = [event.type for event in await store.events(1, sent.id)]
            assert events == ["accepted", "rescheduled"]

    asyncio.run(scene())


def test_what_was_claimed_for_nobody_counts_right_beside_a_call_that_fails(
    server: Postgres, database: str
) -> None:
    """It is given back in a transaction whose first verb is undone."""

    def fails(tx: Transaction) -> None:
        raise ValueError("no such thing")

    async def scene() -> None:
        async with _linked(server, database) as (store, link):
            await store.accept(1, [message("a@x.test", "b@x.test")])
            await store.claim(make_id(), limit=0, lease_ms=LEASE)
            link.cut, link.refuse_after_cut = Cut.AFTER, True
            with pytest.raises(StoreUnavailable):
                await store.claim(make_id(), limit=9, lease_ms=LEASE)
            link.refusing = False
            async with asyncio.timeout(10):
                while not isinstance(await _raised(store, fails), ValueError):
                    pass
            states = "SELECT state, count(*) FROM recipients GROUP BY state"
            assert server.execute(database, states) == [("queued", 2)]
            facts = await store.facts()
            assert (facts.states["claimed"], facts.states["queued"]) == (0, 2)

    asyncio.run(scene())
