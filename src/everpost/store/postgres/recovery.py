"""What upkeep asks of the store: who works, whose claims are lost, what may go; and the outbox.

A position in the outbox is a transaction's number and, below it, a row's own: numbers that rows
take from a sequence come in another order than their transactions' ends.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from everpost.ids import Id
from everpost.model.states import HeldReason, InDoubtPolicy
from everpost.store.cluster import NodeRow
from everpost.store.interface import LONGEST_LEASE_MS, Claim, EventRow, WorkerRow
from everpost.store.mail_columns import as_event, policy_of
from everpost.store.postgres import sharing
from everpost.store.postgres.connection import SQL, Db
from everpost.store.postgres.work import Transaction, Work, fetch_all, run
from everpost.store.taken import as_left_claim

__all__ = [
    "Purge",
    "appear",
    "as_outbox_event",
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
_BY_INDEX = SQL["by_index"]

_FOR_EVER = (1 << 63) - 1
_ROW_BITS = 64


def register(tx: Transaction, worker: WorkerRow) -> None:
    w = worker
    run(tx.db, _REGISTER, (w.id, w.role, w.pid, w.boot, w.dots, w.started_at, w.seen_at, w.node))


def seen(tx: Transaction, worker: Id) -> None:
    run(tx.db, _SEEN, (tx.now, worker))


def forget(tx: Transaction, worker: Id) -> None:
    """Its sessions ended with it: what takes its place gets its seats at once."""
    run(tx.db, _FORGET, (worker,))
    sharing.leave(tx, worker)


def workers(db: Db) -> Sequence[WorkerRow]:
    return [WorkerRow(*row) for row in fetch_all(db, _WORKERS)]


def appear(tx: Transaction, node: NodeRow) -> None:
    roles = msgspec.json.encode(node.roles).decode()
    values = (
        node.name, node.site, node.version, node.address, roles, node.started_at, tx.now,
        node.skew_ms,
    )  # fmt: skip
    run(tx.db, _APPEAR, values)


def nodes(db: Db) -> Sequence[NodeRow]:
    return [
        NodeRow(name, site, version, address, tuple(msgspec.json.decode(roles)), *times)
        for name, site, version, address, roles, *times in fetch_all(db, _NODES)
    ]


def disappear(tx: Transaction, name: str) -> None:
    run(tx.db, _DISAPPEAR, (name,))


def claims_of(
    db: Db, owner: Id | None, *, until: int | None, limit: int
) -> Sequence[tuple[Id, Claim, InDoubtPolicy]]:
    """Claims whose deadline is not after `until` (None: all), or is none at all, earliest
    first."""
    deadline = _FOR_EVER if until is None else until
    if owner is None:
        beyond = min(deadline + LONGEST_LEASE_MS, _FOR_EVER)
        values = {"until": deadline, "beyond": beyond, "most": limit}
        rows = fetch_all(db, _CLAIMS_OF_ANYONE, values)
    else:
        rows = fetch_all(db, _CLAIMS_OF_OWNER, (owner, deadline, limit))
    return [
        (row[11], as_left_claim(row[:11], deadline=row[12]), policy_of(row[13])) for row in rows
    ]


def held_for(db: Db) -> frozenset[HeldReason]:
    reasons = [reason.value for reason in HeldReason]
    return frozenset(HeldReason(row[0]) for row in fetch_all(db, _HELD_FOR, (reasons,)))


class Purge(Work[int]):
    """One call of purge: no transaction when there is nothing to remove."""

    __slots__ = ("before", "limit", "steady")

    def __init__(self, *, before: int, steady: int, limit: int) -> None:
        super().__init__()
        self.before = before
        self.steady = steady
        self.limit = limit

    def wanted(self, db: Db) -> bool:
        records = fetch_all(db, _PURGEABLE, (self.before,))
        return bool(records) or sharing.purgeable(db, self.before, steady=self.steady)

    def idle(self) -> int:
        return 0

    @classmethod
    def run(cls, tx: Transaction, works: "Sequence[Purge]") -> list[int]:
        return [
            run(tx.db, _PURGE, (work.before, work.limit))
            + sharing.purge(tx, work.before, steady=work.steady)
            for work in works
        ]


# --- outbox ---------------------------------------------------------------------------------------


def as_outbox_event(row: Sequence[Any]) -> EventRow:
    """From the columns of an event, its transaction (as text) and its own number."""
    *columns, tx, position = row
    return as_event((*columns, (int(tx) << _ROW_BITS) | position))


def mark_published(tx: Transaction, consumer: str, position: int) -> None:
    last, row = divmod(position, 1 << _ROW_BITS)
    run(tx.db, _MARK_PUBLISHED, {"consumer": consumer, "tx": str(last), "position": row})


def outbox(db: Db, consumer: str, *, limit: int) -> Sequence[EventRow]:
    fetch_all(db, _BY_INDEX)
    rows = fetch_all(db, _OUTBOX, {"consumer": consumer, "most": limit})
    return [as_outbox_event(row) for row in rows]
