"""The ledger's repairs: each one transaction with its rows of the audit table, and each looks once
more whether what it was told of still holds."""

from collections.abc import Mapping, Sequence
from typing import Any

from everpost.ids import Id, text
from everpost.model.states import HeldReason, InDoubtPolicy, State, Verb, sources
from everpost.store.arrivals import json_text
from everpost.store.interface import Claim, Settlement, StoreUnavailable
from everpost.store.mail_columns import policy_of
from everpost.store.postgres.connection import SQL, Db
from everpost.store.postgres.moves import Moves
from everpost.store.postgres.settling import Rescue
from everpost.store.postgres.work import Transaction, fetch_all, integer, run
from everpost.store.queue_row import Row
from everpost.store.taken import as_left_claim

__all__ = [
    "drop_orphans",
    "hold_damaged",
    "mend_tallies",
    "orphans",
    "queue_anew",
    "take_back",
    "unowned",
]

_RECIPIENTS = SQL["audited_recipients"]
_UNOWNED = SQL["unowned_claim"]
_QUEUE_ANEW = SQL["queue_anew"]
_IS_ORPHAN = SQL["is_orphan"]
_ORPHANS = {
    "contents": SQL["orphan_contents"],
    "events": SQL["orphan_events"],
    "attempts": SQL["orphan_attempts"],
}
_DROPS = (SQL["drop_orphan_contents"], SQL["drop_orphan_events"], SQL["drop_orphan_attempts"])
_ADD_AUDIT = SQL["add_audit"]


def _note(
    tx: Transaction, actor: str, action: str, object_: str, kind: str = "message", **detail: Any
) -> None:
    run(tx.db, _ADD_AUDIT, (tx.now, actor, action, kind, object_, json_text(detail)))


def hold_damaged(
    tx: Transaction, recipients: Sequence[tuple[Id, int | None]], *, actor: str
) -> int:
    movable = sources(Verb.HOLD, State.HELD)
    moves, held = Moves(tx), 0
    for message, only in sorted(dict.fromkeys(recipients), key=lambda key: (key[0], key[1] or 0)):
        rows = [
            Row(columns)
            for columns in fetch_all(tx.db, _RECIPIENTS, (message,))
            if only in (None, columns[1]) and columns[3] in movable
        ]
        for row in rows:
            moves.move(row, State.HELD, reason=HeldReason.DAMAGED)
            moves.event(message, row.n, "held", json_text({"reason": HeldReason.DAMAGED.value}))
        if rows:
            _note(tx, actor, "hold", text(message), recipients=[row.n for row in rows])
        held += len(rows)
    moves.write()
    return held


def unowned(
    db: Db, recipients: Sequence[tuple[Id, int]]
) -> Sequence[tuple[Claim, InDoubtPolicy | None]]:
    """Claims of these (message, n) that nobody owns; the policy is None where the message is
    gone."""
    return [(claim, policy) for claim, policy, _ in _unowned(db, recipients)]


def _unowned(
    db: Db, recipients: Sequence[tuple[Id, int]]
) -> list[tuple[Claim, InDoubtPolicy | None, Id | None]]:
    found = []
    for key in recipients:
        for row in fetch_all(db, _UNOWNED, key):
            claim = as_left_claim(row[:11], deadline=row[11] or 0)
            found.append((claim, None if row[12] is None else policy_of(row[12]), row[13]))
    return found


def take_back(tx: Transaction, settlements: Sequence[Settlement], *, actor: str) -> int:
    """A rescue in the name of the owner that is written down, known or not, or of none."""
    works = []
    for settlement in settlements:
        key = (settlement.message, settlement.n)
        for claim, _, left_by in _unowned(tx.db, [key]):
            if claim.term == settlement.term:
                owner: Any = left_by
                works.append(Rescue(owner, [settlement]))
                _note(tx, actor, "take_back", text(settlement.message), recipients=[settlement.n])
    return sum(written[0] for written in Rescue.run(tx, works))


def queue_anew(tx: Transaction, recipients: Sequence[tuple[Id, int]], *, actor: str) -> int:
    queued = 0
    for message, n in recipients:
        if run(tx.db, _QUEUE_ANEW, {"now": tx.now, "message": message, "n": n}):
            _note(tx, actor, "queue", text(message), recipients=[n])
            queued += 1
    tx.queued += queued
    return queued


def orphans(db: Db, messages: Sequence[Id]) -> Sequence[Mapping[str, Any]]:
    """Their rows: columns by name, and the table as "table"."""
    found: list[Mapping[str, Any]] = []
    for message in messages:
        if _orphaned(db, message):
            for table, query in _ORPHANS.items():
                cursor = db.rows.execute(query, (message,))
                names = [column.name for column in cursor.description or ()]
                found += [{"table": table, **dict(zip(names, row, strict=True))} for row in cursor]
    return found


def drop_orphans(tx: Transaction, messages: Sequence[Id], *, actor: str, kept_in: str) -> int:
    total = 0
    for message in messages:
        if _orphaned(tx.db, message):
            dropped = sum(run(tx.db, query, (message,)) for query in _DROPS)
            if dropped:
                _note(tx, actor, "set_aside", text(message), rows=dropped, kept_in=kept_in)
            total += dropped
    return total


def _orphaned(db: Db, message: Id) -> bool:
    return bool(integer(db, _IS_ORPHAN, {"id": message}))


def mend_tallies(
    tx: Transaction, differences: Mapping[tuple[int, str], int], *, actor: str
) -> None:
    """Raises StoreUnavailable where it may have been done already: whoever looks again sees it."""
    if tx.doubted:
        raise StoreUnavailable("whether the tallies were corrected is not known: look again")
    for (project, state), difference in differences.items():
        tx.tally(project, state, difference)
        _note(tx, actor, "correct", f"{project}/{state}", kind="tally", added=difference)
