"""Notes, leases and shares of limits: what processes tell each other (see store.sharing)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import apsw
import msgspec

from everpost.ids import Id
from everpost.model.shares import Ask, Grant
from everpost.store.interface import LONGEST_LEASE_MS
from everpost.store.queries import Rows
from everpost.store.share_book import ShareBook, named
from everpost.store.sharing import Note
from everpost.store.sqlite.connection import SQL, integer
from everpost.store.sqlite.moves import json_text
from everpost.store.sqlite.work import Transaction, Work, fetch_all, fetch_rows, write_rows

__all__ = ["Lead", "PutNotes", "Share", "leave", "noted", "purge", "purgeable", "yield_lead"]

_COUNT_NOTES = SQL["count_notes"]
_NEWEST_NOTE = SQL["newest_note"]
_PUT_NOTES = Rows(SQL["put_notes"])
_NOTES_AFTER = SQL["notes_after"]
_NOTES_OF_KINDS = SQL["notes_of_kinds"]
_LEASE_OF = SQL["lease_of"]
_PUT_LEASE = SQL["put_lease"]
_YIELD_LEASE = SQL["yield_lease"]
_PROCESSES = SQL["processes_that_share"]
_SEATS = Rows(SQL["seats_by_name"])
_PUT_SEATS = Rows(SQL["put_seats"])
_DROP_SEATS = Rows(SQL["drop_seats"])
_LEAVE = SQL["drop_seats_of_owner"]
_BUDGETS = Rows(SQL["budgets_by_name"])
_PUT_BUDGETS = Rows(SQL["put_budgets"])
_PURGE_NOTES = SQL["purge_notes"]
_PURGE_SEATS = SQL["purge_seats"]
_PURGE_BUDGETS = SQL["purge_budgets"]
_PURGEABLE = SQL["purgeable_shares"]


# --- notes ----------------------------------------------------------------------------------------


class PutNotes(Work[None]):
    """One call of note."""

    __slots__ = ("notes",)

    verb: ClassVar[str] = "note"
    merged: ClassVar[bool] = True

    def __init__(self, notes: Sequence[Note]) -> None:
        super().__init__()
        self.notes = notes

    @classmethod
    def run(cls, tx: Transaction, works: "Sequence[PutNotes]") -> list[None]:
        notes = [note for work in works for note in work.notes]
        if notes:
            first = integer(tx.db, _COUNT_NOTES, (len(notes),)) - len(notes) + 1
            values: list[Any] = []
            for version, note in enumerate(notes, first):
                values += (note.kind, note.key, json_text(note.data), note.expires_at, version)
            write_rows(tx.db, _PUT_NOTES, values)
        return [None] * len(works)


def noted(
    db: apsw.Connection, kinds: Sequence[str], *, after: int, now: int
) -> tuple[int, Sequence[Note]]:
    """The newest version and what is new: a look at one row where nothing is."""
    newest = integer(db, _NEWEST_NOTE)
    if newest <= after:
        return newest, ()
    if after > 0:
        rows = fetch_all(db, _NOTES_AFTER, (after, now))
    else:
        rows = fetch_all(db, _NOTES_OF_KINDS, (json_text(list(kinds)), now))
    found = [
        Note(kind, key, msgspec.json.decode(data), ends, version)
        for kind, key, data, ends, version in rows
        if kind in kinds
    ]
    # What was written between the two reads is in `found` already.
    return max([newest, *(row[4] for row in rows)]), found


# --- leases ---------------------------------------------------------------------------------------


class Lead(Work[int | None]):
    """One call of lead; no transaction while another one holds the lease. `now` is the caller's
    steady time, for that look."""

    __slots__ = ("lease_ms", "name", "now", "owner")

    verb: ClassVar[str] = "lead"

    def __init__(self, name: str, owner: Id, *, lease_ms: int, now: int) -> None:
        super().__init__()
        self.name = name
        self.owner = owner
        self.lease_ms = lease_ms
        self.now = now

    def wanted(self, db: apsw.Connection) -> bool:
        rows = fetch_all(db, _LEASE_OF, (self.name,))
        return not any(
            owner != self.owner and self.now < deadline <= self.now + self.lease_ms
            for owner, _, deadline in rows
        )

    def idle(self) -> int | None:
        return None

    @classmethod
    def run(cls, tx: Transaction, works: "Sequence[Lead]") -> list[int | None]:
        return [_lead(tx, work) for work in works]


def _lead(tx: Transaction, work: Lead) -> int | None:
    end = tx.steady + work.lease_ms
    term = 1
    for owner, last, deadline in fetch_all(tx.db, _LEASE_OF, (work.name,)):
        if owner != work.owner and deadline > tx.steady:
            if deadline > end:  # of an earlier run of the host; nobody is locked out for that long
                tx.db.execute(_PUT_LEASE, (work.name, owner, last, end))
            return None
        term = last if deadline > tx.steady else last + 1
    tx.db.execute(_PUT_LEASE, (work.name, work.owner, term, end))
    return term


def yield_lead(tx: Transaction, name: str, owner: Id) -> None:
    tx.db.execute(_YIELD_LEASE, (name, owner))


# --- shares ---------------------------------------------------------------------------------------


class Share(Work[Sequence[Grant]]):
    """One call of share."""

    __slots__ = ("among", "asks", "lease_ms", "owner")

    verb: ClassVar[str] = "share"
    merged: ClassVar[bool] = True

    def __init__(self, owner: Id, asks: Sequence[Ask], *, lease_ms: int, among: int = 1) -> None:
        super().__init__()
        self.among = among
        self.owner = owner
        self.asks = asks
        self.lease_ms = lease_ms

    @classmethod
    def run(cls, tx: Transaction, works: "Sequence[Share]") -> list[Sequence[Grant]]:
        asks = [ask for work in works for ask in work.asks]
        book = ShareBook(
            now=tx.now,
            steady=tx.steady,
            processes=(row[0] for row in fetch_all(tx.db, _PROCESSES)),
            seats=cast(Any, fetch_rows(tx.db, _SEATS, named(asks, "seats"))),
            budgets=cast(Any, fetch_rows(tx.db, _BUDGETS, named(asks, "budget"))),
        )
        grants = [
            [
                book.grant(work.owner, ask, lease_ms=work.lease_ms, among=work.among)
                for ask in work.asks
            ]
            for work in works
        ]
        put, drop = book.changed()
        write_rows(tx.db, _PUT_SEATS, [value for row in put for value in row])
        write_rows(tx.db, _DROP_SEATS, [value for row in drop for value in row])
        write_rows(tx.db, _PUT_BUDGETS, [value for row in book.spent() for value in row])
        return list(grants)


def leave(tx: Transaction, owner: Id) -> None:
    tx.db.execute(_LEAVE, (owner,))


# --- what is over ---------------------------------------------------------------------------------


def purgeable(db: apsw.Connection, before: int, *, steady: int) -> bool:
    values: Mapping[str, int] = {"before": before, **_over(steady)}
    return bool(fetch_all(db, _PURGEABLE, values))


def purge(tx: Transaction, before: int, *, steady: int) -> int:
    """Remove notes and budgets that ended before `before`, and seats before `steady`; how many.
    There are few: one a relay, site or process."""
    removed = 0
    for query, values in (
        (_PURGE_NOTES, {"before": before}),
        (_PURGE_BUDGETS, {"before": before}),
        (_PURGE_SEATS, _over(steady)),
    ):
        tx.db.execute(query, values)
        removed += tx.db.changes()
    return removed


def _over(steady: int) -> Mapping[str, int]:
    """A seat's end is before the one or after the other."""
    return {"steady": steady, "beyond": steady + LONGEST_LEASE_MS}
