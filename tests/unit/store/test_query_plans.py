"""The line's queries must cost the same with a million rows: they seek, they never scan a table,
and they never sort what an index has in order."""

import re
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from everpost.store.queries import Rows
from everpost.store.sqlite.connection import SQL

MAY_SCAN = {
    # tables of settings: small, read as a whole
    "projects", "streams", "api_keys", "domains", "dkim_keys", "relays", "pools", "routes",
    "data_keys", "audit", "workers", "audit_workers", "audit_schema",
    # a row a process, a row a node
    "processes_that_share", "nodes",
    # a row a relay or site (and process), never one a message
    "purge_notes", "purge_seats", "purge_budgets", "purgeable_shares",
    # tallies: a row a project and state
    "tallies", "audit_tallies",
    # all of it, on purpose, seldom
    "audit_counts", "queued_beyond_ascii", "mend_numbers",
    # claimed rows only: as many as processes hold at once
    "claims_of_anyone",
    # bounded by LIMIT along an index
    "due_now", "due_unseen", "next_later", "audit_messages", "is_orphan",
}  # fmt: skip
MAY_SORT = {
    "attempts_of_message",  # one message's
    "body_hashes",  # one claim's messages
    "notes_of_kinds",  # a row a relay or site, once
    "claims_of_anyone",
    "routes",  # settings
    "tallies",
    "audit_tallies",
    "audit_counts",
    "queued_beyond_ascii",
    "workers",
}


@pytest.fixture
def db(database: Path) -> Iterator[apsw.Connection]:
    db = apsw.Connection(str(database))
    yield db
    db.close()


def _plan(db: apsw.Connection, query: str) -> list[str]:
    if "/*rows*/" in query:
        query = Rows(query).text(3)
    names = re.findall(r":([a-z_]+)", query)
    values = dict.fromkeys(names, 1) if names else (1,) * query.count("?")
    return [str(row[3]) for row in db.execute("EXPLAIN QUERY PLAN " + query, values)]


@pytest.mark.parametrize("name", sorted(SQL))
def test_a_query_that_would_slow_down_as_the_store_fills(db: apsw.Connection, name: str) -> None:
    plan = _plan(db, SQL[name])
    scans = [
        step
        for step in plan
        if step.startswith("SCAN")
        and not any(word in step for word in ("CONSTANT ROW", "VALUES CLAUSE", "VIRTUAL TABLE"))
        and step.split()[1] not in {"head", "lane", "p", "v"}
    ]
    if name not in MAY_SCAN:
        assert scans == [], plan
    if name not in MAY_SORT:
        assert not any("USE TEMP B-TREE" in step for step in plan), plan


def test_what_is_known_of_relays_is_looked_for_among_all_greylists(db: apsw.Connection) -> None:
    """Fifty thousand greylists made each look at the relays' state take 0.1 s."""
    assert any(
        "notes USING PRIMARY KEY (kind=?)" in step for step in _plan(db, SQL["notes_of_kinds"])
    )
