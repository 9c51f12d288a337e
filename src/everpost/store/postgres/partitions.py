"""Days: what grows with mail lies in one partition a day, made ahead of time, and dropped whole
when it is to be kept no longer.

What no partition takes goes into the default one: mail never waits for a partition. A day is
dropped when nothing of it is live and every consumer of the outbox has seen it. It is marked first,
and from then on no audit looks at it; then recipients and messages go in slices, each with its
tallies; then the partitions. Whoever is killed in between is continued by the next one.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import psycopg
from psycopg import pq, sql

from everpost import telemetry
from everpost.clock import Clock
from everpost.ids import Id
from everpost.store.auditing import ACCEPTED
from everpost.store.interface import StoreUnavailable
from everpost.store.postgres.connection import SQL, Db, as_store_error
from everpost.store.postgres.work import Transaction, fetch_all, run

__all__ = ["Partitions", "being_dropped", "day_span"]

_ALONE = SQL["days_alone"]
_PARTITIONS = SQL["partitions"]
_BRIEFLY = SQL["briefly"]
_BEING_DROPPED = SQL["being_dropped"]
_PUT_DROPPING = SQL["put_dropping"]
_FIRST_MESSAGE = SQL["first_message"]
_NEXT_MESSAGE = SQL["next_message"]
_LIVE = SQL["live_on_day"]
_UNPUBLISHED = SQL["unpublished_on_day"]
_COUNT_DAY = SQL["count_day"]
_DROP_RECIPIENTS = SQL["drop_recipients"]
_DROP_NAMES = SQL["drop_names"]
_DROP_PARTS = SQL["drop_parts"]
_LOCK = SQL["lock_days"]
_ADD_AUDIT = SQL["add_audit"]
_BY_INDEX = SQL["by_index"]

_DAY_MS: Final = 86_400_000
_KEYS: Final = {"contents": "id", "parts": "day", "events": "message", "attempts": "message"}
"""The tables that are cut into days, and by which column; in this order they are locked."""

_AHEAD: Final = 3
"""Days for which partitions are made before they begin."""
_MOST_MOVED: Final = 10_000
"""Rows that are moved out of the default partition when their day's is made late; where there are
more, the day stays there."""
_LOOK_MS: Final = 60_000
_LOOK_FOR_OLD_MS: Final = 3_600_000
"""Whether anything of an old day is alive costs a look at all of its recipients."""
_SLICE: Final = 1_000
_MOST_SLICES: Final = 40
"""Of one round: a second or two. Meanwhile upkeep neither rescues anybody's mail nor renews its
lead."""
_SHARD: Final = 63
_DEADLINE_S: Final = 120.0


def day_span(day: int) -> tuple[Id, Id]:
    """Between which ids those of a day (since 1970) lie: from the one up to before the other."""
    return (day * _DAY_MS).to_bytes(6, "big"), ((day + 1) * _DAY_MS).to_bytes(6, "big")


def being_dropped(db: Db) -> tuple[Id, Id] | None:
    """The span of ids of the day that is just being dropped."""
    rows = fetch_all(db, _BEING_DROPPED)
    return day_span(rows[0][0]) if rows else None


class Partitions:
    """Run by one process at a time, on a connection of its own. `keep_days` 0: for ever."""

    def __init__(self, connect: Callable[[], Db], *, clock: Clock, keep_days: int = 0) -> None:
        self._connect = connect
        self._clock = clock
        self._keep_days = keep_days
        self._not_before = 0
        self._drop_not_before = 0
        self._ended = False

    def stop(self) -> None:
        """A round that runs ends soon; whoever runs the next one goes on from there."""
        self._ended = True

    def run(self) -> None:
        """One round, once a minute; blocks for as long as it takes. Raises StoreError."""
        now = self._clock.now()
        if now < self._not_before:
            return
        try:
            db = self._connect()
            try:
                db.deadline_s = _DEADLINE_S
                done = self._round(db, now)
            finally:
                db.close()
        except psycopg.errors.LockNotAvailable as error:
            raise StoreUnavailable("somebody looks at a table for long: days wait") from error
        except psycopg.Error as error:
            raise as_store_error(error) from error
        if done:
            self._not_before = now + _LOOK_MS

    def _round(self, db: Db, now: int) -> bool:
        """Whether all is done for now."""
        today = now // _DAY_MS
        there = _there(db)
        for day in range(today, today + _AHEAD + 1):
            for table, key in _KEYS.items():
                if f"{table}_{day}" not in there:
                    with _alone(db) as ours:
                        if not ours:
                            return False
                        if f"{table}_{day}" not in _there(db):
                            _make(db, table, key, day)
        if self._keep_days and now >= self._drop_not_before:
            if not self._drop(db, today - self._keep_days, now):
                return False
            self._drop_not_before = now + _LOOK_FOR_OLD_MS
        return True

    def _drop(self, db: Db, before: int, now: int) -> bool:
        """Drop the days before `before` that are over, as far as one round goes."""
        rows = fetch_all(db, _BEING_DROPPED)
        day = rows[0][0] if rows else self._mark_next(db, before, now)
        if day is None:
            return True
        if self._drop_rows(db, day, now) and _drop_partitions(db, day):
            telemetry.event("store.day_dropped", day=_date(day))
        return False

    def _mark_next(self, db: Db, before: int, now: int) -> int | None:
        """Mark the earliest day that may be dropped."""
        with _alone(db) as ours:
            if not ours:
                return None
            fetch_all(db, _BY_INDEX)
            empty = {day for day in _days(_there(db)) if day < before}
            rows = fetch_all(db, _FIRST_MESSAGE)
            while rows:
                day = int.from_bytes(rows[0][0][:6], "big") // _DAY_MS
                if day >= before:
                    break
                empty.discard(day)
                first, end = day_span(day)
                span = {"first": first, "end": end}
                if not fetch_all(db, _LIVE, span) and not fetch_all(db, _UNPUBLISHED, span):
                    recipients, messages = fetch_all(db, _COUNT_DAY, span)[0]
                    detail = {"recipients": recipients, "messages": messages}
                    told = msgspec.json.encode(detail).decode()
                    run(db, _PUT_DROPPING, (day,))
                    run(db, _ADD_AUDIT, (now, "keep_days", "drop", "day", _date(day), told))
                    return day
                rows = fetch_all(db, _NEXT_MESSAGE, (end,))
            if empty:
                run(db, _PUT_DROPPING, (min(empty),))
                return min(empty)
        return None

    def _drop_rows(self, db: Db, day: int, now: int) -> bool:
        """Recipients and messages, in slices; whether none is left."""
        first, end = day_span(day)
        values: dict[str, Any] = {"first": first, "end": end, "most": _SLICE}
        for _ in range(_MOST_SLICES):
            if self._ended:
                break
            with _alone(db) as ours:
                if not ours:
                    return False
                fetch_all(db, _BY_INDEX)
                gone = fetch_all(db, _DROP_RECIPIENTS, values)
                if not gone:
                    return not fetch_all(db, _LIVE, {"first": first, "end": end})
                tx = Transaction(db, now, steady=now, shard=_SHARD)
                for project, state, n in gone:
                    tx.tally(project, state, -n)
                    tx.tally(project, ACCEPTED, -n)
                tx.finish()
        return False


def _there(db: Db) -> frozenset[str]:
    """The partitions that there are."""
    return frozenset(str(row[0]) for row in fetch_all(db, _PARTITIONS))


def _days(partitions: Iterable[str]) -> set[int]:
    """Whose partitions these are."""
    ends = (name.rpartition("_")[2] for name in partitions)
    return {int(end) for end in ends if end.isdigit()}


def _drop_partitions(db: Db, day: int) -> bool:
    """All that is left of the day, and the mark, in one transaction, while nobody writes: whoever
    brings mail of that day now either was here before, and the day waits, or comes after, and its
    mail goes into the default partitions. Whether it was done."""
    for table in ("contents", "events", "attempts"):
        while _drop_some(db, table, day):
            pass
    first, end = day_span(day)
    with _alone(db) as ours:
        if not ours:
            return False
        fetch_all(db, _BRIEFLY)
        fetch_all(db, _BY_INDEX)
        db.execute(_LOCK)
        if being_dropped(db) != (first, end):  # another process was quicker
            return False
        left = fetch_all(db, _NEXT_MESSAGE, (first,))
        if left and left[0][0] < end:
            return False
        run(db, _DROP_NAMES, {"first": first, "end": end})
        run(db, _DROP_PARTS, (day,))
        for table in _KEYS:
            name = sql.Identifier(f"{table}_{day}")
            db.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(name))
        run(db, _PUT_DROPPING, (0,))
        return True


def _drop_some(db: Db, table: str, day: int) -> int:
    """Some of what the default partition has of a day's dropped messages; how many rows. (What its
    message has meanwhile come for stays.)"""
    first, end = day_span(day)
    names = {"t": sql.Identifier(f"{table}_other"), "k": sql.Identifier(_KEYS[table])}
    query = sql.SQL(
        "DELETE FROM {t} WHERE ctid = ANY (ARRAY("
        "SELECT o.ctid FROM {t} AS o WHERE o.{k} >= {first} AND o.{k} < {end}"
        " AND NOT EXISTS (SELECT 1 FROM recipients AS r WHERE r.message = o.{k}) LIMIT 10000))"
    ).format(**names, first=sql.Literal(first), end=sql.Literal(end))
    return db.execute(query).rowcount


def _make(db: Db, table: str, key: str, day: int) -> None:
    """A day's partition, and into it what the default one has of that day."""
    fetch_all(db, _BRIEFLY)
    first, end = _bounds(table, day)
    names = {
        "part": sql.Identifier(f"{table}_{day}"), "whole": sql.Identifier(table),
        "other": sql.Identifier(f"{table}_other"), "k": sql.Identifier(key),
        "first": sql.Literal(first), "end": sql.Literal(end),
    }  # fmt: skip

    def do(statement: str) -> "psycopg.Cursor[tuple[Any, ...]]":
        return db.execute(sql.SQL(statement).format(**names))

    within = "FROM {other} WHERE {k} >= {first} AND {k} < {end}"
    some = f"SELECT 1 {within} LIMIT {_MOST_MOVED + 1}"
    late = do(some).rowcount
    if late > _MOST_MOVED:
        return
    # Whoever plans a read while rows move must not go on with the partitions that he knew: he would
    # look for them where they are no more. Who waits for the whole table sees the new ones.
    do(f"LOCK TABLE {'{whole}' if late else '{other}'} IN ACCESS EXCLUSIVE MODE")
    now_late = do(some).rowcount
    if now_late > _MOST_MOVED or (now_late and not late):
        return  # the next round does it
    late = now_late
    do("CREATE TABLE {part} (LIKE {whole} INCLUDING ALL)")
    if late:
        do(f"WITH late AS (DELETE {within} RETURNING *) INSERT INTO {{part}} SELECT * FROM late")
    do("ALTER TABLE {whole} ATTACH PARTITION {part} FOR VALUES FROM ({first}) TO ({end})")


def _bounds(table: str, day: int) -> tuple[Any, Any]:
    return (day, day + 1) if table == "parts" else day_span(day)


@contextmanager
def _alone(db: Db) -> Iterator[bool]:
    """A transaction; whether no other process is at it."""
    db.execute(b"BEGIN")
    try:
        yield bool(fetch_all(db, _ALONE)[0][0])
        db.execute(b"COMMIT")
    finally:
        if not db.lost and db.pgconn.transaction_status != pq.TransactionStatus.IDLE:
            db.execute(b"ROLLBACK")


def _date(day: int) -> str:
    """ISO 8601."""
    return datetime.fromtimestamp(day * _DAY_MS / 1000, UTC).date().isoformat()
