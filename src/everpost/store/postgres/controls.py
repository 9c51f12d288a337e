"""cancel, hold, release, reschedule: one compare-and-set each, on all recipients of a message, by
whichever of its names.

Cancel is all or nothing (docs/decisions/0010-cancel-is-all-or-nothing.md); the others move what may
be moved. One that was done before its answer got lost is done: it counts the same once more.
"""

from everpost.ids import Id
from everpost.model.states import HeldReason, State, Verb, sources
from everpost.store.postgres.connection import SQL
from everpost.store.postgres.moves import Moves, json_text, rows_of_message
from everpost.store.postgres.work import Transaction, fetch_all, run

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
    rows = rows_of_message(tx, project, message)
    if tx.doubted and all(row.state is State.CANCELLED for row in rows):
        return len(rows)
    if any(row.state not in movable for row in rows):
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
    found = rows_of_message(tx, project, message)
    rows = [row for row in found if row.state in movable]
    if tx.doubted and not rows:
        return sum(row.state is target for row in found)
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
    found = rows_of_message(tx, project, message)  # locked: its timeline gets a line
    rows = [row for row in found if row.state is State.QUEUED and not row.attempts]
    if tx.doubted and all(row.not_before == at for row in rows):
        return len(rows)
    values = {"project": project, "message": message, "at": at, "now": tx.now}
    moved = run(tx.db, _RESCHEDULE_RECIPIENTS, values)
    if not moved:
        return 0
    run(tx.db, _RESCHEDULE_MESSAGE, {"project": project, "message": message, "at": at})
    moves = Moves(tx)
    moves.event(message, None, "rescheduled", json_text({"at": at}))
    moves.write()
    if at <= tx.now:
        tx.queued += moved
    return moved
