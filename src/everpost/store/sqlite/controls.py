"""cancel, hold, release, reschedule: one compare-and-set each, on all recipients of a message, by
whichever of its names.

Cancel is all or nothing (docs/decisions/0010-cancel-is-all-or-nothing.md); the others move what may
be moved.
"""

from everpost.ids import Id
from everpost.model.states import HeldReason, State, Verb, sources
from everpost.store.sqlite.connection import SQL
from everpost.store.sqlite.moves import Moves, json_text, rows_of_message
from everpost.store.sqlite.work import Transaction, fetch_all

__all__ = ["cancel", "hold", "release", "reschedule"]

_STANDS_FOR = SQL["stands_for"]
_RESCHEDULE_RECIPIENTS = SQL["reschedule_recipients"]
_RESCHEDULE_MESSAGE = SQL["reschedule_message"]


def _stands_for(tx: Transaction, project: int, name: Id) -> Id:
    """The message of that name; the name itself where there is none."""
    rows = fetch_all(tx.db, _STANDS_FOR, (project, name))
    found: Id = rows[0][0] if rows else name
    return found


def cancel(tx: Transaction, project: int, message: Id) -> int:
    message = _stands_for(tx, project, message)
    movable = sources(Verb.CANCEL, State.CANCELLED)
    if any(row.state not in movable for row in rows_of_message(tx, project, message)):
        return 0
    return _all(tx, project, message, Verb.CANCEL, State.CANCELLED, event="cancelled")


def hold(tx: Transaction, project: int, message: Id, reason: HeldReason) -> int:
    return _all(tx, project, message, Verb.HOLD, State.HELD, event="held", reason=reason)


def release(tx: Transaction, project: int, message: Id) -> int:
    return _all(tx, project, message, Verb.RELEASE, State.QUEUED, event="released")


def _all(
    tx: Transaction,
    project: int,
    message: Id,
    verb: Verb,
    target: State,
    *,
    event: str,
    reason: HeldReason | None = None,
) -> int:
    """Move every recipient that the table lets `verb` move; how many."""
    message = _stands_for(tx, project, message)
    movable = sources(verb, target)
    rows = [row for row in rows_of_message(tx, project, message) if row.state in movable]
    moves = Moves(tx)
    data = json_text({} if reason is None else {"reason": reason.value})
    for row in rows:
        not_before = tx.now if target is State.QUEUED else None
        if verb is Verb.RELEASE:
            row.crashes = 0  # somebody has looked: it gets its chances anew
        moves.move(row, target, reason=reason, not_before=not_before)
        moves.event(row.message, row.n, event, data)
    moves.write()
    return len(rows)


def reschedule(tx: Transaction, project: int, message: Id, at: int) -> int:
    """Move the due time, and with it the end of the lifetime, of what was never tried."""
    message = _stands_for(tx, project, message)
    values = {"project": project, "message": message, "at": at, "now": tx.now}
    tx.db.execute(_RESCHEDULE_RECIPIENTS, values)
    moved = tx.db.changes()
    if not moved:
        return 0
    tx.db.execute(_RESCHEDULE_MESSAGE, {"project": project, "message": message, "at": at})
    moves = Moves(tx)
    moves.event(message, None, "rescheduled", json_text({"at": at}))
    moves.write()
    if at <= tx.now:
        tx.queued += moved
    return moved
