"""The ledger's repairs: each one transaction with its rows of the audit table, and each looks once
more whether what it was told of still holds."""

from collections.abc import Mapping, Sequence
from typing import Any

import apsw

from everpost.ids import Id, text
from everpost.model.states import HeldReason, InDoubtPolicy, State, Verb, sources
from everpost.store.interface import Claim, Settlement
from everpost.store.mail_columns import policy_of
from everpost.store.sqlite.connection import SQL, integer
from everpost.store.sqlite.lenient import show_all
from everpost.store.sqlite.moves import Moves, Row, json_text, rows_by_key
from everpost.store.sqlite.settling import Rescue
from everpost.store.sqlite.work import Transaction
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
    tx.db.execute(_ADD_AUDIT, (tx.now, actor, action, kind, object_, json_text(detail)))


def hold_damaged(
    tx: Transaction, recipients: Sequence[tuple[Id, int | None]], *, actor: str
) -> int:
    movable = sources(Verb.HOLD, State.HELD)
    moves, held = Moves(tx), 0
    for message, only in dict.fromkeys(recipients):
        rows = [
            Row(columns)
            for columns in show_all(tx.db, _RECIPIENTS, (message,))
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
    db: apsw.Connection, recipients: Sequence[tuple[Id, int]]
) -> Sequence[tuple[Claim, InDoubtPolicy | None]]:
    """Claims of these (message, n) that nobody owns; the policy is None where the message is
    gone."""
    found = []
    for key in recipients:
        for row in show_all(db, _UNOWNED, key):
            claim = as_left_claim(row[:11], deadline=row[11] or 0)
            found.append((claim, None if row[12] is None else policy_of(row[12])))
    return found


def take_back(tx: Transaction, settlements: Sequence[Settlement], *, actor: str) -> int:
    """A rescue in the name of the owner that is written down, known or not, or of none."""
    works = []
    for settlement in settlements:
        key = (settlement.message, settlement.n)
        if any(claim.term == settlement.term for claim, _ in unowned(tx.db, [key])):
            owner: Any = rows_by_key(tx, [key])[key].owner
            works.append(Rescue(owner, [settlement]))
            _note(tx, actor, "take_back", text(settlement.message), recipients=[settlement.n])
    return sum(written[0] for written in Rescue.run(tx, works))


def queue_anew(tx: Transaction, recipients: Sequence[tuple[Id, int]], *, actor: str) -> int:
    queued = 0
    for message, n in recipients:
        tx.db.execute(_QUEUE_ANEW, {"now": tx.now, "message": message, "n": n})
        if tx.db.changes():
            _note(tx, actor, "queue", text(message), recipients=[n])
            queued += 1
    tx.queued += queued
    return queued


def orphans(db: apsw.Connection, messages: Sequence[Id]) -> Sequence[Mapping[str, Any]]:
    """Their rows: columns by name, and the table as "table"."""
    found: list[Mapping[str, Any]] = []
    for message in messages:
        if _orphaned(db, message):
            for table, query in _ORPHANS.items():
                cursor = db.execute(query, (message,))
                for row in cursor:
                    names = [column[0] for column in cursor.get_description()]
                    found.append({"table": table, **dict(zip(names, row, strict=True))})
    return found


def drop_orphans(tx: Transaction, messages: Sequence[Id], *, actor: str, kept_in: str) -> int:
    total = 0
    for message in messages:
        if _orphaned(tx.db, message):
            dropped = 0
            for query in _DROPS:
                tx.db.execute(query, (message,))
                dropped += tx.db.changes()
            if dropped:
                _note(tx, actor, "set_aside", text(message), rows=dropped, kept_in=kept_in)
            total += dropped
    return total


def _orphaned(db: apsw.Connection, message: Id) -> bool:
    return bool(integer(db, _IS_ORPHAN, {"id": message}))


def mend_tallies(
    tx: Transaction, differences: Mapping[tuple[int, str], int], *, actor: str
) -> None:
    for (project, state), difference in differences.items():
        tx.tally(project, state, difference)
        _note(tx, actor, "correct", f"{project}/{state}", kind="tally", added=difference)
