"""F9 in the store: a bit flips in a row or in an index. What is damaged is held, its neighbours go
out, and whoever asks gets an answer."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest

from everpost import telemetry
from everpost.ids import Id
from everpost.model.message import NewMessage
from everpost.model.outcome import AttemptRecord, Deferred, Phase, Speaker
from everpost.model.states import State
from everpost.recovery.rescuer import decide_rescue
from everpost.store.checksums import row_crc
from everpost.store.interface import Claim, Settlement, StoreCorrupt
from everpost.store.sqlite import SqliteStore
from tests.conformance.making import START, HandClock, claims, make_id, message

ALARMS = ("row_corrupt", "content_corrupt", "store_corrupt", "store_unavailable")
OWNER = make_id()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    yield
    for name in ALARMS:
        telemetry.alarm(name).clear()


class Damaged:
    """A store whose file was changed while nobody had it open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = HandClock()

    def store(self) -> SqliteStore:
        return SqliteStore(self.path, clock=self.clock)

    def accepts(self, *messages: NewMessage) -> None:
        async def scene() -> None:
            store = self.store()
            await store.open()
            await store.accept(1, messages)
            await store.checkpoint()
            await store.close()

        asyncio.run(scene())

    def change(self, sql: str, **values: Any) -> None:
        db = apsw.Connection(str(self.path))
        db.execute(sql, values)
        assert db.total_changes()
        db.close()

    def change_whatever_it_is(self, sql: str, id_: Id) -> None:
        """As `change` of recipients, past the types of their columns."""
        db = apsw.Connection(str(self.path))
        whole = str(db.execute("SELECT sql FROM sqlite_schema WHERE name = 'recipients'").get)
        loose = (
            whole.replace("STRICT, ", "")
            .replace("NOT NULL DEFAULT 0", "")
            .replace("INTEGER NOT NULL", "")
        )
        db.close()
        for schema, change in ((loose, sql), (whole, None)):
            db = apsw.Connection(str(self.path))
            db.execute("PRAGMA writable_schema = ON")
            db.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'recipients'", (schema,))
            db.close()
            if change:
                self.change(change, id=id_)

    def flip(self, text: bytes, at: int, *, bit: int, nth: int) -> None:
        """One bit of byte `at` of the `nth` place in the file that has `text`."""
        stored = bytearray(self.path.read_bytes())
        place = -1
        for _ in range(nth + 1):
            place = stored.index(text, place + 1)
        stored[place + at] ^= 1 << bit
        self.path.write_bytes(stored)

    def claims(self) -> tuple[Sequence[Claim], dict[Id, set[str]]]:
        """What a claim takes, and the reasons in the events of what it holds, by message."""

        async def scene() -> tuple[Sequence[Claim], dict[Id, set[str]]]:
            store = self.store()
            await store.open()
            await store.seen(OWNER)  # the writer has its connection: a claim looks before it writes
            taken = claims(await store.claim(OWNER, limit=50, lease_ms=9_000))
            held: dict[Id, set[str]] = {}
            for row in (await store.messages(1, limit=50))[0]:
                for recipient in row.recipients:
                    if recipient.state is State.HELD:
                        assert recipient.reason == "damaged"
                        for event in await store.events(1, row.id):
                            if event.type == "held":
                                held.setdefault(row.id, set()).add(event.data["reason"])
            assert not await store.claim(OWNER, limit=50, lease_ms=9_000)
            await store.close()
            return taken, held

        return asyncio.run(scene())


@pytest.fixture
def damaged(database: Path) -> Damaged:
    return Damaged(database)


UNREADABLE = "CAST(X'61ff40312e74657374' AS TEXT)"


@pytest.mark.parametrize("column", ["address", "destination", "route"])
def test_text_of_a_recipient_is_not_utf8_any_more(damaged: Damaged, column: str) -> None:
    bad, good = message("a@1.test", "b@2.test"), message("c@3.test", "d@1.test")
    damaged.accepts(bad, good)
    change = f"UPDATE recipients SET {column} = {UNREADABLE} WHERE message = :id AND n = 1"
    damaged.change(change, id=bad.id)
    taken, held = damaged.claims()
    assert {(c.message, c.n) for c in taken} == {(bad.id, 2), (good.id, 1), (good.id, 2)}
    assert held == {bad.id: {"recipient unreadable"}}
    assert telemetry.alarm("row_corrupt").raised
    assert not telemetry.alarm("store_unavailable").raised


def test_an_address_is_damaged_while_it_waits_for_its_hour(damaged: Damaged) -> None:
    later = START + 60_000
    bad, good = message("a@1.test", not_before=later), message("b@1.test", not_before=later)
    damaged.accepts(bad, good)
    damaged.change(f"UPDATE recipients SET address = {UNREADABLE} WHERE message = :id", id=bad.id)
    damaged.clock.pass_(60_000)
    taken, held = damaged.claims()
    assert [c.message for c in taken] == [good.id]
    assert held == {bad.id: {"recipient unreadable"}}


