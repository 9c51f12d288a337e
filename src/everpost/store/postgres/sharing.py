"""Notes, leases and shares of limits: what processes tell each other (see store.sharing)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from everpost.ids import Id
from everpost.model.shares import Ask, Grant
from everpost.store.interface import LONGEST_LEASE_MS
from everpost.store.postgres.connection import SQL, Db
from everpost.store.postgres.work import (
    Rows,
    Transaction,
    Work,
    fetch_all,
    integer,
    run,
    write_rows,
)
from everpost.store.share_book import ShareBook, named
from everpost.store.sharing import Note

__all__ = ["Lead", "PutNotes", "Share", "leave", "noted", "purge", "purgeable", "yield_lead"]

_COUNT_NOTES = SQL["count_notes"]
_NEWEST_NOTE = SQL["newest_note"]
_PUT_NOTES = Rows(SQL["put_notes"])
_NOTES_AFTER = SQL["notes_after"]
_NOTES_OF_KINDS = SQL["notes_of_kinds"]
_LEASE_OF = SQL["lease_of"]
_MAKE_LEASE = SQL["make_lease"]
_LOCK_LEASE = SQL["lock_lease"]
_PUT_LEASE = SQL["put_lease"]
_YIELD_LEASE = SQL["yield_lease"]
_SHARE_ALONE = SQL["share_alone"]
_PROCESSES = SQL["processes_that_share"]
_SEATS = SQL["seats_by_name"]
_PUT_SEATS = Rows(SQL["put_seats"])
_DROP_SEATS = Rows(SQL["drop_seats"])
_LEAVE = SQL["drop_seats_of_owner"]
_BUDGETS = SQL["budgets_by_name"]
_PUT_BUDGETS = Rows(SQL["put_budgets"])
_PURGE_NOTES = SQL["purge_notes"]
_PURGE_SEATS = SQL["purge_seats"]
_PURGE_BUDGETS = SQL["purge_budgets"]
_PURGEABLE = SQL["purgeable_shares"]

_encode = msgspec.json.Encoder().encode


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
        """Of several notes with one key the last one stands: a statement may write a row once."""
        notes = [note for work in works for note in work.notes]
        if notes:
            first = integer(tx.db, _COUNT_NOTES, (len(notes),)) - len(notes) + 1
            last = {(note.kind, note.key): n for n, note in enumerate(notes)}
            values: list[Any] = []
            for n in sorted(last.values()):
                note = notes[n]
                data = _encode(note.data).decode()
                values += (note.kind, note.key, data, note.expires_at, first + n)
            write_rows(tx.db, _PUT_NOTES, values)
        return [None] * len(works)


def noted(db: Db, kinds: Sequence[str], *, after: int, now: int) -> tuple[int, Sequence[Note]]:
    """The newest version and what is new: a look at one row where nothing is."""
    newest = integer(db, _NEWEST_NOTE)
    if newest <= after:
        return newest, ()
    if after > 0:
        rows = fetch_all(db, _NOTES_AFTER, (after, now))
    else:
        rows = fetch_all(db, _NOTES_OF_KINDS, (list(kinds), now))
    found = [
        Note(kind, key, msgspec.json.decode(data), ends, version)
        for kind, key, data, ends, version in rows
        if kind in kinds
    ]
    return newest, found


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

    def wanted(self, db: Db) -> bool:
        return not any(
            owner != self.owner and self.now < deadline <= self.now + self.lease_ms
            for owner, _, deadline in fetch_all(db, _LEASE_OF, (self.name,))
        )

    def idle(self) -> int | None:
        return None

    @classmethod
    def run(cls, tx: Transaction, works: "Sequence[Lead]") -> list[int | None]:
        return [_lead(tx, work) for work in works]


def _lead(tx: Transaction, work: Lead) -> int | None:
    end = tx.steady + work.lease_ms
    held = fetch_all(tx.db, _LOCK_LEASE, (work.name,))
    if not held:
        run(tx.db, _MAKE_LEASE, (work.name,))
        held = fetch_all(tx.db, _LOCK_LEASE, (work.name,))
    owner, last, deadline = held[0]
    if owner != work.owner and deadline > tx.steady:
        if deadline > end:  # nobody is locked out for that long
            run(tx.db, _PUT_LEASE, (owner, last, end, work.name))
        return None
    term: int = last if deadline > tx.steady else last + 1
    run(tx.db, _PUT_LEASE, (work.owner, term, end, work.name))
    return term


def yield_lead(tx: Transaction, name: str, owner: Id) -> None:
    run(tx.db, _YIELD_LEASE, (name, owner))


# --- shares ---------------------------------------------------------------------------------------


class Share(Work[Sequence[Grant]]):
    """One call of share."""

    __slots__ = ("among", "asks", "lease_ms", "owner")

    verb: ClassVar[str] = "share"
    merged: ClassVar[bool] = True
    turn: ClassVar[int] = 1

    def __init__(self, owner: Id, asks: Sequence[Ask], *, lease_ms: int, among: int = 1) -> None:
        super().__init__()
        self.among = among
        self.owner = owner
        self.asks = asks
        self.lease_ms = lease_ms

    @classmethod
    def run(cls, tx: Transaction, works: "Sequence[Share]") -> list[Sequence[Grant]]:
        asks = [ask for work in works for ask in work.asks]
        fetch_all(tx.db, _SHARE_ALONE)
        seats, budgets = named(asks, "seats"), named(asks, "budget")
        book = ShareBook(
            now=tx.now,
            steady=tx.steady,
            processes=[row[0] for row in fetch_all(tx.db, _PROCESSES)],
            seats=[_seat(row) for row in fetch_all(tx.db, _SEATS, (seats,))] if seats else (),
            budgets=[_spent(row) for row in fetch_all(tx.db, _BUDGETS, (budgets,))]
            if budgets
            else (),
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


def _seat(row: Sequence[Any]) -> tuple[str, Id, int, int, int]:
    name, owner, amount, want, ends_at = row
    return name, owner, amount, want, ends_at


def _spent(row: Sequence[Any]) -> tuple[str, int, int]:
    name, starts_at, granted = row
    return name, starts_at, granted


def leave(tx: Transaction, owner: Id) -> None:
    run(tx.db, _LEAVE, (owner,))


# --- what is over ---------------------------------------------------------------------------------


def purgeable(db: Db, before: int, *, steady: int) -> bool:
    return bool(fetch_all(db, _PURGEABLE, {"before": before, **_over(steady)}))


def purge(tx: Transaction, before: int, *, steady: int) -> int:
    """Remove notes and budgets that ended before `before`, and seats before `steady`; how many.
    There are few: one a relay, site or process."""
    return (
        run(tx.db, _PURGE_NOTES, {"before": before})
        + run(tx.db, _PURGE_BUDGETS, {"before": before})
        + run(tx.db, _PURGE_SEATS, _over(steady))
    )


def _over(steady: int) -> Mapping[str, int]:
    """A seat's end is before the one or after the other."""
    return {"steady": steady, "beyond": steady + LONGEST_LEASE_MS}
