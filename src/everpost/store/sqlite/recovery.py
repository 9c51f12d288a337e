"""What upkeep asks of the store: who works, whose claims are lost, what may go."""

from collections.abc import Sequence

import apsw
import msgspec

from everpost.ids import Id
from everpost.model.states import HeldReason, InDoubtPolicy
from everpost.store.cluster import NodeRow
from everpost.store.interface import LONGEST_LEASE_MS, Claim, EventRow, WorkerRow
from everpost.store.mail_columns import as_event, policy_of
from everpost.store.sqlite import sharing
from everpost.store.sqlite.connection import SQL, integer
from everpost.store.sqlite.lenient import show_all
from everpost.store.sqlite.moves import json_text
from everpost.store.sqlite.work import Transaction, Work, fetch_all
from everpost.store.taken import as_left_claim

__all__ = [
    "Purge",
    "appear",
    "claims_of",
    "disappear",
    "forget",
    "held_for",
    "mark_published",
    "nodes",
    "outbox",
    "register",
    "seen",
    "workers",
]

_REGISTER = SQL["register_worker"]
_SEEN = SQL["seen_worker"]
_WORKERS = SQL["workers"]
_FORGET = SQL["forget_worker"]
_APPEAR = SQL["appear"]
_NODES = SQL["nodes"]
_DISAPPEAR = SQL["disappear"]
_CLAIMS_OF_OWNER = SQL["claims_of_owner"]
_CLAIMS_OF_ANYONE = SQL["claims_of_anyone"]
_HELD_FOR = SQL["held_for"]
_PURGE = SQL["purge_idempotency"]
_PURGEABLE = SQL["purgeable"]
_MARK_PUBLISHED = SQL["mark_published"]
_OUTBOX = SQL["outbox"]

_FOR_EVER = (1 << 63) - 1


def register(tx: Transaction, worker: WorkerRow) -> None:
    w = worker
    tx.db.execute(_REGISTER, (w.id, w.role, w.pid, w.boot, w.dots, w.started_at, w.seen_at, w.node))


def seen(tx: Transaction, worker: Id) -> None:
    tx.db.execute(_SEEN, (tx.now, worker))


def forget(tx: Transaction, worker: Id) -> None:
    """Its sessions ended with it: what takes its place gets its seats at once."""
    tx.db.execute(_FORGET, (worker,))
    sharing.leave(tx, worker)


def workers(db: apsw.Connection) -> Sequence[WorkerRow]:
    return [WorkerRow(*row) for row in db.execute(_WORKERS)]


def appear(tx: Transaction, node: NodeRow) -> None:
    roles = json_text(list(node.roles))
    values = (
        node.name, node.site, node.version, node.address, roles, node.started_at, tx.now,
        node.skew_ms,
    )  # fmt: skip
    tx.db.execute(_APPEAR, values)


def nodes(db: apsw.Connection) -> Sequence[NodeRow]:
    return [
        NodeRow(name, site, version, address, tuple(msgspec.json.decode(roles)), *times)
        for name, site, version, address, roles, *times in fetch_all(db, _NODES)
    ]


def disappear(tx: Transaction, name: str) -> None:
    tx.db.execute(_DISAPPEAR, (name,))


def claims_of(
    db: apsw.Connection, owner: Id | None, *, until: int | None, limit: int
) -> Sequence[tuple[Id, Claim, InDoubtPolicy]]:
    """Claims whose deadline is not after `until` (None: all), or is none at all, earliest
    first."""
    deadline = _FOR_EVER if until is None else until
    if owner is None:
        beyond = min(deadline + LONGEST_LEASE_MS, _FOR_EVER)
        values = {"until": deadline, "beyond": beyond, "most": limit}
        rows = show_all(db, _CLAIMS_OF_ANYONE, values)
    else:
        rows = show_all(db, _CLAIMS_OF_OWNER, (owner, deadline, limit))
    return [
        (row[11], as_left_claim(row[:11], deadline=row[12]), policy_of(row[13])) for row in rows
    ]


def held_for(db: apsw.Connection) -> frozenset[HeldReason]:
    return frozenset(each for each in HeldReason if integer(db, _HELD_FOR, (each.value,)))


class Purge(Work[int]):
    """One call of purge: no transaction when there is nothing to remove."""

    __slots__ = ("before", "limit", "steady")

    def __init__(self, *, before: int, steady: int, limit: int) -> None:
        super().__init__()
        self.before = before
        self.steady = steady
        self.limit = limit

    def wanted(self, db: apsw.Connection) -> bool:
        records = db.execute(_PURGEABLE, (self.before,)).fetchall()
        return bool(records) or sharing.purgeable(db, self.before, steady=self.steady)

    def idle(self) -> int:
        return 0

    @classmethod
    def run(cls, tx: Transaction, works: "Sequence[Purge]") -> list[int]:
        removed = []
        for work in works:
            tx.db.execute(_PURGE, (work.before, work.limit))
            records = tx.db.changes()
            removed.append(records + sharing.purge(tx, work.before, steady=work.steady))
        return removed


def mark_published(tx: Transaction, consumer: str, position: int) -> None:
    tx.db.execute(_MARK_PUBLISHED, (consumer, position))


def outbox(db: apsw.Connection, consumer: str, *, limit: int) -> Sequence[EventRow]:
    return [as_event(row) for row in show_all(db, _OUTBOX, (consumer, limit))]
