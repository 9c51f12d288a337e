"""claim, extend, resign: recipients in the hands of one process, for a term."""

from collections.abc import Sequence
from typing import Any, ClassVar, cast

from everpost.ids import Id
from everpost.model.states import State, Verb
from everpost.store.dividing import Division
from everpost.store.postgres.connection import SQL, Db, StoreInDoubt
from everpost.store.postgres.moves import Moves, Row, rows_by_key
from everpost.store.postgres.taking import with_messages
from everpost.store.postgres.work import Rows, Transaction, Work, fetch_all, fetch_rows, run
from everpost.store.taken import Taken
from everpost.store.turns import LAST, Turns, is_group

__all__ = ["ClaimWork", "extend", "resign"]

_ANYTHING_DUE = SQL["anything_due"]
_ENDS = SQL["queue_ends"]
_PROJECTS = SQL["queued_projects"]
_STREAMS = SQL["queued_streams"]
_STREAM_LANES = SQL["queued_lanes"]
_LANES = SQL["lanes"]
_CLAIM_ROWS = SQL["claim_rows"]
_PROMOTE_DUE = SQL["promote_due"]
_CLAIMED_BEFORE = Rows(SQL["claimed_before"])
_EXTEND = Rows(SQL["extend_claims"])

_PRIORITIES = (0, 1)
_BROADCAST = 1
_PROMOTED_PER_CLAIM = 500

_PROJECT, _TERM = 2, 3
_STATE, _OWNER = 12, 13
"""Columns of `claimed_before`; but for these two they are those of `claim_rows`."""

Triple = tuple[Id, int, int]


class ClaimWork(Work[Sequence[Taken]]):
    """One call of claim. `broadcast`: rows of broadcast mail at most."""

    __slots__ = (
        "_broadcast", "_busy", "_deadline", "_lease_ms", "_limit", "_now", "_overdue", "_owner",
        "_took", "_turns",
    )  # fmt: skip
    verb: ClassVar[str] = Verb.CLAIM
    takes: ClassVar[bool] = True
    turn: ClassVar[int] = 2  # it steps over what is locked

    def __init__(
        self,
        owner: Id,
        *,
        limit: int,
        lease_ms: int,
        busy: Sequence[str],
        turns: Turns,
        now: int,
        broadcast: int | None = None,
    ) -> None:
        super().__init__()
        self._owner = owner
        self._limit = limit
        self._broadcast = limit if broadcast is None else broadcast
        self._lease_ms = lease_ms
        self._busy = frozenset(busy)
        self._turns = turns
        self._now = now
        self._overdue = True
        self._took: list[Triple] = []
        self._deadline = 0

    def wanted(self, db: Db) -> bool:
        """Whether anything is due; most looks of an idle process end here."""
        self._overdue, *first = fetch_all(db, _ANYTHING_DUE, (self._now,))[0]
        if self._overdue:
            return True
        for priority in _PRIORITIES:
            anything = self._most(priority, 1) and first[priority] is not None
            if anything and (not self._busy or self._free(db, priority)):
                return True
        return False

    def _free(self, db: Db, priority: int) -> bool:
        return bool(PostgresQueue(db).free_lanes(priority, most=1, busy=list(self._busy)))

    def idle(self) -> Sequence[Taken]:
        return ()

    @classmethod
    def run(cls, tx: Transaction, works: "Sequence[ClaimWork]") -> list[Sequence[Taken]]:
        return [work._claim(tx) for work in works]

    def _claim(self, tx: Transaction) -> Sequence[Taken]:
        if tx.doubted and self._took:
            mine = self._taken_before(tx)
            if mine is None:
                raise StoreInDoubt("another connection still claims the same rows")
            if mine:
                return with_messages(tx, mine, self._deadline)
        if self._overdue:
            run(tx.db, _PROMOTE_DUE, (tx.now, _PROMOTED_PER_CLAIM))
        self._deadline = tx.steady + self._lease_ms
        queue = PostgresQueue(tx.db, owner=self._owner, deadline=self._deadline)
        division = Division(queue, busy=self._busy, turns=self._turns)
        rows: list[tuple[Any, ...]] = []
        for priority in _PRIORITIES:
            if room := self._most(priority, self._limit - len(rows)):
                rows += division.take(priority, room)
        self._took = [(row[0], row[1], row[_TERM]) for row in rows]
        if not rows:
            return ()
        for row in rows:
            tx.tally(row[_PROJECT], State.QUEUED, -1)
            tx.tally(row[_PROJECT], State.CLAIMED, 1)
        return with_messages(tx, rows, self._deadline)

    def _most(self, priority: int, room: int) -> int:
        return min(room, self._broadcast) if priority == _BROADCAST else room

    def _taken_before(self, tx: Transaction) -> list[tuple[Any, ...]] | None:
        """What an earlier run of this claim took and still has, now locked; None: not known, since
        that run's transaction goes on."""
        terms = {(message, n): term for message, n, term in self._took}
        values = [value for key in terms for value in key]
        rows = fetch_rows(tx.db, _CLAIMED_BEFORE, values)
        if len(rows) < len(terms):
            return None
        return [
            row[:_STATE]
            for row in rows
            if row[_STATE] == State.CLAIMED
            and row[_OWNER] == self._owner
            and row[_TERM] == terms[row[0], row[1]]
        ]

    def take_back(self, tx: Transaction) -> bool:
        """Nobody knows of these claims but the store: queue them again."""
        if not self._took or tx.steady > self._deadline:
            return True  # what is past its deadline is found by that
        mine = self._taken_before(tx)
        if mine is None:
            return False
        resign(tx, self._owner, [(row[0], row[1], row[_TERM]) for row in mine])
        return True