def test_mail_to_addresses_beyond_ascii_is_not_suspected(damaged: Damaged) -> None:
    bad, good = message("a@1.test"), message("jürgen@straße.test")
    damaged.accepts(bad, good)
    damaged.change(f"UPDATE recipients SET address = {UNREADABLE} WHERE message = :id", id=bad.id)
    taken, held = damaged.claims()
    assert [c.message for c in taken] == [good.id]
    assert set(held) == {bad.id}


NUMBERS = pytest.mark.parametrize(
    ("column", "value"),
    [(c, "NULL") for c in ("term", "attempts", "crashes", "expires_at")]
    + [(c, "1e-300") for c in ("not_before", "expires_at")],
)


@NUMBERS
def test_a_bit_makes_a_number_another_type(damaged: Damaged, column: str, value: str) -> None:
    """A stored 0 is one bit away from NULL, a time one bit away from a fraction."""
    bad, good = message("a@1.test"), message()
    damaged.accepts(bad, good)
    damaged.change_whatever_it_is(
        f"UPDATE recipients SET {column} = {value} WHERE message = :id", bad.id
    )
    taken, held = damaged.claims()
    assert [c.message for c in taken] == [good.id]
    assert held == {bad.id: {"recipient unreadable"}}


@NUMBERS
def test_a_bit_makes_a_number_another_type_while_it_is_claimed(
    damaged: Damaged, column: str, value: str
) -> None:
    """Its process dies: the claims beside it are rescued, it is held."""
    bad, good = message("a@1.test"), message()
    damaged.accepts(bad, good)
    assert len(damaged.claims()[0]) == 2
    damaged.change_whatever_it_is(
        f"UPDATE recipients SET {column} = {value} WHERE message = :id", bad.id
    )

    async def scene() -> None:
        store = damaged.store()
        await store.open()
        left = await store.claims_of(OWNER, expired_only=False, limit=9)
        assert {claim.message for _, claim, _ in left} == {bad.id, good.id}
        told = [
            decide_rescue(claim, policy, dots=None, now=START, jitter=0.5)
            for _, claim, policy in left
        ]
        assert await store.rescue(OWNER, told) == [True, True]
        assert not await store.claims_of(OWNER, expired_only=False, limit=9)
        states = {
            row.id: (row.recipients[0].state, row.recipients[0].reason)
            for row in (await store.messages(1, limit=9))[0]
        }
        assert states == {bad.id: (State.HELD, "damaged"), good.id: (State.QUEUED, None)}
        await store.close()

    asyncio.run(scene())


def test_an_index_that_cannot_be_mended_now_fails_the_claim_alone(damaged: Damaged) -> None:
    """Whoever claims hears of it as of any damage, and tries again."""
    damaged.accepts(message("a@flip.test"))
    stored = damaged.path.read_bytes()
    at = stored.index(b"flip.testtoqueued")
    damaged.flip(b"flip.testtoqueued", stored[at:].index(b"queued"), bit=0, nth=0)

    async def scene() -> None:
        store = damaged.store()
        await store.open()
        store._mender._not_before = 1 << 60
        with pytest.raises(StoreCorrupt):
            await store.claim(OWNER, limit=50, lease_ms=9_000)
        await store.close()

    asyncio.run(scene())


def test_a_bit_flips_in_a_destination(damaged: Damaged) -> None:
    bad, good = message("a@1.test"), message()
    damaged.accepts(bad, good)
    damaged.change("UPDATE recipients SET destination = '3.test' WHERE message = :id", id=bad.id)
    taken, held = damaged.claims()
    assert [c.message for c in taken] == [good.id]
    assert held == {bad.id: {"recipient checksum"}}


@pytest.mark.parametrize(
    "change",
    [
        f"sender = {UNREADABLE}",
        f"stream = {UNREADABLE}",
        f"tags = {UNREADABLE}",
        f"in_doubt = {UNREADABLE}",
        "in_doubt = 'reseld'",
    ],
)
def test_text_of_a_message_is_not_what_it_was(damaged: Damaged, change: str) -> None:
    bad, good = message("a@1.test", "b@2.test"), message()
    damaged.accepts(bad, good)
    damaged.change(f"UPDATE messages SET {change} WHERE id = :id", id=bad.id)
    taken, held = damaged.claims()
    assert [c.message for c in taken] == [good.id]
    assert held == {bad.id: {"message unreadable"}}
    assert telemetry.alarm("content_corrupt").raised


