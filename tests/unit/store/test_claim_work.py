"""How much a claim costs, counted in steps of SQLite's virtual machine: the same however much waits
behind it (F37)."""

from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from everpost.ids import Id
from everpost.store.sqlite.accepting import Accept
from everpost.store.sqlite.claiming import ClaimWork, Turns
from everpost.store.sqlite.reading import facts, next_due
from everpost.store.sqlite.work import Transaction
from tests.conformance.making import START, make_id, message

MANY = 20_000


@pytest.fixture
def db(database: Path) -> Iterator[apsw.Connection]:
    db = apsw.Connection(str(database))
    yield db
    db.close()


def _steps(db: apsw.Connection, work: Callable[[], object]) -> int:
    steps = 0

    def count() -> bool:
        nonlocal steps
        steps += 1
        return False

    db.set_progress_handler(count, 10)
    work()
    db.set_progress_handler(None)
    return steps


def _accept(db: apsw.Connection, *addresses: str) -> list[Id]:
    sent = [message(address) for address in addresses]
    with db:
        tx = Transaction(db, START)
        Accept.run(tx, [Accept(1, sent, None, now=START, durability="committed")])
        tx.finish()
    return [m.id for m in sent]


def _fill(db: apsw.Connection, *, route: str, due: int, n: int = MANY) -> None:
    """Queue rows of other messages: `n` on one route, or one each on `n` routes (`route` "")."""
    db.execute(
        """
        WITH RECURSIVE numbers (value) AS (
          SELECT 1 UNION ALL SELECT value + 1 FROM numbers WHERE value < :n
        )
        INSERT INTO recipients (message, n, project, address, destination, kind, state, priority,
          route, not_before, due, expires_at)
        SELECT randomblob(16), 1, 1, 'x', 'x', 'to', 'queued', 0,
          iif(:route = '', 'route-' || value, :route),
          :start + iif(:due, -value, value), :due, :start * 2
        FROM numbers
        """,
        {"route": route, "due": due, "start": START, "n": n},
    )


def _claim(
    db: apsw.Connection, *, limit: int = 10, busy: tuple[str, ...] = ()
) -> tuple[list[Id], int]:
    """What is claimed (and put back), and the steps that took, the look before it included."""
    work = ClaimWork(make_id(), limit=limit, lease_ms=1, busy=busy, turns=Turns(), now=START)
    taken: list[Id] = []

    def run() -> None:
        if work.wanted(db):
            taken.extend(
                t.claimed.message for t in ClaimWork.run(Transaction(db, START), [work])[0]
            )

    db.execute("BEGIN")
    steps = _steps(db, run)
    db.execute("ROLLBACK")
    return taken, steps


def test_a_claim_beside_many_that_wait_for_their_hour(db: apsw.Connection) -> None:
    ids = _accept(db, "a@r.test", "b@r.test")
    taken, alone = _claim(db)
    assert taken == ids
    _fill(db, route="r.test", due=0)
    _fill(db, route="", due=0)
    taken, beside = _claim(db)
    assert taken == ids
    assert beside <= alone * 1.2 + 5


def test_a_claim_beside_a_busy_route_with_a_long_queue(db: apsw.Connection) -> None:
    ids = _accept(db, "a@r.test", "b@r.test")
    _, alone = _claim(db)
    _fill(db, route="busy.test", due=1)
    taken, beside = _claim(db, busy=("busy.test",))
    assert taken == ids
    assert beside <= alone * 1.5 + 20


def test_a_look_that_finds_only_busy_routes(db: apsw.Connection) -> None:
    _, nothing = _claim(db)
    _fill(db, route="busy.test", due=1)
    taken, steps = _claim(db, busy=("busy.test",))
    assert taken == []
    assert steps <= nothing + 20


def test_a_claim_beside_very_many_routes(db: apsw.Connection) -> None:
    """Only as many routes are looked at as rows are wanted."""
    _fill(db, route="", due=1, n=200)
    _, few = _claim(db)
    _fill(db, route="", due=1)
    _, many = _claim(db)
    assert many <= few * 1.2 + 20


def test_facts_and_the_next_due_time_of_a_long_queue(db: apsw.Connection) -> None:
    _accept(db, "a@r.test")
    few = _steps(db, lambda: (facts(db, now=START), next_due(db)))
    _fill(db, route="r.test", due=1, n=5_000)
    _fill(db, route="", due=0)
    middle = _steps(db, lambda: next_due(db))
    assert middle <= few
    _fill(db, route="r.test", due=1, n=15_000)
    assert _steps(db, lambda: next_due(db)) <= middle + 5
    assert facts(db, now=START).due == 10_000
