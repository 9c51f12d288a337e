"""What PostgreSQL's own checks find, what only it can suffer, and what its outbox must not miss."""

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from everpost import telemetry
from everpost.ledger import Findings, check_store, walk
from everpost.store.interface import Store, StoreCorrupt
from everpost.store.postgres import PostgresStore
from tests.conformance.conftest import make_schema
from tests.conformance.engines import PostgresEngine
from tests.conformance.making import HandClock, message
from tests.support.postgres import Postgres, serving_postgres

DATABASE = "everpost"


@pytest.fixture
def own_server() -> Iterator[Postgres]:
    """One whose files a test may damage."""
    with serving_postgres() as server:
        server.create(DATABASE)
        make_schema("postgres", server.url(DATABASE))
        yield server


def _store(server: Postgres) -> Store:
    return PostgresStore(server.url(DATABASE), clock=HandClock())


async def _checked(store: Store) -> Findings:
    findings = Findings()
    await walk(store, findings)
    await check_store(store, findings)
    return findings


def test_pages_are_torn_on_the_disk(own_server: Postgres) -> None:
    """They are reported, and not half checked; what lies in sound pages is sent."""

    async def fill() -> None:
        store = _store(own_server)
        await store.open()
        await store.accept(1, [message(sealed=b"x" * 3000) for _ in range(300)])
        await store.close()

    asyncio.run(fill())
    ((path,),) = own_server.execute(DATABASE, "SELECT pg_relation_filepath('contents_other')")
    own_server.stop()
    file = own_server.data / str(path)
    data = bytearray(file.read_bytes())
    for at in range(len(data) // 2 // 8192 * 8192, len(data), 8192):
        data[at + 4000 : at + 4064] = b"\xa5" * 64
    file.write_bytes(data)
    own_server.start()

    async def scene() -> None:
        store = _store(own_server)
        await store.open()
        findings = Findings()
        checked = await walk(store, findings)
        assert findings.counts["store_damaged"] >= 1
        assert not checked.complete
        await check_store(store, findings)
        assert findings.counts["store_damaged"] >= 2  # the engine's own word: it counts failures
        page, _ = await store.messages(1, limit=300)
        read = [store.message(1, row.id) for row in page]
        outcomes = await asyncio.gather(*read, return_exceptions=True)
        assert 0 < sum(isinstance(each, StoreCorrupt) for each in outcomes) < len(page)
        await store.close()

    asyncio.run(scene())


def test_an_index_lacks_rows(postgres_engine: PostgresEngine) -> None:
    """What a claim would never find."""
    engine = postgres_engine
    ready = "UPDATE pg_index SET indisready = {} WHERE indexrelid = 'recipients_queue'::regclass"

    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [message()])
            engine.server.execute(engine.database, "CREATE EXTENSION amcheck")
            assert (await _checked(store)).kept == []
        engine.server.execute(engine.database, ready.format("false"))
        async with engine.opened() as store:
            await store.accept(1, [message()])
        engine.server.execute(engine.database, ready.format("true"))
        async with engine.opened() as store:
            findings = await _checked(store)
            assert set(findings.counts) == {"store_damaged"}
            assert "recipients_queue" in findings.kept[0].text

    asyncio.run(scene())


def test_what_the_engine_cannot_check_is_said_and_is_no_damage(
    postgres_engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(telemetry, "event", lambda _, **fields: said.append(str(fields)))

    async def scene() -> None:
        async with postgres_engine.opened() as store:
            assert await store.engine_check() == []

    asyncio.run(scene())
    assert any("CREATE EXTENSION amcheck" in each for each in said)


def test_a_database_of_another_schema_is_not_audited(postgres_engine: PostgresEngine) -> None:
    async def scene() -> None:
        async with postgres_engine.opened() as store:
            postgres_engine.execute("UPDATE alembic_version SET version_num = '9999'")
            findings = Findings()
            with pytest.raises(Exception, match="schema '9999'"):
                await store.audit_totals()
            assert findings.kept == []

    asyncio.run(scene())


def test_a_slow_transaction_ends_after_a_later_one_and_no_consumer_misses_it(
    postgres_engine: PostgresEngine,
) -> None:
    """Numbers from a sequence are not in commit order."""
    engine = postgres_engine
    slow, quick = message(), message()

    async def scene() -> None:
        async with engine.opened() as store:
            with psycopg.connect(engine.server.url(engine.database)) as other:
                other.execute(
                    "INSERT INTO events (message, seq, type, at, data)"
                    " VALUES (%s, 1, 'accepted', 1, '{}')",
                    (slow.id,),
                )
                await store.accept(1, [quick])
                assert await store.outbox("webhooks", limit=9) == []  # not yet
                other.commit()
            first, second = await store.outbox("webhooks", limit=9)
            assert (first.message, second.message) == (slow.id, quick.id)
            await store.mark_published("webhooks", first.position)
            assert await store.outbox("webhooks", limit=9) == [second]

    asyncio.run(scene())


def test_the_number_of_a_transaction_has_one_more_digit(postgres_engine: PostgresEngine) -> None:
    first, second = message(), message()
    insert = (
        "INSERT INTO events (message, seq, type, at, data, tx)"
        " VALUES (:id, 1, 'accepted', 1, '{}', CAST(:tx AS xid8))"
    )

    async def scene() -> None:
        async with postgres_engine.opened() as store:
            postgres_engine.execute(insert, {"id": second.id, "tx": "10"})
            postgres_engine.execute(insert, {"id": first.id, "tx": "9"})
            found = await store.outbox("webhooks", limit=9)
            assert [event.message for event in found] == [first.id, second.id]
            await store.mark_published("webhooks", found[0].position)
            await store.mark_published("webhooks", found[1].position)
            assert await store.outbox("webhooks", limit=9) == []

    asyncio.run(scene())


def test_a_bigger_store_is_cut_into_pieces_of_about_the_same_size(
    postgres_engine: PostgresEngine,
) -> None:
    async def scene() -> None:
        async with postgres_engine.opened() as store:
            sent = [message() for _ in range(2_000)]
            for at in range(0, len(sent), 100):
                await store.accept(1, sent[at : at + 100])
            bounds = await store.audit_bounds(4)
            assert len(bounds) == 3
            ids = sorted(m.id for m in sent)
            places = [sum(id_ <= bound for id_ in ids) for bound in bounds]
            assert all(abs(place - 500 * n) < 150 for n, place in enumerate(places, 1)), places

    asyncio.run(scene())
