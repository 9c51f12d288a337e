"""A recipient as one transaction sees it."""

from typing import Any

from everpost.model.states import State

__all__ = ["Row"]


class Row:
    """Its own moves included. From the columns of `recipients_by_key`."""

    __slots__ = (
        "attempts", "crashes", "due", "message", "n", "not_before", "owner", "project", "state",
        "term",
    )  # fmt: skip

    def __init__(self, columns: tuple[Any, ...]) -> None:
        (
            self.message, self.n, self.project, state, self.due, self.not_before, self.owner,
            self.term, self.attempts, self.crashes,
        ) = columns  # fmt: skip
        self.state = State(state)
