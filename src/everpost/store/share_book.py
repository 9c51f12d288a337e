"""Who has which shares of some limits, and what each gets: the arithmetic of one transaction. Pure;
every engine reads the rows, asks here, and writes what has changed."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from everpost.ids import Id
from everpost.model.shares import Ask, Grant
from everpost.store.fair_shares import divide, part_of_budget

__all__ = ["ShareBook", "named"]

_TURNS = 3
"""Turns in one lease: how often those who get a seat change where there are too few."""


_WORTH_KEEPING = 4
"""A part of fewer seats is lent to those who have mail, but for one for each who may begin, as far
as this part of the limit allows:"""
_RESERVE = 4


class _Seats(NamedTuple):
    amount: int
    want: int
    ends_at: int


def named(asks: Iterable[Ask], kind: str) -> list[str]:
    """The limits of a kind ("seats", "budget") that are asked for, each once."""
    return list(dict.fromkeys(ask.name for ask in asks if ask.kind == kind))


class ShareBook:
    """The shares of some limits, as read in a transaction whose times are `now` and `steady`:
    `seats` as (name, owner, amount, want, ends_at), `budgets` as (name, starts_at, granted).
    `processes`: who sends, with mail or without."""

    def __init__(
        self,
        *,
        now: int,
        steady: int,
        processes: Iterable[Id],
        seats: Iterable[tuple[str, Id, int, int, int]],
        budgets: Iterable[tuple[str, int, int]],
    ) -> None:
        self._now = now
        self._steady = steady
        self._processes = frozenset(processes)
        self._seats: dict[str, dict[Id, _Seats]] = {}
        self._budgets: dict[str, tuple[int, int]] = {}
        self._changed: dict[tuple[str, Id], _Seats | None] = {}
        self._spent: dict[str, tuple[int, int, int]] = {}
        for name, owner, amount, want, ends_at in seats:
            if ends_at > steady:
                self._seats.setdefault(name, {})[owner] = _Seats(amount, want, ends_at)
        for name, starts_at, granted in budgets:
            self._budgets[name] = (starts_at, granted)

    def grant(self, owner: Id, ask: Ask, *, lease_ms: int, among: int) -> Grant:
        """What `owner` gets of it (see `Sharing.share`)."""
        if ask.kind == "seats":
            return self._grant_seats(owner, ask, lease_ms, among)
        return self._grant_budget(owner, ask)

    def _grant_seats(self, owner: Id, ask: Ask, lease_ms: int, among: int) -> Grant:
        now, until = self._steady, self._steady + lease_ms
        held = self._seats.setdefault(ask.name, {})
        for other, seats in held.items():
            if seats.ends_at > until:  # of an earlier run of the host; they end a lease from now
                self._put(ask.name, other, seats._replace(ends_at=until))
        wants = {**{o: s.want for o, s in held.items()}, owner: ask.want}
        free = max(ask.cap - sum(s.amount for o, s in held.items() if o != owner), 0)
        # Who begins to send finds its part: else what hangs in the hands of those who had it would
        # leave them no place for other mail (I17).
        processes = max(len(self._processes | wants.keys()), among)
        idle, part = processes - len(wants), ask.cap / processes
        kept = int(idle * part) if part >= _WORTH_KEEPING else min(idle, ask.cap // _RESERVE)
        turn = now * _TURNS // max(lease_ms, 1)
        amount = min(divide(ask.cap - kept, wants, turn=turn)[owner], free)
        taken = min(max(amount, ask.used), free)
        self._put(ask.name, owner, _Seats(taken, ask.want, until) if ask.want or taken else None)
        lacking = sum(max(s.want - s.amount, 0) for o, s in held.items() if o != owner)
        return Grant(ask.name, amount, until, left=(free - taken) or -lacking)

    def _grant_budget(self, owner: Id, ask: Ask) -> Grant:
        start = self._now - self._now % ask.window_ms
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

    def changed(self) -> tuple[Sequence[tuple[str, Id, int, int, int]], Sequence[tuple[str, Id]]]:
        """Seats to put, as they were read, and to drop."""
        put = [(*key, *seats) for key, seats in self._changed.items() if seats is not None]
        return put, [key for key, seats in self._changed.items() if seats is None]

    def spent(self) -> Sequence[tuple[str, int, int, int]]:
        """Budgets to put, as (name, starts_at, ends_at, granted)."""
        return [(name, *values) for name, values in self._spent.items()]
