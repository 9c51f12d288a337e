"""settle and rescue: compare owner, term and state, then set state, attempt and event."""

from collections.abc import Sequence
from typing import Any, ClassVar

from everpost.ids import Id
from everpost.model.outcome import Delivered
from everpost.model.states import State, Verb
from everpost.store.interface import Settlement
from everpost.store.postgres.moves import Moves, Row, json_text, rows_by_key
from everpost.store.postgres.work import Transaction, Work
from everpost.store.settlements import Records, check

__all__ = ["Rescue", "Settle"]


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
                before = tx.doubted and _settled_before(row, settlement)
                holds = (
                    row is not None
                    and row.state is State.CLAIMED
                    and row.owner == work.owner
                    and row.term == settlement.term
                )
                if row is not None and holds:
                    cls._apply(moves, row, settlement, records)
                written.append(holds or before)
            answers.append(written)
        moves.write()
        return answers

    @classmethod
    def _apply(cls, moves: Moves, row: Any, settlement: Settlement, records: Records) -> None:
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
    """The same for the claims of an owner that is gone."""

    __slots__ = ()
    verb: ClassVar[Verb] = Verb.RESCUE


def _settled_before(row: Row | None, settlement: Settlement) -> bool:
    """Whether an earlier run of the same works has done it: nobody else held this term."""
    return (
        row is not None
        and row.term == settlement.term
        and row.owner is None
        and row.state is settlement.target
    )
