"""The ledger's reading verbs, on a connection and in a thread of their own.

A page is one snapshot. Contents above a few kilobytes are fetched one by one, so that of all that
is stored one large content is in memory at a time.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec
import psycopg

from everpost import telemetry
from everpost.ids import Id
from everpost.store.auditing import (
    AttemptFacts,
    AuditPage,
    ContentFacts,
    EventFacts,
    MessageFacts,
    PartFacts,
    PartsPage,
    RecipientFacts,
    Said,
    Totals,
)
from everpost.store.checksums import checksum, row_crc
from everpost.store.interface import StoreError
from everpost.store.migrate import HEADS
from everpost.store.postgres.connection import SQL, Db
from everpost.store.postgres.partitions import being_dropped
from everpost.store.postgres.reader import Reader
from everpost.store.postgres.work import fetch_all

__all__ = ["Auditor"]

T = TypeVar("T")

_HEAD = HEADS["postgres"]
_UPTO = SQL["audit_upto"]
_MESSAGES = SQL["audit_messages"]
_CONTENTS = SQL["audit_contents"]
_CONTENT = SQL["audit_content"]
_RECIPIENTS = SQL["audit_recipients"]
_EVENTS = SQL["audit_events"]
_ATTEMPTS = SQL["audit_attempts"]
_WORKERS = SQL["audit_workers"]
_PARTS = SQL["audit_parts"]
_PART = SQL["audit_part"]
_TALLIES = SQL["audit_tallies"]
_COUNTS = SQL["audit_counts"]
_SAMPLE = SQL["audit_sample"]
_SCHEMA = SQL["audit_schema"]
_CHECKSUMS = SQL["audit_checksums"]
_AMCHECK = SQL["audit_amcheck"]
_TABLES = SQL["audit_tables"]
_HEAP = SQL["audit_heap"]
_INDEXES = SQL["audit_indexes"]
_INDEX = SQL["audit_index"]

_AFTER_ALL_IDS = b"\xff" * 17
_WHOLE: Final = 16 * 1024
_PATIENCE_S: Final = 3600.0
"""Counting and checking read everything; nobody waits for it."""

_said = msgspec.json.Decoder(Said).decode


class Auditor:
    """Reads a store, live or stopped. It never creates, migrates or changes anything: a database
    whose schema is not this release's is refused. Connected with the first question."""

    def __init__(self, connect: Callable[[], Db]) -> None:
        self._connect = connect
        self._reader = Reader(self._checked)
        self._started = False

    async def close(self) -> None:
        await self._reader.close()

    async def audit_page(self, after: Id, *, limit: int, upto: Id | None = None) -> AuditPage:
        return await self._read(lambda db: _page(db, after, limit=limit, upto=upto))

    async def audit_parts(self, after: int, *, limit: int) -> PartsPage:
        return await self._read(lambda db: _parts(db, after, limit=limit))

    async def audit_totals(self) -> Totals:
        return await self._read(_totals)

    async def audit_bounds(self, pieces: int) -> Sequence[Id]:
        return await self._read(lambda db: _bounds(db, pieces))

    async def engine_check(self) -> Sequence[str]:
        return await self._read(_engine_check, snapshot=False)

    async def _read(self, read: Callable[[Db], T], *, snapshot: bool = True) -> T:
        if not self._started:
            self._started = True
            self._reader.start()
        return await self._reader.do(read, snapshot=snapshot)

    def _checked(self) -> Db:
        """Raises StoreError with what to do."""
        db = self._connect()
        try:
            db.deadline_s = _PATIENCE_S
            _refuse_other_schemas(db)
        except BaseException:
            db.close()
            raise
        return db


def _refuse_other_schemas(db: Db) -> None:
    try:
        rows = fetch_all(db, _SCHEMA)
    except psycopg.errors.UndefinedTable as error:
        raise StoreError("the database is no store of Everpost's") from error
    schema = rows[0][0] if rows else None
    if schema != _HEAD:
        raise StoreError(
            f"the database has schema {schema!r}, this release's is {_HEAD!r}: bring an older one "
            "up to date (`everpost db migrate`, or a start), and look at a newer one with the "
            "release that wrote it"
        )


