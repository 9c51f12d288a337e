"""What waits for a lane, and the transaction that it is written in."""

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar

from everpost.model.message import Assurance
from everpost.store.auditing import ACCEPTED
from everpost.store.postgres.arrays import Rows
from everpost.store.postgres.connection import SQL, Db

__all__ = [
    "ACCEPTED",
    "Rows",
    "Single",
    "Transaction",
    "Work",
    "fetch_all",
    "fetch_rows",
    "integer",
    "run",
    "write_rows",
]

T = TypeVar("T")
Values = Sequence[Any] | Mapping[str, Any]

_TOUCH = SQL["touch"]


def run(db: Db, query: bytes, values: Values = ()) -> int:
    """Run one statement; how many rows it changed."""
    return db.rows.execute(query, values).rowcount


def fetch_all(db: Db, query: bytes, values: Values = ()) -> list[tuple[Any, ...]]:
    """Every row of one statement."""
    return db.rows.execute(query, values).fetchall()


def integer(db: Db, query: bytes, values: Values = ()) -> int:
    """The first column of the first row, as an int; 0 when there is none or it is NULL."""
    row = db.rows.execute(query, values).fetchone()
    return int((row[0] if row else 0) or 0)


def write_rows(db: Db, query: Rows, values: Sequence[Any], *, before: tuple[Any, ...] = ()) -> int:
    """Run `query` for a flat list of rows, unless it is empty; how many rows were changed. `before`
    are the values of the placeholders that stand before the arrays."""
    if not values:
        return 0
    return db.rows.execute(query.query, (*before, *query.columns(values))).rowcount


def fetch_rows(
    db: Db, query: Rows, values: Sequence[Any], *, before: tuple[Any, ...] = ()
) -> list[tuple[Any, ...]]:
    """As `write_rows`, for a query that answers with rows."""
    if not values:
        return []
    return db.rows.execute(query.query, (*before, *query.columns(values))).fetchall()


class Transaction:
    """One write transaction. `now` is its time, `steady` the same for leases; `queued` counts
    recipients that it made due. `assurance`: what its COMMIT will mean. `doubted`: the same works
    were run before, and it is not known whether that COMMIT held."""

    __slots__ = (
        "_shard", "_tallies", "_touched", "assurance", "db", "doubted", "now", "queued", "steady",
    )  # fmt: skip

    def __init__(
        self,
        db: Db,
        now: int,
        *,
        steady: int,
        shard: int = 0,
        assurance: Assurance = Assurance.COMMITTED,
        doubted: bool = False,
    ) -> None:
        self.db = db
        self.now = now
        self.steady = steady
        self.queued = 0
        self.assurance = assurance
        self.doubted = doubted
        self._shard = shard
        self._touched = False
        self._tallies: Counter[tuple[int, str]] = Counter()

    def another(self) -> "Transaction":
        """The same transaction with nothing gathered: after a savepoint was gone back to."""
        return Transaction(
            self.db,
            self.now,
            steady=self.steady,
            shard=self._shard,
            assurance=self.assurance,
            doubted=self.doubted,
        )

    def tally(self, project: int, state: str, n: int) -> None:
        """Add `n` (may be negative) to a count by state."""
        self._tallies[project, state] += n

    def touch(self) -> None:
        """An answer rests on what others wrote: make sure that COMMIT waits until that is safe too.
        One that has written nothing would wait for nothing."""
        self._touched = True

    def finish(self) -> None:
        """Write what was gathered; before COMMIT, or before a savepoint is released."""
        values = [
            v
            for (project, state), n in sorted(self._tallies.items())
            if n
            for v in (project, state, n)
        ]
        self._tallies.clear()
        write_rows(self.db, _ADD_TALLY, values, before=(self._shard,))
        if self._touched or self.doubted:
            self._touched = False
            fetch_all(self.db, _TOUCH)


_ADD_TALLY = Rows(SQL["add_tallies"])


class Work(ABC, Generic[T]):
    """One verb on its way to a lane. `withdrawn`: its caller has gone, it must not start;
    `started`: only its transaction's end can answer it any more.
    `queued` is set when done: recipients that it made due. `since` and `began`: monotonic seconds
    when it was handed in and when its transaction began, 0.0 before."""

    __slots__ = ("began", "future", "queued", "since", "started", "withdrawn")

    verb: ClassVar[str] = "other"
    """What metrics call it."""

    merged: ClassVar[bool] = False
    """Whether works of this class share their statements (`run` gets all of a batch)."""

    takes: ClassVar[bool] = False
    """Whether its caller gets what nobody else may have meanwhile: where he has gone before the
    answer, or was told that it is in doubt, `take_back` is called."""

    turn: ClassVar[int] = 0
    """When in a transaction it is done: the later, the less it waits for what others have locked,
    and the more others wait for what it locks."""

    def __init__(self) -> None:
        self.future: asyncio.Future[T] | None = None
        self.since = 0.0
        self.began = 0.0
        self.started = False
        self.withdrawn = False
        self.queued = 0

    def wanted(self, db: Db) -> bool:
        """A look before any transaction begins: False spares it, `idle` is the answer."""
        return True

    def idle(self) -> T:
        """The answer when nothing was wanted. Only a class that overrides `wanted` is asked."""
        raise RuntimeError(f"{type(self).__name__} is always wanted")

    @classmethod
    @abstractmethod
    def run(cls, tx: Transaction, works: Sequence[Self]) -> list[T]:
        """Do all of `works` (one, unless `merged`), answer each in order. An exception undoes the
        whole transaction; then each is run alone, so that only the guilty one fails. With
        `tx.doubted` they may have been done already: then nothing is done twice."""

    def take_back(self, tx: Transaction) -> bool:
        """Its caller was told that it is in doubt, or has gone, and does not know what it may have
        got: give that back. False: not known yet, ask again."""
        return True


class Single(Work[T]):
    """A rare verb: a function of the transaction."""

    __slots__ = ("_do",)

    def __init__(self, do: Callable[[Transaction], T]) -> None:
        super().__init__()
        self._do = do

    @classmethod
    def run(cls, tx: Transaction, works: "Sequence[Single[T]]") -> list[T]:
        return [work._do(tx) for work in works]
