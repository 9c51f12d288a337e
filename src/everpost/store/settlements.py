"""A settlement, checked, and its attempt as columns."""

from typing import Any

from everpost.model.outcome import AttemptRecord
from everpost.model.states import State, Verb, allowed
from everpost.store.arrivals import json_text
from everpost.store.interface import Settlement

__all__ = ["Records", "check"]


def check(verb: Verb, settlement: Settlement) -> None:
    """Raises ValueError for an arrow that the table of states does not have, or one that lacks what
    its target needs."""
    target = settlement.target
    if not allowed(State.CLAIMED, verb, target):
        raise ValueError(f"{verb.value} does not lead from claimed to {target.value}")
    if target is State.QUEUED and settlement.not_before is None:
        raise ValueError("a recipient that goes back to the queue needs not_before")
    if target is State.HELD and settlement.reason is None:
        raise ValueError("a recipient that is held needs a reason")


class Records:
    """Attempts as columns. All recipients of a transaction share one record: written out once."""

    __slots__ = ("_texts",)

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}

    def columns(self, settlement: Settlement, record: AttemptRecord) -> tuple[Any, ...]:
        """From `transaction_id` on."""
        text = self._texts.get(id(record))
        if text is None:
            text = self._texts[id(record)] = json_text(record)
        outcome = settlement.outcome
        return (
            record.transaction, record.started_at, record.ended_at,
            "none" if outcome is None else outcome.__struct_config__.tag,
            "{}" if outcome is None else json_text(outcome),
            text, record.form, record.body_hash,
        )  # fmt: skip
