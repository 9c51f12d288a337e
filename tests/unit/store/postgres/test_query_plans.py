"""What the planner makes of the line's queries: however many days there are, and however stale its
statistics."""

import asyncio
import re
from collections.abc import Iterator

import pytest

from everpost.ids import DAY_MS
from everpost.model.message import Durability
from everpost.store.postgres import PostgresStore
from everpost.store.postgres.connection import SQL, Address, Db
from everpost.store.postgres.work import Rows, fetch_all
from tests.conformance.making import START, HandClock
from tests.support.postgres import Postgres, serving_postgres

_A_DAY = START // DAY_MS
_IDS = [((START + n).to_bytes(6, "big") + bytes(10)) for n in range(8)]
_PARTITION = re.compile(r"\b(?:contents|events|attempts|parts)_(?:\d+|other)\b(?!_)")


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with serving_postgres() as server:
        server.create("mail")
        clock = HandClock()

        async def days() -> None:
            store = PostgresStore(server.url("mail"), clock=clock, durability=Durability.RELAXED)
            await store.open()
            for _ in range(6):
                await store.checkpoint()
                clock.pass_(4 * DAY_MS)
            await store.close()

        asyncio.run(days())
        yield server


@pytest.fixture
def db(server: Postgres) -> Iterator[Db]:
    with Address(server.url("mail"), deadline_s=10).connect() as db:
        db.execute(SQL["begin"])
        yield db
        db.execute(b"ROLLBACK")


def _plan(db: Db, query: bytes, values: object) -> str:
    rows = fetch_all(db, b"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) " + query, values)  # type: ignore[arg-type]
    return "\n".join(row[0] for row in rows)


def _of_rows(name: str, *rows: object, before: tuple[object, ...] = ()) -> tuple[bytes, object]:
    query = Rows(SQL[name])
    return query.query, (*before, *query.columns(rows))


@pytest.mark.parametrize(
    ("query", "values"),
    [
        _of_rows("last_seqs", *_IDS),
        _of_rows("body_hashes", *_IDS),
        _of_rows(
            "claimed_messages", *(v for id_ in _IDS for v in (1, id_, id_)), before=(1024,)
        ),
        (SQL["content"], (_IDS[0],)),
        (SQL["events_of_message"], (_IDS[0],)),
        (SQL["attempts_of_message"], (_IDS[0],)),
        (SQL["parts"], ([_A_DAY], [b"h"], 1, [_A_DAY])),
    ],
    ids=[
        "last_seqs", "body_hashes", "claimed_messages", "content", "events_of_message",
        "attempts_of_message", "parts",
    ],
)  # fmt: skip
def test_a_year_of_days_costs_no_more_than_one(db: Db, query: bytes, values: object) -> None:
    made = fetch_all(db, b"SELECT count(*) FROM pg_class WHERE relname ~ '^events_[0-9]+$'")
    assert made[0][0] >= 20
    plan = _plan(db, query, values)
    touched = set(_PARTITION.findall(plan))
    assert len(touched) <= 1, plan
    assert f"_{_A_DAY}" in plan, plan


_LANES = {
    "priority": 0, "after": "", "upto": "z", "most": 10, "last": "~", "busy": [],
    "busy_groups": [], "lanes": ["1/a/b"], "share": 5, "owner": b"o" * 16, "deadline": 5,
}  # fmt: skip
_RANGES = {**_LANES, "after": ["1/"], "upto": ["1/z"]}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("anything_due", (START,)),
        ("queue_ends", _LANES),
        ("queued_projects", _LANES),
        ("queued_streams", _RANGES),
        ("queued_lanes", {**_RANGES, "most": [10]}),
        ("lanes", _LANES),
        ("claim_rows", _LANES),
        ("promote_due", (START, 500)),
    ],
)
def test_a_claim_never_walks_the_queue(db: Db, name: str, values: object) -> None:
    """Right after a million rows came in, the planner still believes that there are none."""
    plan = _plan(db, SQL[name], values)
    assert "Seq Scan on recipients" not in plan, plan
    assert "Sort" not in plan, plan
    assert re.search(r"recipients_(queue|later)", plan), plan
