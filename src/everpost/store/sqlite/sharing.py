"""Notes, leases and shares of limits: what processes tell each other (see store.sharing)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import apsw
import msgspec

from everpost.ids import Id
from everpost.model.shares import Ask, Grant
from everpost.store.fair_shares import divide, part_of_budget
from everpost.store.interface import LONGEST_LEASE_MS
from everpost.store.queries import Rows
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

_TURNS = 3
"""Turns in one lease: how often those who get a seat change where there are too few."""


_WORTH_KEEPING = 4
"""A part of fewer seats is lent to those who have mail, but for one for each who may begin, as far
as this part of the limit allows:"""
_RESERVE = 4


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


class _Seats(NamedTuple):
    amount: int
    want: int
    ends_at: int


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
        ledger = _Ledger(tx, [ask for work in works for ask in work.asks])
        grants = [[ledger.grant(work, ask) for ask in work.asks] for work in works]
        ledger.write()
        return list(grants)


class _Ledger:
    """The shares of some limits in one transaction: read at once, granted in turn, written at
    once."""

    def __init__(self, tx: Transaction, asks: Sequence[Ask]) -> None:
        self._tx = tx
        self._processes = {row[0] for row in fetch_all(tx.db, _PROCESSES)}
        self._seats: dict[str, dict[Id, _Seats]] = {}
        self._budgets: dict[str, tuple[int, int]] = {}
        self._changed: dict[tuple[str, Id], _Seats | None] = {}
        self._spent: dict[str, tuple[int, int, int]] = {}
        seats = dict.fromkeys(ask.name for ask in asks if ask.kind == "seats")
        budgets = dict.fromkeys(ask.name for ask in asks if ask.kind == "budget")
        for name, owner, amount, want, ends_at in fetch_rows(tx.db, _SEATS, list(seats)):
            if ends_at > tx.steady:
                self._seats.setdefault(name, {})[owner] = _Seats(amount, want, ends_at)
        for name, starts_at, granted in fetch_rows(tx.db, _BUDGETS, list(budgets)):
            self._budgets[name] = (starts_at, granted)

    def grant(self, work: Share, ask: Ask) -> Grant:
        if ask.kind == "seats":
            return self._grant_seats(work.owner, ask, work)
        return self._grant_budget(work.owner, ask)

    def _grant_seats(self, owner: Id, ask: Ask, work: Share) -> Grant:
        lease_ms = work.lease_ms
        now, until = self._tx.steady, self._tx.steady + lease_ms
        held = self._seats.setdefault(ask.name, {})
        for other, seats in held.items():
            if seats.ends_at > until:  # of an earlier run of the host; they end a lease from now
                self._put(ask.name, other, seats._replace(ends_at=until))
        wants = {**{o: s.want for o, s in held.items()}, owner: ask.want}
        free = max(ask.cap - sum(s.amount for o, s in held.items() if o != owner), 0)
        # Who begins to send finds its part: else what hangs in the hands of those who had it would
        # leave them no place for other mail (I17).
        processes = max(len(self._processes | wants.keys()), work.among)
        idle, part = processes - len(wants), ask.cap / processes
        kept = int(idle * part) if part >= _WORTH_KEEPING else min(idle, ask.cap // _RESERVE)
        turn = now * _TURNS // max(lease_ms, 1)
        amount = min(divide(ask.cap - kept, wants, turn=turn)[owner], free)
        taken = min(max(amount, ask.used), free)
        self._put(ask.name, owner, _Seats(taken, ask.want, until) if ask.want or taken else None)
        lacking = sum(max(s.want - s.amount, 0) for o, s in held.items() if o != owner)
        return Grant(ask.name, amount, until, left=(free - taken) or -lacking)

    def _grant_budget(self, owner: Id, ask: Ask) -> Grant:
        start = self._tx.now - self._tx.now % ask.window_ms
        end = start + ask.window_ms
        began, granted = self._budgets.get(ask.name, (start, 0))
        if began != start:
            granted = 0
        left = max(ask.cap - granted, 0)
        amount = part_of_budget(ask.want, left=left, processes=len(self._processes | {owner}))
        if amount:
            self._budgets[ask.name] = (start, granted + amount)
            self._spent[ask.name] = (start, end, granted + amount)
        return Grant(ask.name, amount, end, left=left - amount)

    def _put(self, name: str, owner: Id, seats: _Seats | None) -> None:
        held = self._seats[name]
        if seats is not None:
            held[owner] = seats
        elif owner not in held:
            return
        else:
            del held[owner]
        self._changed[name, owner] = seats

    def write(self) -> None:
        put: list[Any] = []
        drop: list[Any] = []
        for key, seats in self._changed.items():
            if seats is None:
                drop += key
            else:
                put += (*key, *seats)
        write_rows(self._tx.db, _PUT_SEATS, put)
        write_rows(self._tx.db, _DROP_SEATS, drop)
        spent = [v for name, values in self._spent.items() for v in (name, *values)]
        write_rows(self._tx.db, _PUT_BUDGETS, spent)


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
