"""settle and rescue: compare owner, term and state, then set state, attempt and event."""

from collections.abc import Sequence
from typing import Any, ClassVar

from everpost import telemetry
from everpost.ids import Id
from everpost.model.outcome import Delivered
from everpost.model.states import HeldReason, State, Verb
from everpost.store.interface import Settlement
from everpost.store.queries import Rows
from everpost.store.settlements import Records, check
from everpost.store.sqlite.connection import SQL
from everpost.store.sqlite.moves import Moves, json_text, rows_by_key
from everpost.store.sqlite.work import Transaction, Work, fetch_rows

__all__ = ["Rescue", "Settle"]

_MEND_CLAIMED = Rows(SQL["mend_claimed_numbers"])
_UNREADABLE = "recipient unreadable"


class Settle(Work[Sequence[bool]]):
    """One call of settle. Raises ValueError for an arrow that the table of states does not have."""

    __slots__ = ("owner", "settlements")
    merged: ClassVar[bool] = True
    verb: ClassVar[Verb] = Verb.SETTLE

    def __init__(self, owner: Id, settlements: Sequence[Settlement]) -> None:
        super().__init__()
        for settlement in settlements:
            check(self.verb, settlement)
        self.owner = owner
        self.settlements = settlements

    @classmethod
    def run(cls, tx: Transaction, works: "Sequence[Settle]") -> list[Sequence[bool]]:
        rows = rows_by_key(tx, ((s.message, s.n) for work in works for s in work.settlements))
        moves = Moves(tx)
        records = Records()
        answers: list[Sequence[bool]] = []
        for work in works:
            written = []
            for settlement in work.settlements:
                row = rows.get((settlement.message, settlement.n))
                holds = (
                    row is not None
                    and row.state is State.CLAIMED
                    and row.owner == work.owner
                    and row.term == settlement.term
                )
                if row is not None and holds:
                    cls._apply(moves, row, settlement, records)
                written.append(holds)
            answers.append(written)
        moves.write()
        return answers

    @classmethod
    def _apply(cls, moves: Moves, row: Any, settlement: Settlement, records: "Records") -> None:
        if settlement.attempt is not None:
            moves.attempt(row, records.columns(settlement, settlement.attempt))
        outcome = settlement.outcome
        moves.move(
            row,
            settlement.target,
            reason=settlement.reason,
            not_before=settlement.not_before,
            via=outcome.via if isinstance(outcome, Delivered) else None,
            crash=settlement.crashed,
        )
        moves.event(settlement.message, settlement.n, settlement.event, json_text(settlement.data))


class Rescue(Settle):
    """The same for the claims of an owner that is gone. One whose numbers the disk has changed
    meanwhile is held instead: it must not keep the others from being rescued (F9)."""

    __slots__ = ()
    verb: ClassVar[Verb] = Verb.RESCUE

    @classmethod
    def run(cls, tx: Transaction, works: "Sequence[Settle]") -> list[Sequence[bool]]:
        keys = [value for work in works for s in work.settlements for value in (s.message, s.n)]
        damaged = set(fetch_rows(tx.db, _MEND_CLAIMED, keys, before=(tx.now, tx.now)))
        if damaged:
            telemetry.alarm("row_corrupt").raise_(message=next(iter(damaged))[0], error=_UNREADABLE)
            for work in works:
                work.settlements = [
                    _held(s) if (s.message, s.n) in damaged else s for s in work.settlements
                ]
        return super().run(tx, works)


def _held(settlement: Settlement) -> Settlement:
    return Settlement(
        message=settlement.message,
        n=settlement.n,
        term=settlement.term,
        target=State.HELD,
        event="held",
        data={"reason": _UNREADABLE},
        reason=HeldReason.DAMAGED,
    )
