"""claim, extend, resign: recipients in the hands of one process, for a term."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, cast

import apsw

from everpost.ids import Id
from everpost.model.states import State, Verb
from everpost.store.queries import Rows
from everpost.store.sqlite.connection import SQL
from everpost.store.sqlite.moves import Moves, json_text, rows_by_key
from everpost.store.sqlite.quarantine import SUSPICIOUS, IndexOff, QueueMender
from everpost.store.sqlite.taking import Taken, with_messages
from everpost.store.sqlite.work import Transaction, Work, fetch_rows, write_rows
from everpost.store.turns import LAST, Turns, end_of, is_group, project_of, stream_of

__all__ = ["ClaimWork", "extend", "resign"]

_ENDS = SQL["queue_ends"]
_PROJECTS = SQL["queued_projects"]
_STREAMS = SQL["queued_streams"]
_STREAM_LANES = SQL["queued_lanes"]
_LANES = SQL["lanes"]
_LANE_ROWS = SQL["lane_rows"]
_ROWS_OF_LANES = SQL["rows_of_lanes"]
_HAS_COME_DUE = SQL["has_come_due"]
_PROMOTE_DUE = SQL["promote_due"]
_SET_CLAIMED = Rows(SQL["set_claimed"])
_EXTEND = Rows(SQL["extend_claims"])

_PRIORITIES = (0, 1)
_BROADCAST = 1
_PROMOTED_PER_CLAIM = 500
_ROUNDS = 4
_FEWEST_PROJECTS = 32
"""Projects looked at even by a small claim: while these are all, it is divided exactly."""

_MOST_STREAMS = 16
"""Of one project, looked at in one round."""

_ROUTE, _DUE = 6, 9
"""Columns of `lane_rows`."""


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
            if anything and (not self._busy or self._lanes(db, priority, 1)):
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
        rows: list[tuple[Any, ...]] = []
        for priority in _PRIORITIES:
            if room := self._most(priority, self._limit - len(rows)):
                rows += self._of_priority(tx, priority, room)
        if not rows:
            return ()
        for row in rows:
            tx.tally(row[2], State.QUEUED, -1)
            tx.tally(row[2], State.CLAIMED, 1)
        return with_messages(tx, rows, self._deadline(tx))

    def _most(self, priority: int, room: int) -> int:
        return min(room, self._broadcast) if priority == _BROADCAST else room

    def _deadline(self, tx: Transaction) -> int:
        return tx.steady + self._lease_ms

    def _of_priority(self, tx: Transaction, priority: int, room: int) -> list[tuple[Any, ...]]:
        """Up to `room` due rows of one priority, oldest first in each lane. Every round divides
        what the one before it left among those who still have rows; the last one gives all of it to
        whoever comes first."""
        taken: list[tuple[Any, ...]] = []
        more = True
        for more_rounds in reversed(range(_ROUNDS)):
            left = room - len(taken)
            if not (more and left):
                break
            if more_rounds:
                rows, more = self._round(tx, priority, left)
            else:
                rows = self._whoever_comes_first(tx, priority, left)
            keys = [value for row in rows for value in row[:2]]
            before = tx.db.total_changes()
            write_rows(tx.db, _SET_CLAIMED, keys, before=(self._owner, self._deadline(tx)))
            if tx.db.total_changes() - before != len(rows):
                raise IndexOff("an index of the queue leads to what is not queued")
            taken += rows
        return taken

    def _round(
        self, tx: Transaction, priority: int, room: int
    ) -> tuple[list[tuple[Any, ...]], bool]:
        """Rows by everybody's share, and whether there may be more of them."""
        shares, more = self._shares(tx.db, priority, room)
        by_share: dict[int, list[str]] = {}
        for stream, (lanes, share) in self._lanes_of(tx.db, priority, shares).items():
            each, extra = divmod(share, len(lanes))
            more |= each == 1 and not extra  # it may have lanes beyond these
            for at, lane in enumerate(lanes):
                by_share.setdefault(each + (at < extra), []).append(lane)
            self._turns.served((priority, stream), lanes[-1])
        taken: list[tuple[Any, ...]] = []
        for share, lanes in by_share.items():
            values = {"lanes": json_text(lanes), "priority": priority, "share": share}
            rows = tx.db.execute(_ROWS_OF_LANES, values).fetchall()
            if share > 1:
                rows.sort(key=lambda row: (row[_DUE], row[:2]))
                had = Counter(row[_ROUTE] for row in rows)
                more |= share in had.values()
            taken += rows
        return taken, more or 1 in by_share

    def _shares(
        self, db: apsw.Connection, priority: int, room: int
    ) -> tuple[Mapping[str, int], bool]:
        """How many rows each stream may take, and whether there are projects or streams beyond
        these."""
        first, last = _ends(db, priority)
        if first is None or last is None:
            return {}, False
        stream = stream_of(first)
        if stream and stream_of(last) == stream:
            return {} if self._is_busy(stream) else {stream: room}, False
        projects, complete = self._projects(db, priority, max(room, _FEWEST_PROJECTS))
        parts = self._turns.divide((priority, ""), room, projects, complete=complete)
        shares = {name: part for name, part in parts.items() if not is_group(name)}
        named = [name for name, part in parts.items() if part and is_group(name)]
        for project, streams, all_ in self._streams(db, priority, named):
            complete &= all_
            whole = (priority, project)
            shares |= self._turns.divide(whole, parts[project], streams, complete=all_)
        complete &= all(parts.values()) and all(shares.values())
        return {name: share for name, share in shares.items() if share}, not complete

    def _is_busy(self, stream: str) -> bool:
        return bool(self._busy) and (stream in self._busy or project_of(stream) in self._busy)

    def _projects(
        self, db: apsw.Connection, priority: int, most: int
    ) -> tuple[list[tuple[str, int]], bool]:
        """Projects (name, weight) in turn, `most` of them, and whether these are all."""
        last = self._turns.after((priority, ""))
        found = self._some_projects(db, priority, end_of(last), LAST, most)
        if last and len(found) < most:
            found += self._some_projects(db, priority, "", end_of(last), most - len(found))
        free = [project for project in found if project[0] not in self._busy]
        return free, len(found) < most

    def _some_projects(
        self, db: apsw.Connection, priority: int, after: str, upto: str, most: int
    ) -> list[tuple[str, int]]:
        values = {
            "priority": priority, "after": after, "upto": upto, "most": most, "last": LAST,
        }  # fmt: skip
        return [(str(name), max(weight, 1)) for name, weight in db.execute(_PROJECTS, values)]

    def _streams(
        self, db: apsw.Connection, priority: int, projects: Sequence[str]
    ) -> Iterator[tuple[str, list[tuple[str, int]], bool]]:
        """By project its streams (name, weight) in turn, and whether these are all."""
        if not projects:
            return
        after = [self._turns.after((priority, project)) for project in projects]
        ranges = [(end_of(a) if a else p, end_of(p)) for p, a in zip(projects, after, strict=True)]
        values = {
            "priority": priority, "ranges": json_text(ranges), "most": _MOST_STREAMS, "last": LAST,
        }  # fmt: skip
        found: dict[int, list[tuple[str, int]]] = {}
        for at, name, weight in db.execute(_STREAMS, values):
            found.setdefault(at, []).append((name, max(weight, 1)))
        for at, project in enumerate(projects):
            streams = found.get(at, [])
            if after[at] and not streams:
                self._turns.served((priority, project), "")
            all_ = len(streams) < _MOST_STREAMS and not after[at]
            yield project, [s for s in streams if s[0] not in self._busy], all_

    def _lanes_of(
        self, db: apsw.Connection, priority: int, shares: Mapping[str, int]
    ) -> Mapping[str, tuple[list[str], int]]:
        """By stream its lanes in turn, as many as rows are wanted, and its share."""
        lanes: dict[str, list[str]] = {name: [] for name in shares}
        before: dict[str, tuple[str, str, int]] = {}
        ranges: dict[str, tuple[str, str, int]] = {}
        for name, share in shares.items():
            after = self._turns.after((priority, name))
            if is_group(name):
                ranges[name] = (after or name, end_of(name), share)
                if after:
                    before[name] = (name, after, share)
            else:
                lanes[name].append(name)
        passed_over = Counter(map(stream_of, self._busy))
        for wanted in (ranges, before):
            asked = {
                name: (after, upto, share - len(lanes[name]) + passed_over[name])
                for name, (after, upto, share) in wanted.items()
                if share > len(lanes[name])
            }
            if asked:
                names = list(asked)
                values = {"priority": priority, "ranges": json_text(list(asked.values()))}
                for at, lane in db.execute(_STREAM_LANES, values):
                    found = lanes[names[at]]
                    if lane not in self._busy and len(found) < shares[names[at]]:
                        found.append(lane)
        return {name: (found, shares[name]) for name, found in lanes.items() if found}

    def _whoever_comes_first(
        self, tx: Transaction, priority: int, room: int
    ) -> list[tuple[Any, ...]]:
        taken: list[tuple[Any, ...]] = []
        for lane in self._lanes(tx.db, priority, room):
            values = (priority, lane, room - len(taken))
            taken += tx.db.execute(_LANE_ROWS, values).fetchall()
            if len(taken) == room:
                break
        return taken

    def _lanes(self, db: apsw.Connection, priority: int, most: int) -> list[str]:
        """Lanes with due rows, in order, that are not busy."""
        values = {
            "priority": priority, "most": most, "last": LAST,
            "busy": json_text(list(self._busy)),
            "busy_groups": json_text([name for name in self._busy if is_group(name)]),
        }  # fmt: skip
        return [str(row[0]) for row in db.execute(_LANES, values)]


def _ends(db: apsw.Connection, priority: int) -> tuple[str | None, str | None]:
    """The first and the last route with due rows."""
    first, last = db.execute(_ENDS, {"priority": priority}).fetchall()[0]
    return cast("str | None", first), cast("str | None", last)


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