@pytest.mark.parametrize("bit", [0, 7])
@pytest.mark.parametrize("nth", [0, 1, 2])
def test_a_bit_flips_in_a_route_or_in_the_index_of_routes(
    damaged: Damaged, bit: int, nth: int
) -> None:
    """The row and its index differ: the index is built anew, and nothing stands still. A row whose
    route is still text goes out, in a lane of its own: route is a queue, not an address."""
    bad, good = message("a@flip.test"), [message() for _ in range(5)]
    damaged.accepts(bad, *good)
    route = b"1/transactional/flip.test"
    assert damaged.path.read_bytes().count(route) == 2
    text = route if nth < 2 else b"a@flip.test"
    damaged.flip(text, 4, bit=bit, nth=nth % 2)
    taken, held = damaged.claims()
    assert {c.message for c in taken} >= {m.id for m in good}
    assert ({c.message for c in taken} | set(held)) == {bad.id, *(m.id for m in good)}


def test_a_bit_flips_in_the_word_queued(damaged: Damaged) -> None:
    """The queue's index still leads to a row that is queued no more: it is not claimed again and
    again, and its neighbours go out."""
    bad, good = message("a@flip.test"), message("a@other.test")
    damaged.accepts(bad, good)
    stored = damaged.path.read_bytes()
    at = stored.index(b"flip.testtoqueued")
    damaged.flip(b"flip.testtoqueued", stored[at:].index(b"queued"), bit=0, nth=0)
    taken, held = damaged.claims()
    assert ([c.message for c in taken], held) == ([good.id], {})


async def _tried(store: SqliteStore) -> Id:
    """A message with an attempt, due again."""
    sent = message("a@1.test")
    await store.accept(1, [sent])
    (claim,) = claims(await store.claim(OWNER, limit=1, lease_ms=9_000))
    outcome = Deferred(reason="x", phase=Phase.ROUTE, speaker=Speaker.SELF)
    await store.settle(
        OWNER,
        [
            Settlement(
                message=claim.message,
                n=1,
                term=claim.term,
                target=State.QUEUED,
                event="deferred",
                data={"attempt": 1},
                outcome=outcome,
                attempt=AttemptRecord(5, 6, form="seven_bit", body_hash=b"h"),
                not_before=0,
            )
        ],
    )
    return sent.id


def test_a_timeline_that_cannot_be_read_is_shown_as_far_as_it_can(damaged: Damaged) -> None:
    async def scene() -> None:
        store = damaged.store()
        await store.open()
        id_ = await _tried(store)
        for table, column, value in (
            ("events", "data", "'{'"),
            ("events", "type", UNREADABLE),
            ("attempts", "detail", UNREADABLE),
            ("attempts", "record", "'{'"),
            ("attempts", "form", UNREADABLE),
            ("messages", "subject", UNREADABLE),
            ("messages", "lists", "'[]'"),
            ("messages", "tags", "'{'"),
            ("recipients", "kind", UNREADABLE),
        ):
            damaged.change(f"UPDATE {table} SET {column} = {value}")
        first, second = await store.events(1, id_)
        assert (first.data, first.seq, second.seq) == ({"unreadable": True}, 1, 2)
        assert "\ufffd" in first.type
        (attempt,) = await store.attempts(1, id_)
        assert attempt.outcome == {"type": "unreadable"}
        assert (attempt.record.started_at, attempt.record.ended_at) == (5, 6)
        row = await store.message(1, id_)
        assert row is not None
        assert "\ufffd" in row.subject
        assert (row.to, row.tags) == ([], [])
        assert [row.id for row in (await store.messages(1, limit=5))[0]] == [id_]
        assert len(await store.outbox("x", limit=5)) == 2
        assert telemetry.alarm("row_corrupt").raised
        (claim,) = claims(await store.claim(OWNER, limit=1, lease_ms=9_000))
        assert (claim.message, claim.attempts) == (id_, 1)
        await store.close()

    asyncio.run(scene())


def test_a_claim_whose_process_died_is_found_though_its_address_is_damaged(
    damaged: Damaged,
) -> None:
    async def scene() -> None:
        store = damaged.store()
        await store.open()
        await store.accept(1, [message("a@1.test")])
        await store.claim(OWNER, limit=1, lease_ms=9_000)
        damaged.change(f"UPDATE recipients SET address = {UNREADABLE}")
        found = await store.claims_of(OWNER, expired_only=False, limit=9)
        assert [claim.n for _, claim, _ in found] == [1]
        await store.close()

    asyncio.run(scene())


def test_the_checksum_of_a_row_tells_each_part_of_it() -> None:
    id_, address, destination = make_id(), b"someone@mail.test", b"mail.test"
    found = {
        row_crc(id_, 1, address, destination),
        row_crc(make_id(), 1, address, destination),
        row_crc(id_, 2, address, destination),
        row_crc(id_, 1, b"someonf@mail.test", destination),
        row_crc(id_, 1, address, b"mail.tesu"),
    }
    assert len(found) == 5
