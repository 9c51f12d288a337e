"""F20, F26, F30, F31, F42: waits that somebody cancels, deadlocks, servers that stop, hang, turn
read-only or are set up too weakly. What is answered for holds, what does not hold is refused soon,
and the next call works when the server does.

Invariants: I1, I7, I8, I16.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any

import psycopg
import pytest

from everpost.model.message import Assurance, Durability
from everpost.model.shares import Ask
from everpost.store.interface import Accepted, Note, Store, StoreError, StoreUnavailable
from everpost.store.postgres import PostgresStore
from everpost.store.postgres.connection import SQL, Address
from tests.conformance.making import START, HandClock, claims, delivered, make_id, message
from tests.support.postgres import Postgres, serving_postgres
from tests.support.postgres_link import until_it_is_taken
from tests.support.waiting import wait_until

LEASE = 900_000
_TEMPLATE = "of_this_release"


async def _migrated(server: Postgres) -> None:
    store = PostgresStore(server.url(_TEMPLATE), clock=HandClock())
    await store.open()
    await store.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with serving_postgres(quick=False, settings={"deadlock_timeout": "50ms"}) as server:
        server.create(_TEMPLATE)
        asyncio.run(_migrated(server))
        yield server


@pytest.fixture
def database(server: Postgres) -> Iterator[str]:
    server.create("mail", template=_TEMPLATE)
    yield "mail"
    server.drop("mail")


@contextlib.asynccontextmanager
async def _opened(server: Postgres, database: str, **options: Any) -> AsyncIterator[Store]:
    store = PostgresStore(server.url(database), clock=HandClock(), **options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@contextlib.contextmanager
def _set(server: Postgres, name: str, value: str, *, takes: str) -> Iterator[None]:
    """A setting of the running server, for a while. `takes`: what a new session then sees."""

    def seen() -> str:
        return str(server.execute("postgres", f"SHOW {name}")[0][0])

    was = seen()
    server.execute("postgres", f"ALTER SYSTEM SET {name} = {value}")
    server.execute("postgres", "SELECT pg_reload_conf()")
    wait_until(lambda: seen() == takes, seconds=10, what=f"{name} to be {takes}")
    try:
        yield
    finally:
        server.execute("postgres", f"ALTER SYSTEM RESET {name}")
        server.execute("postgres", "SELECT pg_reload_conf()")
        wait_until(lambda: seen() == was, seconds=10, what=f"{name} to be {was}")


def _nobody_is_synchronous(server: Postgres) -> contextlib.AbstractContextManager[None]:
    """Every COMMIT waits for a standby that there is not."""
    return _set(server, "synchronous_standby_names", "'nobody'", takes="nobody")


def _waiting(server: Postgres) -> list[int]:
    rows = server.execute(
        "postgres", "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    )
    return [row[0] for row in rows]


async def _eventually(look: Any) -> None:
    async with asyncio.timeout(10):
        while not look():
            await asyncio.sleep(0)


# --- waits for standbys ---------------------------------------------------------------------------


def test_a_cancelled_wait_for_a_standby_is_no_acceptance(server: Postgres, database: str) -> None:
    """PostgreSQL answers COMMIT with success then, and a warning."""
    sent = message("a@x.test", "b@x.test")

    async def scene() -> None:
        async with _opened(server, database) as store:
            await store.accept(1, [message()])
            with _nobody_is_synchronous(server):
                accepting = asyncio.ensure_future(store.accept(1, [sent]))
                cancelled = 0
                async with asyncio.timeout(30):
                    while not accepting.done():
                        for pid in await asyncio.to_thread(_waiting, server):
                            server.execute("postgres", f"SELECT pg_cancel_backend({pid})")
                            cancelled += 1
                with pytest.raises(StoreUnavailable):
                    await accepting
                assert cancelled > 1
                shown = await store.message(1, sent.id)
                assert shown is not None  # here it is, and nowhere else
            assert await store.accept(1, [sent]) == Accepted(Assurance.COMMITTED)
            assert (await store.facts()).accepted == 3

    asyncio.run(scene())


def test_an_answer_about_what_is_there_waits_for_it_as_well(
    server: Postgres, database: str
) -> None:
    """A message that was left behind by a cancelled wait is there: that alone is no acceptance."""
    sent = message()

    async def scene() -> None:
        async with _opened(server, database) as store:
            await store.accept(1, [sent])
            with _nobody_is_synchronous(server):
                again = asyncio.ensure_future(store.accept(1, [sent]))
                await asyncio.to_thread(
                    wait_until, lambda: _waiting(server) != [], seconds=10, what="its COMMIT"
                )
                assert not again.done()
            assert await again == Accepted(Assurance.COMMITTED)

    asyncio.run(scene())


def test_a_message_shows_what_it_was_answered_with_in_the_end(
    server: Postgres, database: str
) -> None:
    """It was to be replicated; then nobody waited for standbys any more."""
    sent = message()

    async def scene() -> None:
        async with _opened(server, database) as store:
            await store.accept(1, [message()])
            with _nobody_is_synchronous(server):
                accepting = asyncio.ensure_future(store.accept(1, [sent]))
                await asyncio.to_thread(
                    wait_until, lambda: _waiting(server) != [], seconds=10, what="its COMMIT"
                )
            assert await accepting == Accepted(Assurance.COMMITTED)
            shown = await store.message(1, sent.id)
            assert shown is not None
            assert shown.durability == "committed"

    asyncio.run(scene())


def test_standbys_that_are_struck_off_while_a_commit_waits_do_not_have_it(
    server: Postgres, database: str
) -> None:
    """As Patroni does, unless it is strict, when the last one is gone: every COMMIT that waits is
    let go, with success and without a warning."""

    async def scene() -> None:
        with _nobody_is_synchronous(server):
            store = PostgresStore(server.url(database), clock=HandClock(), standbys=1)
            await store.open()
            assert "0 synchronous standbys are connected, 1 are needed" in store.state().problems
            accepting = asyncio.ensure_future(store.accept(1, [message()]))
            await asyncio.to_thread(
                wait_until, lambda: _waiting(server) != [], seconds=10, what="its COMMIT"
            )
        with pytest.raises(StoreUnavailable, match="COMMIT waits for"):
            await accepting
        assert not store.state().durable
        await store.close()

    asyncio.run(scene())


def test_a_wait_for_a_standby_that_does_not_come_ends(server: Postgres, database: str) -> None:
    sent = message()

    async def scene() -> None:
        async with _opened(server, database, deadline_s=1.0, patience_s=1.0) as store:
            await store.accept(1, [message()])
            with _nobody_is_synchronous(server):
                since = time.monotonic()
                with pytest.raises(StoreUnavailable, match="no answer to COMMIT"):
                    await store.accept(1, [sent])
                assert time.monotonic() - since < 5
            assert await until_it_is_taken(store, sent) == Accepted(Assurance.COMMITTED)
            assert (await store.facts()).accepted == 2

    asyncio.run(scene())


def test_a_caller_that_gives_up_cancels_nothing(server: Postgres, database: str) -> None:
    sent = message()

    async def scene() -> None:
        async with _opened(server, database) as store:
            await store.accept(1, [message()])
            with _nobody_is_synchronous(server):
                accepting = asyncio.ensure_future(store.accept(1, [sent]))
                await asyncio.to_thread(
                    wait_until, lambda: len(_waiting(server)) == 1, seconds=10, what="its COMMIT"
                )
                before = _waiting(server)
                accepting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await accepting
                assert _waiting(server) == before
            await asyncio.to_thread(
                wait_until, lambda: not _waiting(server), seconds=10, what="the COMMIT to end"
            )
            shown = await store.message(1, sent.id)
            assert shown is not None
            assert (await store.facts()).accepted == 2

    asyncio.run(scene())


def test_what_was_claimed_by_a_caller_that_has_gone_is_queued_again(
    server: Postgres, database: str
) -> None:
    """It stopped waiting while the COMMIT was on its way: mail that nobody has touched is not left
    to the end of the lease, when it would count as in doubt."""

    async def scene() -> None:
        async with _opened(server, database) as store:
            await store.accept(1, [message("a@x.test", "b@x.test")])
            with _nobody_is_synchronous(server):
                leaving = asyncio.ensure_future(store.claim(make_id(), limit=9, lease_ms=LEASE))
                await asyncio.to_thread(
                    wait_until, lambda: _waiting(server) != [], seconds=10, what="its COMMIT"
                )
                leaving.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await leaving
            given_back = "SELECT count(*) FROM recipients WHERE state = 'queued' AND term = 1"
            await _eventually(lambda: server.execute(database, given_back) == [(2,)])
            facts = await store.facts()
            assert (facts.states["claimed"], facts.states["queued"]) == (0, 2)

    asyncio.run(scene())


# --- locks ----------------------------------------------------------------------------------------


def test_a_deadlock_is_tried_again(server: Postgres, database: str) -> None:
    owner = make_id()

    async def scene() -> None:
        async with _opened(server, database) as store:
            sent = sorted((message(), message()), key=lambda one: one.id)
            await store.accept(1, sent)
            held = claims(await store.claim(owner, limit=9, lease_ms=LEASE))
            other = psycopg.connect(server.url(database))
            lock = "SELECT 1 FROM recipients WHERE message = %s FOR UPDATE"
            with other:
                other.execute("SET deadlock_timeout = '60s'")
                other.execute(lock, (sent[1].id,))
                settling = asyncio.ensure_future(
                    store.settle(owner, [delivered(claim) for claim in held])
                )
                waiting = (
                    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                    "AND application_name = 'everpost'"
                )
                await asyncio.to_thread(
                    wait_until,
                    lambda: server.execute(database, waiting)[0][0] == 1,
                    seconds=10,
                    what="the lane to wait for the other's lock",
                )
                await asyncio.to_thread(other.execute, lock, (sent[0].id,))  # the lane gave way
            assert list(await settling) == [True, True]
            events = [e.type for one in sent for e in await store.events(1, one.id)]
            assert events == ["accepted", "delivered"] * 2
            assert "deadlock detected" in server.log.read_text()

    asyncio.run(scene())


def test_a_process_that_stops_within_its_transaction_holds_nobody_up(
    server: Postgres, database: str
) -> None:
    """F24: it, its host or the way to it is frozen while it divides limits, which one at a time may
    do. Its session looks well to the server."""

    async def scene() -> None:
        async with _opened(server, database) as store:
            stopped = Address(server.url(database), deadline_s=10.0).connect()
            stopped.execute(SQL["begin"])
            stopped.execute(SQL["share_alone"])
            asked = [Ask("relay/seats", "seats", 10, want=1)]
            async with asyncio.timeout(9):
                (grant,) = await store.share(make_id(), asked, lease_ms=6_000)
            assert grant.amount == 1
            with pytest.raises(psycopg.Error):  # what it goes on with is not written
                stopped.execute(b"COMMIT")
            stopped.close()

    asyncio.run(scene())


def test_processes_that_write_the_same_in_another_order_do_not_wait_in_a_ring(
    server: Postgres, database: str
) -> None:
    """One circuit opens, and all of them tell it and ask for their shares at once."""

    async def scene() -> None:
        deadlocks = server.log.read_text().count("deadlock detected")
        async with _opened(server, database) as one, _opened(server, database) as two:

            def tell(store: Store) -> Awaitable[object]:
                return store.note([Note("health", "relay", {}, START + LEASE)])

            def ask(store: Store, owner: bytes) -> Awaitable[object]:
                asked = [Ask("relay/seats", "seats", 10, want=1)]
                return store.share(owner, asked, lease_ms=6_000)

            ours, theirs = make_id(), make_id()
            for _ in range(150):
                await asyncio.gather(tell(one), ask(one, ours), ask(two, theirs), tell(two))
        assert server.log.read_text().count("deadlock detected") == deadlocks

    asyncio.run(scene())


def test_events_of_one_message_that_two_processes_settle_have_no_gap(
    server: Postgres, database: str
) -> None:
    """Two lanes add lines to the same timelines at the same time."""
    many = 40

    async def scene() -> None:
        async with (
            _opened(server, database) as one,
            _opened(server, database) as two,
        ):
            sent = [message(*(f"{n}@x.test" for n in range(6))) for _ in range(many)]
            await one.accept(1, sent)
            ours, theirs = make_id(), make_id()

            async def work(store: Store, owner: bytes) -> int:
                done = 0
                while taken := claims(await store.claim(owner, limit=7, lease_ms=LEASE)):
                    assert all(await store.settle(owner, [delivered(c) for c in taken]))
                    done += len(taken)
                return done

            shares = await asyncio.gather(work(one, ours), work(two, theirs))
            assert sum(shares) == 6 * many
            assert min(shares) > 0
            for each in sent:
                events = await one.events(1, each.id)
                assert [event.seq for event in events] == list(range(1, 8))
            assert (await two.facts()).states["delivered"] == 6 * many

    asyncio.run(scene())


# --- servers that come and go ---------------------------------------------------------------------


def test_a_session_that_was_ended_costs_nobody_anything(server: Postgres, database: str) -> None:
    """As a failover, a pool or an administrator ends it, between two calls."""
    end = (
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE application_name = 'everpost'"
    )

    async def scene() -> None:
        async with _opened(server, database) as store:
            sent = message()
            await store.accept(1, [sent])
            await store.message(1, sent.id)
            assert len(server.execute("postgres", end)) >= 2
            assert await store.accept(1, [message()]) == Accepted(Assurance.COMMITTED)
            assert await store.message(1, sent.id) is not None

    asyncio.run(scene())


def test_a_server_that_is_down_is_refused_soon_and_used_when_it_is_back(
    server: Postgres, database: str
) -> None:
    async def scene() -> None:
        async with _opened(server, database) as store:
            await store.accept(1, [message()])
            server.stop()
            since = time.monotonic()
            for _ in range(20):
                with pytest.raises(StoreUnavailable):
                    await store.accept(1, [message()])
                with pytest.raises(StoreUnavailable):
                    await store.facts()
            assert time.monotonic() - since < 5
            assert not store.state().reachable
            assert store.state().problems
            server.start()  # by this thread: it ends with whoever started it
            assert await store.accept(1, [message()]) == Accepted(Assurance.COMMITTED)
            assert (await store.facts()).accepted == 2
            assert store.state().reachable

    asyncio.run(scene())


def test_a_server_that_hangs_is_given_up_after_the_deadline(
    server: Postgres, database: str
) -> None:
    sent = message()

    async def scene() -> None:
        async with _opened(server, database, deadline_s=1.0) as store:
            await store.accept(1, [message()])
            server.pause()
            try:
                since = time.monotonic()
                with pytest.raises(StoreUnavailable):
                    await store.accept(1, [sent])
                assert time.monotonic() - since < 8
            finally:
                server.resume()
            assert await until_it_is_taken(store, sent) == Accepted(Assurance.COMMITTED)
            assert (await store.facts()).accepted == 2

    asyncio.run(scene())


def test_a_primary_that_turned_read_only_is_not_written_to(server: Postgres, database: str) -> None:
    async def scene() -> None:
        async with _opened(server, database) as store:
            await store.accept(1, [message()])
            with _set(server, "default_transaction_read_only", "on", takes="on"):
                with pytest.raises(StoreUnavailable, match="read-only"):
                    await store.accept(1, [message()])
                await _eventually(lambda: not store.state().writable)
            assert await store.accept(1, [message()]) == Accepted(Assurance.COMMITTED)
            await _eventually(lambda: store.state().writable)
            assert (await store.facts()).accepted == 2

    asyncio.run(scene())


def test_a_server_that_others_have_left_is_not_held_on_to(server: Postgres, database: str) -> None:
    """Its sessions stay open, and look well: only by a new one does a lane come to the next."""
    sessions = "SELECT pid FROM pg_stat_activity WHERE application_name = 'everpost'"

    async def scene() -> None:
        async with _opened(server, database, lifetime_s=0.0) as store:
            seen = set()
            for _ in range(3):
                await store.accept(1, [message()])
                await store.facts()
                seen |= {row[0] for row in server.execute("postgres", sessions)}
            assert len(seen) >= 6

    asyncio.run(scene())


# --- settings that lose mail ----------------------------------------------------------------------


def _open(store: Store) -> None:
    async def scene() -> None:
        try:
            await store.open()
        finally:
            await store.close()

    asyncio.run(scene())


def test_a_server_that_forgets_at_a_power_cut_is_refused(server: Postgres, database: str) -> None:
    with _set(server, "fsync", "off", takes="off"):
        with pytest.raises(StoreError, match="fsync is off"):
            _open(PostgresStore(server.url(database), clock=HandClock()))
        _open(PostgresStore(server.url(database), clock=HandClock(), durability=Durability.RELAXED))


def test_a_session_of_weaker_promises_is_refused(server: Postgres, database: str) -> None:
    server.execute("postgres", f"ALTER DATABASE {database} SET synchronous_commit = off")
    with pytest.raises(StoreError, match="synchronous_commit is off"):
        _open(PostgresStore(server.url(database), clock=HandClock()))


def test_a_server_without_standbys_does_not_pass_for_replicated(
    server: Postgres, database: str
) -> None:
    with pytest.raises(StoreError, match="synchronous_standby_names"):
        _open(PostgresStore(server.url(database), clock=HandClock(), standbys=1))


def test_promises_that_are_weakened_while_we_run_are_noticed(
    server: Postgres, database: str
) -> None:
    async def scene() -> None:
        async with _opened(server, database) as store:
            await store.accept(1, [message()])
            with _set(server, "synchronous_commit", "local", takes="local"):
                with pytest.raises(StoreUnavailable, match="synchronous_commit"):
                    await store.accept(1, [message()])
                await _eventually(lambda: not store.state().durable)
            assert await store.accept(1, [message()]) == Accepted(Assurance.COMMITTED)

    asyncio.run(scene())


def test_many_processes_that_start_at_once_make_one_schema(server: Postgres) -> None:
    server.create("empty")
    errors: list[BaseException] = []

    def start() -> None:
        try:
            _open(PostgresStore(server.url("empty"), clock=HandClock()))
        except BaseException as error:
            errors.append(error)

    try:
        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert server.execute("empty", "SELECT count(*) FROM projects") == [(1,)]
    finally:
        server.drop("empty")
