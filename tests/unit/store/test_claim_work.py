"""F37: very many rows wait, due or deferred. How much a claim costs, counted in steps of SQLite's
virtual machine, is the same however much waits behind it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from everpost.ids import Id
from everpost.store.sqlite.accepting import Accept
from everpost.store.sqlite.claiming import ClaimWork
from everpost.store.sqlite.quarantine import QueueMender
from everpost.store.sqlite.reading import facts, next_due
from everpost.store.sqlite.work import Transaction
from everpost.store.turns import Turns
from tests.conformance.making import START, UP, lane, make_id, message

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
        tx = Transaction(db, START, steady=UP)
        Accept.run(tx, [Accept(1, sent, None, now=START, durability="committed")])
        tx.finish()
    return [m.id for m in sent]


def _fill(db: apsw.Connection, *, route: str, due: int, n: int = MANY) -> None:
    """Queue rows of other messages: `n` on one route, or, where it has a `?`, one each on `n`."""
    db.execute(
        """
        WITH RECURSIVE numbers (value) AS (
          SELECT 1 UNION ALL SELECT value + 1 FROM numbers WHERE value < :n
        )
        INSERT INTO recipients (message, n, project, address, destination, kind, state, priority,
          route, not_before, due, expires_at)
        SELECT randomblob(16), 1, 1, 'x', 'x', 'to', 'queued', 0,
          replace(:route, '?', value),
          :start + iif(:due, -value, value), :due, :start * 2
        FROM numbers
        """,
        {"route": route, "due": due, "start": START, "n": n},
    )


def _claim(
    db: apsw.Connection, *, limit: int = 10, busy: tuple[str, ...] = ()
) -> tuple[list[Id], int]:
    """What is claimed (and put back), and the steps that took, the look before it included."""
    work = ClaimWork(
        make_id(),
        limit=limit,
        lease_ms=1,
        busy=busy,
        turns=Turns(),
        mender=QueueMender(),
        now=START,
    )
    taken: list[Id] = []

    def run() -> None:
        if work.wanted(db):
            tx = Transaction(db, START, steady=UP)
            taken.extend(t.claimed.message for t in ClaimWork.run(tx, [work])[0])

    db.execute("BEGIN")
    steps = _steps(db, run)
    db.execute("ROLLBACK")
    return taken, steps


def test_a_claim_beside_many_that_wait_for_their_hour(db: apsw.Connection) -> None:
    ids = _accept(db, "a@r.test", "b@r.test")
    taken, alone = _claim(db)
    assert taken == ids
    _fill(db, route=lane("r.test"), due=0)
    _fill(db, route=lane("?.test"), due=0)
    taken, beside = _claim(db)
    assert taken == ids
    assert beside <= alone * 1.2 + 5


def test_a_claim_beside_a_busy_route_with_a_long_queue(db: apsw.Connection) -> None:
    ids = _accept(db, "a@r.test", "b@r.test")
    _, alone = _claim(db)
    _fill(db, route=lane("busy.test"), due=1)
    taken, beside = _claim(db, busy=(lane("busy.test"),))
    assert taken == ids
    assert beside <= alone * 1.5 + 20


def test_a_look_that_finds_only_busy_routes(db: apsw.Connection) -> None:
    _, nothing = _claim(db)
    _fill(db, route=lane("busy.test"), due=1)
    taken, steps = _claim(db, busy=(lane("busy.test"),))
    assert taken == []
    assert steps <= nothing + 20


def test_a_claim_beside_very_many_routes(db: apsw.Connection) -> None:
    """Only as many routes are looked at as rows are wanted."""
    _fill(db, route=lane("?.test"), due=1, n=200)
    _, few = _claim(db)
    _fill(db, route=lane("?.test"), due=1)
    _, many = _claim(db)
    assert many <= few * 1.2 + 20


@pytest.mark.parametrize(
    "routes", ["?/transactional/r.test", "?.test"], ids=["projects", "routes of an older release"]
)
def test_a_claim_beside_very_many_projects(db: apsw.Connection, routes: str) -> None:
    _fill(db, route=routes, due=1, n=200)
    _, few = _claim(db)
    _fill(db, route=routes, due=1)
    _, many = _claim(db)
    assert many <= few * 1.2 + 20


def test_a_claim_beside_very_many_streams(db: apsw.Connection) -> None:
    _fill(db, route="1/s?/r.test", due=1, n=200)
    _, few = _claim(db)
    _fill(db, route="1/s?/r.test", due=1)
    _, many = _claim(db)
    assert many <= few * 1.2 + 20


def test_a_claim_of_a_hundred_from_a_thousand_projects_of_ten_lanes_each(
    db: apsw.Connection,
) -> None:
    """What it costs beside a hundred from as many lanes of one project."""
    for n in range(10):
        _fill(db, route=lane(f"{n}-?.test"), due=1, n=1_000)
    _, one_project = _claim(db, limit=100)
    db.execute("UPDATE recipients SET due = 0")
    for n in range(10):
        _fill(db, route=f"?/transactional/{n}.test", due=1, n=1_000)
    _, many_projects = _claim(db, limit=100)
    assert many_projects <= one_project * 3


@pytest.mark.parametrize("busy", ["2/", "2/transactional/"])
def test_a_claim_beside_a_busy_project_with_very_many_lanes(db: apsw.Connection, busy: str) -> None:
    ids = _accept(db, "a@r.test", "b@r.test")
    _, alone = _claim(db)
    _fill(db, route="2/transactional/?.test", due=1)
    taken, beside = _claim(db, busy=(busy,))
    assert taken == ids
    assert beside <= alone * 2 + 20
    nothing = _steps(db, lambda: next_due(db, (busy, lane("r.test")), now=START))
    assert next_due(db, (busy, lane("r.test")), now=START) is None
    assert nothing <= 100


def test_rows_of_an_older_release_are_left_behind(db: apsw.Connection) -> None:
    """Their routes name the destination only, and stand between those of today."""
    old = _accept(db, "x@163.test", "x@2.test", "x@a.test")
    db.execute("UPDATE recipients SET route = destination")
    new = _accept(db, "x@a.test")
    taken, _ = _claim(db)
    assert set(taken) == {*old, *new}
    taken, _ = _claim(db, limit=2)
    assert len(taken) == 2
    taken, _ = _claim(db, busy=("a.test", "2.test"))
    assert set(taken) == {old[0], *new}
    assert next_due(db, ("a.test", "2.test", "163.test", "1/"), now=START) is None


def test_facts_and_the_next_due_time_of_a_long_queue(db: apsw.Connection) -> None:
    _accept(db, "a@r.test")
    few = _steps(db, lambda: (facts(db, now=START), next_due(db, now=START)))
    _fill(db, route=lane("r.test"), due=1, n=5_000)
    _fill(db, route=lane("?.test"), due=0)
    middle = _steps(db, lambda: next_due(db, now=START))
    assert middle <= few
    _fill(db, route=lane("r.test"), due=1, n=15_000)
    assert _steps(db, lambda: next_due(db, now=START)) <= middle + 5
    assert facts(db, now=START).due == 10_000


@pytest.mark.parametrize("due", [0, 1])
def test_ten_times_as_many_rows_make_no_claim_dearer(db: apsw.Connection, due: int) -> None:
    _fill(db, route=lane("r.test"), due=due, n=MANY // 10)
    taken, few = _claim(db, limit=100)
    _fill(db, route=lane("r.test"), due=due)
    again, many = _claim(db, limit=100)
    assert len(taken) == len(again)
    assert many <= few * 1.1 + 5
