"""What the disk changed in recipients' rows: held as damaged, so that it stops nothing else (F9).

Nothing here costs a sound store anything: the queue is looked through only after a claim has met
a row that could not be read, or an index that does not fit its rows.
"""

from collections.abc import Iterable
from typing import Any

import apsw

from everpost import telemetry
from everpost.ids import Id
from everpost.model.states import HeldReason, State
from everpost.store.interface import StoreCorrupt
from everpost.store.sqlite.connection import SQL
from everpost.store.sqlite.moves import Moves, json_text, rows_by_key
from everpost.store.sqlite.work import Transaction, fetch_all

__all__ = ["SUSPICIOUS", "IndexOff", "NumberOff", "QueueMender", "hold"]

_BEYOND_ASCII = SQL["queued_beyond_ascii"]
_NUMBERS_OFF = SQL["mend_numbers"]
_PAUSE_MS = 60_000


class IndexOff(StoreCorrupt):
    """An index led to rows that are not what it says."""


class NumberOff(StoreCorrupt):
    """A column of numbers has something else in a row."""


SUSPICIOUS = (UnicodeDecodeError, apsw.CorruptError, apsw.ConstraintError, IndexOff, NumberOff)
"""What a claim meets when a row or an index of the queue was changed; what does not fit its column
any more is refused when the row is written."""


def hold(tx: Transaction, keys: Iterable[tuple[Id, int]], *, alarm: str, why: str) -> None:
    """Hold these (message, n): damaged recipients can't be sent, nor given to anyone."""
    rows = rows_by_key(tx, keys).values()
    if not rows:
        return
    telemetry.alarm(alarm).raise_(message=next(iter(rows)).message, error=why)
    moves = Moves(tx)
    for row in rows:
        moves.move(row, State.HELD, reason=HeldReason.DAMAGED)
        moves.event(row.message, row.n, "held", json_text({"reason": why}))
    moves.write()


class QueueMender:
    """Mends the queue when a claim has met what does not fit, but after a failure no sooner than
    in a minute: where the rows themselves cannot be walked, each try would read them all."""

    __slots__ = ("_not_before",)

    def __init__(self) -> None:
        self._not_before = 0

    def mend(self, tx: Transaction) -> None:
        """Build the indexes of recipients anew out of the rows, then hold what is queued and due
        and not readable, be it text or numbers. Raises apsw.CorruptError where the rows cannot be
        walked.

        An index is derived, so nothing is lost by that; a stale entry that stayed would lead to the
        same recipient again and again, whatever became of it. About 2 s for a million queued rows.
        """
        if tx.steady < self._not_before:
            return
        telemetry.event("store.queue_doubted", level="warning")
        tx.db.execute("REINDEX recipients")
        found: list[tuple[Any, ...]] = tx.db.execute(_BEYOND_ASCII).fetchall()
        unreadable = [
            (message, n)
            for message, n, *texts in found
            if not all(_is_text(each) for each in texts)
        ]
        unreadable += [row[:2] for row in fetch_all(tx.db, _NUMBERS_OFF, {"now": tx.now})]
        hold(tx, unreadable, alarm="row_corrupt", why="recipient unreadable")

    def failed(self, tx: Transaction) -> None:
        """The claim met it all the same."""
        if tx.steady >= self._not_before:
            self._not_before = tx.steady + _PAUSE_MS


def _is_text(stored: object) -> bool:
    if not isinstance(stored, bytes):
        return False
    try:
        stored.decode()
    except UnicodeDecodeError:
        return False
    return True
