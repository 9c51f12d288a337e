"""Moving recipients between states: lock the rows, compare, set, and write the timeline.

Every verb that moves a recipient goes through `Moves`. The rows are locked until COMMIT, always in
the order of (message, n), and with each the first recipient of its message: whoever holds that one
numbers the message's events.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from everpost.ids import Id
from everpost.model.states import LIVE, State
from everpost.store.arrivals import json_text
from everpost.store.postgres.connection import SQL
from everpost.store.postgres.work import Rows, Transaction, fetch_all, fetch_rows, write_rows
from everpost.store.queue_row import Row

__all__ = ["Moves", "Row", "json_text", "rows_by_key", "rows_of_message"]

_BY_KEY = Rows(SQL["recipients_by_key"])
_OF_MESSAGE = SQL["recipients_of_message"]
_MOVE = Rows(SQL["move_recipients"])
_LAST_SEQS = Rows(SQL["last_seqs"])
_ADD_EVENTS = Rows(SQL["add_events"])
_ADD_ATTEMPTS = Rows(SQL["add_attempts"])


def rows_by_key(tx: Transaction, keys: Iterable[tuple[Id, int]]) -> dict[tuple[Id, int], Row]:
    """The recipients of these (message, n) keys that exist, locked; their messages' first ones
    too."""
    values = [value for key in dict.fromkeys(keys) for value in (*key, key[0])]
    return {(c[0], c[1]): Row(c) for c in fetch_rows(tx.db, _BY_KEY, values)}


def rows_of_message(tx: Transaction, project: int, message: Id) -> list[Row]:
    """All recipients of a message, locked."""
    return [Row(columns) for columns in fetch_all(tx.db, _OF_MESSAGE, (message, project))]


class Moves:
    """Gathers what a verb does to recipients, one move each; `write` writes it."""

    __slots__ = ("_attempts", "_events", "_moved", "_tx")

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._moved: list[Any] = []
        self._attempts: list[Any] = []
        self._events: list[tuple[Id, int | None, str, str]] = []

    def move(
        self,
        row: Row,
        target: State,
        *,
        reason: str | None = None,
        not_before: int | None = None,
        via: str | None = None,
        crash: bool = False,
    ) -> None:
        """Set the row's state. `not_before` None keeps the row's; `row.attempts` as it now is."""
        tx = self._tx
        if target is not row.state:
            tx.tally(row.project, row.state, -1)
            tx.tally(row.project, target, 1)
        settled_at = None if target in LIVE else tx.now
        if not_before is not None:
            row.not_before = not_before
        row.state = target
        row.owner = None
        row.crashes += crash
        row.due = int(row.not_before <= tx.now)
        if target is State.QUEUED:
            tx.queued += row.due
        self._moved += (
            row.message, row.n, target.value, reason, row.not_before, row.due, settled_at, via,
            row.attempts, row.crashes,
        )  # fmt: skip

    def attempt(self, row: Row, columns: Sequence[Any]) -> None:
        """Record one more finished attempt; `columns` from `transaction_id` on."""
        row.attempts += 1
        self._attempts += (row.message, row.n, row.attempts, *columns)

    def event(self, message: Id, n: int | None, type_: str, data: str) -> None:
        """One line of the timeline; `data` is JSON. Lines keep the order they are given in."""
        self._events.append((message, n, type_, data))

    def write(self) -> None:
        db = self._tx.db
        write_rows(db, _MOVE, self._moved)
        write_rows(db, _ADD_ATTEMPTS, self._attempts)
        if self._events:
            write_rows(db, _ADD_EVENTS, self._numbered())

    def _numbered(self) -> list[Any]:
        """The events with each message's next sequence numbers."""
        messages = list(dict.fromkeys(event[0] for event in self._events))
        seqs: dict[Id, int] = dict(fetch_rows(self._tx.db, _LAST_SEQS, messages))
        values: list[Any] = []
        now = self._tx.now
        for message, n, type_, data in self._events:
            seq = seqs.get(message, 0) + 1
            seqs[message] = seq
            values += (message, seq, n, type_, now, data)
        return values
