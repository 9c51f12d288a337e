"""claim, extend, resign: recipients in the hands of one process, for a term."""

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import apsw

from everpost.ids import Id
from everpost.model.states import State, Verb
from everpost.store.dividing import Division
from everpost.store.queries import Rows
from everpost.store.sqlite.connection import SQL
from everpost.store.sqlite.moves import Moves, json_text, rows_by_key
from everpost.store.sqlite.quarantine import SUSPICIOUS, IndexOff, QueueMender
from everpost.store.sqlite.taking import with_messages
from everpost.store.sqlite.work import Transaction, Work, fetch_all, fetch_rows, write_rows
from everpost.store.taken import Taken
from everpost.store.turns import LAST, Turns, is_group

__all__ = ["ClaimWork", "extend", "resign"]

_ENDS = SQL["queue_ends"]
_PROJECTS = SQL["queued_projects"]
_STREAMS = SQL["queued_streams"]
_STREAM_LANES = SQL["queued_lanes"]
_LANES = SQL["lanes"]
_ROWS_OF_LANES = SQL["rows_of_lanes"]
_HAS_COME_DUE = SQL["has_come_due"]
_PROMOTE_DUE = SQL["promote_due"]
_SET_CLAIMED = Rows(SQL["set_claimed"])
_EXTEND = Rows(SQL["extend_claims"])

_PRIORITIES = (0, 1)
_BROADCAST = 1
_PROMOTED_PER_CLAIM = 500


class ClaimWork(Work[Sequence[Taken]]):
    """One call of claim. `broadcast`: rows of broadcast mail at most."""

    __slots__ = (
        "_broadcast", "_busy", "_doubtful", "_lease_ms", "_limit", "_mender", "_now", "_owner",
        "_turns",
    )  # fmt: skip
    verb: ClassVar[str] = Verb.CLAIM

    def __init__(
        self,
        owner: Id,
        *,
        limit: int,
        lease_ms: int,
        busy: Sequence[str],
        turns: Turns,
        mender: QueueMender,
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
        self._mender = mender
        self._now = now
        self._doubtful = False

    def wanted(self, db: apsw.Connection) -> bool:
        """Whether anything is due; most looks of an idle process end here."""
        try:
            return self._anything_due(db)
        except SUSPICIOUS:  # the claim meets it too, and mends it
            return True

    def _anything_due(self, db: apsw.Connection) -> bool:
        if db.execute(_HAS_COME_DUE, (self._now,)).fetchall():
            return True
        for priority in _PRIORITIES:
            anything = self._most(priority, 1) and _ends(db, priority)[0] is not None
            if anything and (not self._busy or _free_lanes(db, priority, 1, list(self._busy))):
                return True
        return False

    def idle(self) -> Sequence[Taken]:
        return ()

    @classmethod
    def run(cls, tx: Transaction, works: "Sequence[ClaimWork]") -> list[Sequence[Taken]]:
        return [work._claim_or_doubt(tx) for work in works]

    def _claim_or_doubt(self, tx: Transaction) -> Sequence[Taken]:
        """The writer undoes a claim that fails and runs it once more: that time the queue is mended
        first."""
        try:
            tx.db.execute(_PROMOTE_DUE, (tx.now, _PROMOTED_PER_CLAIM))
            if self._doubtful:
                self._mender.mend(tx)
            return self._claim(tx)
        except SUSPICIOUS:
            if self._doubtful:
                self._mender.failed(tx)
            self._doubtful = True
            raise

    def _claim(self, tx: Transaction) -> Sequence[Taken]:
        deadline = tx.steady + self._lease_ms
        queue = SqliteQueue(tx.db, owner=self._owner, deadline=deadline)
        division = Division(queue, busy=self._busy, turns=self._turns)
        rows: list[tuple[Any, ...]] = []
        for priority in _PRIORITIES:
            if room := self._most(priority, self._limit - len(rows)):
                rows += division.take(priority, room)
        if not rows:
            return ()
        for row in rows:
            tx.tally(row[2], State.QUEUED, -1)
            tx.tally(row[2], State.CLAIMED, 1)
        return with_messages(tx, rows, deadline)

    def _most(self, priority: int, room: int) -> int:
        return min(room, self._broadcast) if priority == _BROADCAST else room


class SqliteQueue:
    """The queue as a write transaction sees it, for one claim of `owner`."""

    __slots__ = ("_deadline", "_owner", "db")

    def __init__(self, db: apsw.Connection, *, owner: Id, deadline: int) -> None:
        self.db = db
        self._owner = owner
        self._deadline = deadline

    def ends(self, priority: int) -> tuple[str | None, str | None]:
        return _ends(self.db, priority)

    def projects(self, priority: int, *, after: str, upto: str, most: int) -> list[tuple[str, int]]:
        values = {
            "priority": priority, "after": after, "upto": upto, "most": most, "last": LAST,
        }  # fmt: skip
        return cast("list[tuple[str, int]]", fetch_all(self.db, _PROJECTS, values))

    def streams(
        self, priority: int, ranges: Sequence[tuple[str, str]], *, most: int
    ) -> list[tuple[int, str, int]]:
        values = {
            "priority": priority, "ranges": json_text(ranges), "most": most, "last": LAST,
        }  # fmt: skip
        return cast("list[tuple[int, str, int]]", fetch_all(self.db, _STREAMS, values))

    def lanes(self, priority: int, ranges: Sequence[tuple[str, str, int]]) -> list[tuple[int, str]]:
        values = {"priority": priority, "ranges": json_text(ranges)}
        return cast("list[tuple[int, str]]", fetch_all(self.db, _STREAM_LANES, values))

    def free_lanes(self, priority: int, *, most: int, busy: Sequence[str]) -> list[str]:
        return _free_lanes(self.db, priority, most, busy)

    def take(self, priority: int, lanes: Sequence[str], share: int) -> list[tuple[Any, ...]]:
        """Raises IndexOff where an index leads to what is not queued."""
        values = {"lanes": json_text(lanes), "priority": priority, "share": share}
        rows = fetch_all(self.db, _ROWS_OF_LANES, values)
        keys = [value for row in rows for value in row[:2]]
        before = self.db.total_changes()
        write_rows(self.db, _SET_CLAIMED, keys, before=(self._owner, self._deadline))
        if self.db.total_changes() - before != len(rows):
            raise IndexOff("an index of the queue leads to what is not queued")
        return rows


def _ends(db: apsw.Connection, priority: int) -> tuple[str | None, str | None]:
    """The first and the last route with due rows."""
    first, last = db.execute(_ENDS, {"priority": priority}).fetchall()[0]
    return cast("str | None", first), cast("str | None", last)


def _free_lanes(db: apsw.Connection, priority: int, most: int, busy: Sequence[str]) -> list[str]:
    """Lanes with due rows, in order, that are not busy."""
    values = {
        "priority": priority, "most": most, "last": LAST,
        "busy": json_text(busy),
        "busy_groups": json_text([name for name in busy if is_group(name)]),
    }  # fmt: skip
    return [str(row[0]) for row in db.execute(_LANES, values)]


Triple = tuple[Id, int, int]


def extend(
    tx: Transaction, owner: Id, claims: Sequence[Triple], *, lease_ms: int
) -> Sequence[bool]:
    """Set the deadline of (message, n, term) claims anew; False where the term is stale."""
    values = [value for claim in claims for value in claim]
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
        answers.append(holds)
    moves.write()
    return answers