def _page(db: Db, after: Id, *, limit: int, upto: Id | None) -> AuditPage:
    """What belongs to a day that is just being dropped is gone already."""
    found: Id | None = fetch_all(db, _UPTO, {"after": after, "limit": limit})[0][0]
    last = found is None
    if found is None or (upto is not None and found > upto):
        found = _AFTER_ALL_IDS if upto is None else upto
    span = {"after": after, "upto": found}
    gone = being_dropped(db)

    def rows(query: bytes) -> list[tuple[Any, ...]]:
        all_ = fetch_all(db, query, span)
        return all_ if gone is None else [row for row in all_ if not gone[0] <= row[0] < gone[1]]

    contents = fetch_all(db, _CONTENTS, {**span, "whole": _WHOLE})
    return AuditPage(
        after=after,
        upto=None if last and upto is None else found,
        messages=[MessageFacts(*row) for row in rows(_MESSAGES)],
        contents=[
            ContentFacts(row[0], row[1], _content_sound(db, row))
            for row in contents
            if gone is None or not gone[0] <= row[0] < gone[1]
        ],
        recipients=[_recipient(row) for row in rows(_RECIPIENTS)],
        events=[
            EventFacts(message, seq, n, type_, _read_said(data))
            for message, seq, n, type_, data in rows(_EVENTS)
        ],
        attempts=[AttemptFacts(*row) for row in rows(_ATTEMPTS)],
        workers=frozenset(row[0] for row in fetch_all(db, _WORKERS)),
    )


def _content_sound(db: Db, row: Sequence[Any]) -> bool:
    id_, _, sealed, digest = row
    if sealed is None:
        sealed = fetch_all(db, _CONTENT, (id_,))[0][0]
    return bool(checksum(sealed) == digest)


def _recipient(row: Sequence[Any]) -> RecipientFacts:
    message, n, project, state, due, owner, deadline, attempts, settled_at, *accepted = row
    address, destination, crc = accepted
    sound = None
    if crc is not None:
        sound = crc == row_crc(message, n, address.encode(), destination.encode())
    return RecipientFacts(
        message, n, project, state, due, owner, deadline, attempts, settled_at, sound
    )


def _read_said(data: str) -> Said | None:
    try:
        return _said(data)
    except msgspec.DecodeError:
        return None


def _parts(db: Db, after: int, *, limit: int) -> PartsPage:
    found, last = [], None
    for n, project, day, hash_, digest in fetch_all(db, _PARTS, (after, limit)):
        ((sealed,),) = fetch_all(db, _PART, (project, day, hash_))
        found.append(PartFacts(project, day, hash_, checksum(sealed) == digest))
        last = n
    return PartsPage(found, last if len(found) == limit else None)


def _totals(db: Db) -> Totals:
    return Totals(
        tallies={(project, state): n for project, state, n in fetch_all(db, _TALLIES)},
        rows={(project, state): n for project, state, n in fetch_all(db, _COUNTS)},
    )


def _bounds(db: Db, pieces: int) -> Sequence[Id]:
    ids = sorted(row[0] for row in fetch_all(db, _SAMPLE))
    return sorted({ids[len(ids) * piece // pieces] for piece in range(1, pieces)}) if ids else []


def _engine_check(db: Db) -> Sequence[str]:
    """What page checksums have found since they are counted, and with the extension amcheck what
    does not fit in any table or index. What could not be looked at is an event in the log."""
    complaints = []
    ((summed, failures, at),) = fetch_all(db, _CHECKSUMS)
    if failures:
        complaints.append(
            f"{failures} pages did not match their checksums, the last at {at} "
            "(pg_stat_reset() forgets them)"
        )
    if not summed:
        telemetry.event(
            "store.unchecked", level="warning",
            reason="the database cluster has no page checksums (pg_checksums --enable)",
        )  # fmt: skip
    ((amcheck,),) = fetch_all(db, _AMCHECK)
    if not amcheck:
        telemetry.event(
            "store.unchecked", level="warning",
            reason="tables and indexes are not compared (CREATE EXTENSION amcheck)",
        )  # fmt: skip
        return complaints
    for (table,) in fetch_all(db, _TABLES):
        complaints += _asked(db, table, _HEAP)
    for (index,) in fetch_all(db, _INDEXES):
        complaints += _asked(db, index, _INDEX)
    return complaints


def _asked(db: Db, relation: str, query: bytes) -> list[str]:
    """What amcheck says of one table or index. A table of a day that has been dropped meanwhile is
    none."""
    try:
        rows = fetch_all(db, query, (relation,))
    except psycopg.errors.UndefinedTable:
        return []
    except psycopg.errors.InsufficientPrivilege as error:
        telemetry.event("store.unchecked", level="warning", reason=str(error).strip())
        return []
    except psycopg.Error as error:
        if not (error.sqlstate or "").startswith("XX"):
            raise
        return [f"{relation}: {str(error).strip().splitlines()[0]}"]
    return [f"{relation}: block {row[0]}: {row[1]}" for row in rows if len(row) == 2]