class PostgresQueue:
    """The queue as a transaction sees it, for one claim of `owner`."""

    __slots__ = ("_deadline", "_owner", "db")

    def __init__(self, db: Db, *, owner: Id = b"", deadline: int = 0) -> None:
        self.db = db
        self._owner = owner
        self._deadline = deadline

    def ends(self, priority: int) -> tuple[str | None, str | None]:
        first, last = fetch_all(self.db, _ENDS, {"priority": priority})[0]
        return first, last

    def projects(self, priority: int, *, after: str, upto: str, most: int) -> list[tuple[str, int]]:
        values = {
            "priority": priority, "after": after, "upto": upto, "most": most, "last": LAST,
        }  # fmt: skip
        return cast("list[tuple[str, int]]", fetch_all(self.db, _PROJECTS, values))

    def streams(
        self, priority: int, ranges: Sequence[tuple[str, str]], *, most: int
    ) -> list[tuple[int, str, int]]:
        values = {
            "priority": priority, "most": most, "last": LAST,
            "after": [after for after, _ in ranges], "upto": [upto for _, upto in ranges],
        }  # fmt: skip
        return cast("list[tuple[int, str, int]]", fetch_all(self.db, _STREAMS, values))

    def lanes(self, priority: int, ranges: Sequence[tuple[str, str, int]]) -> list[tuple[int, str]]:
        values = {
            "priority": priority,
            "after": [after for after, _, _ in ranges],
            "upto": [upto for _, upto, _ in ranges],
            "most": [most for _, _, most in ranges],
        }
        return cast("list[tuple[int, str]]", fetch_all(self.db, _STREAM_LANES, values))

    def free_lanes(self, priority: int, *, most: int, busy: Sequence[str]) -> list[str]:
        values = {
            "priority": priority, "most": most, "last": LAST, "busy": busy,
            "busy_groups": [name for name in busy if is_group(name)],
        }  # fmt: skip
        return [row[0] for row in fetch_all(self.db, _LANES, values)]

    def take(self, priority: int, lanes: Sequence[str], share: int) -> list[tuple[Any, ...]]:
        values = {
            "priority": priority, "lanes": lanes, "share": share, "owner": self._owner,
            "deadline": self._deadline,
        }  # fmt: skip
        return fetch_all(self.db, _CLAIM_ROWS, values)


def extend(
    tx: Transaction, owner: Id, claims: Sequence[Triple], *, lease_ms: int
) -> Sequence[bool]:
    """Set the deadline of (message, n, term) claims anew; False where the term is stale."""
    values = [value for claim in sorted(claims) for value in claim]
    kept = set(fetch_rows(tx.db, _EXTEND, values, before=(tx.steady + lease_ms, owner)))
    return [claim in kept for claim in claims]


def resign(tx: Transaction, owner: Id, claims: Sequence[Triple]) -> Sequence[bool]:
    """Queue (message, n, term) claims again, due at once. Like the claim itself, that leaves no
    line in the timeline: nothing was tried."""
    rows = rows_by_key(tx, ((message, n) for message, n, _ in claims))
    moves = Moves(tx)
    answers = []
    for message, n, term in claims:
        row = rows.get((message, n))
        holds = (
            row is not None
            and row.state is State.CLAIMED
            and row.owner == owner
            and row.term == term
        )
        if row is not None and holds:
            moves.move(row, State.QUEUED, not_before=min(row.not_before, tx.now))
        answers.append(holds or _resigned_before(tx, row, term))
    moves.write()
    return answers


def _resigned_before(tx: Transaction, row: Row | None, term: int) -> bool:
    """Whether an earlier run of the same works has done it."""
    return tx.doubted and row is not None and row.term == term and row.state is State.QUEUED
