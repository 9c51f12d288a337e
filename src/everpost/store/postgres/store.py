"""PostgresStore: the engine's parts joined into the store's interface."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from everpost import telemetry
from everpost.clock import Clock
from everpost.ids import Id
from everpost.model.message import Durability, NewMessage
from everpost.model.shares import Ask, Grant
from everpost.model.states import HeldReason, InDoubtPolicy, State
from everpost.store.auditing import AuditPage, PartsPage, Totals
from everpost.store.cluster import Adopted, Aliased, NodeRow, StoreState
from everpost.store.interface import (
    Accepted,
    ApiKeyRow,
    AttemptRow,
    CatalogRow,
    Change,
    Claim,
    Claimed,
    Conflicting,
    DkimKeyRow,
    DomainRow,
    EventRow,
    IdempotencyKey,
    MessageRow,
    PoolRow,
    ProjectRow,
    QueueFacts,
    RelayRow,
    Replayed,
    RouteRow,
    Settlement,
    StreamRow,
    WorkerRow,
)
from everpost.store.postgres import (
    catalog,
    claiming,
    controls,
    reading,
    recovery,
    repairs,
    sharing,
)
from everpost.store.postgres.accepting import Accept
from everpost.store.postgres.adopting import Adopt
from everpost.store.postgres.auditing import Auditor
from everpost.store.postgres.claiming import ClaimWork
from everpost.store.postgres.connection import LIFETIME_S
from everpost.store.postgres.lanes import Lanes
from everpost.store.postgres.partitions import Partitions
from everpost.store.postgres.settling import Rescue, Settle
from everpost.store.sharing import Note
from everpost.store.taken import Taken
from everpost.store.turns import Turns

__all__ = ["PostgresStore"]


class PostgresStore:
    """The database at `url` (libpq's); every process that uses it has its own PostgresStore.

    `clock` None: the database's time, which `clock` then tells; tests hand one in. `standbys`: how
    many synchronous standbys must have what is acknowledged. `durability` RELAXED asks nothing of
    the server's settings. `accepted` is called in the event loop's thread after each commit that
    made recipients due, with their number: to wake dispatch. `readers`: connections for reading.
    `deadline_s`: a statement without an answer for so long is given up, with its connection.
    `patience_s` is how long a write may wait for others before it is refused. `keep_days`: days
    older than that are dropped; 0: none. `lifetime_s`: how long a connection is kept.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock | None = None,
        durability: Durability = Durability.COMMITTED,
        standbys: int = 0,
        accepted: Callable[[int], None] | None = None,
        readers: int = 2,
        deadline_s: float = 10.0,
        patience_s: float = 10.0,
        password_file: Path | None = None,
        keep_days: int = 0,
        lifetime_s: float = LIFETIME_S,
    ) -> None:
        self._lanes = Lanes(
            url,
            clock=clock,
            durability=durability,
            standbys=standbys,
            accepted=accepted,
            readers=readers,
            deadline_s=deadline_s,
            patience_s=patience_s,
            password_file=password_file,
            lifetime_s=lifetime_s,
        )
        self.clock: Clock = self._lanes.clock
        self._turns = Turns()
        self._auditor = Auditor(self._lanes.address.connect)
        self._partitions = Partitions(
            self._lanes.address.connect, clock=self.clock, keep_days=keep_days
        )

    # -- its life ----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Raises StoreError when the server's settings are too weak, StoreUnavailable when none is
        reached that takes writes: then it may be opened later."""
        await self._lanes.open()

    async def close(self) -> None:
        """Write what is pending, then close. What comes later is refused."""
        self._partitions.stop()
        await self._lanes.close()
        await self._auditor.close()

    def state(self) -> StoreState:
        return self._lanes.state()

    # -- accept ------------------------------------------------------------------------------------

    async def accept(
        self, project: int, messages: Sequence[NewMessage], key: IdempotencyKey | None = None
    ) -> Accepted | Replayed | Conflicting:
        work = Accept(project, messages, key, now=self.clock.now(), expected=self._lanes.expected)
        return await self._lanes.accept(work)

    async def adopt(
        self, project: int, messages: Sequence[NewMessage], key: IdempotencyKey | None = None
    ) -> Adopted | Aliased:
        return await self._lanes.accept(Adopt(project, messages, key))

    async def answered(self, project: int, key: str) -> IdempotencyKey | None:
        now = self.clock.now()
        return await self._lanes.read(lambda db: reading.answered(db, project, key, now=now))

    # -- claim and settle --------------------------------------------------------------------------

    async def claim(
        self,
        owner: Id,
        *,
        limit: int,
        lease_ms: int,
        busy: Sequence[str] = (),
        broadcast: int | None = None,
    ) -> Sequence[Claimed]:
        work = ClaimWork(
            owner,
            limit=limit,
            lease_ms=lease_ms,
            busy=busy,
            turns=self._turns,
            now=self.clock.now(),
            broadcast=broadcast,
        )
        taken = await self._lanes.move(work)
        # Checked here and not in the transaction: nobody has to wait for the lock meanwhile.
        damaged = [one for one in taken if not one.sound()]
        if not damaged:
            return [one.claimed for one in taken]
        await self._quarantine(owner, damaged)
        return [one.claimed for one in taken if one not in damaged]

    async def _quarantine(self, owner: Id, damaged: Sequence[Taken]) -> None:
        """Content that is not what was accepted is never sent (F9)."""
        for one in damaged:
            telemetry.alarm("content_corrupt").raise_(message=one.claimed.message, error=one.damage)
        await self.settle(
            owner,
            [
                Settlement(
                    message=claim.message,
                    n=claim.n,
                    term=claim.term,
                    target=State.HELD,
                    event="held",
                    data={"reason": one.damage},
                    reason=HeldReason.DAMAGED,
                )
                for one in damaged
                for claim in one.claimed.claims
            ],
        )

    async def next_due(self, busy: Sequence[str] = (), *, broadcast: bool = True) -> int | None:
        now = self.clock.now()
        return await self._lanes.read(
            lambda db: reading.next_due(db, busy, broadcast=broadcast, now=now), snapshot=True
        )

    async def extend(
        self, owner: Id, claims: Sequence[tuple[Id, int, int]], *, lease_ms: int
    ) -> Sequence[bool]:
        return await self._lanes.tend(
            lambda tx: claiming.extend(tx, owner, claims, lease_ms=lease_ms)
        )

    async def settle(self, owner: Id, settlements: Sequence[Settlement]) -> Sequence[bool]:
        return await self._lanes.move(Settle(owner, settlements))

    async def resign(self, owner: Id, claims: Sequence[tuple[Id, int, int]]) -> Sequence[bool]:
        return await self._lanes.tend(lambda tx: claiming.resign(tx, owner, claims))

    async def content(self, content: Id) -> bytes:
        return await self._lanes.read(lambda db: reading.content(db, content))

    async def parts(
        self, project: int, refs: Sequence[tuple[int, bytes]]
    ) -> Sequence[tuple[int, bytes]]:
        return await self._lanes.read(lambda db: reading.parts(db, project, refs))

    # -- controls ----------------------------------------------------------------------------------

    async def cancel(self, project: int, message: Id) -> int:
        return await self._lanes.change(lambda tx: controls.cancel(tx, project, message))

    async def reschedule(self, project: int, message: Id, at: int) -> int:
        return await self._lanes.change(lambda tx: controls.reschedule(tx, project, message, at))

    async def hold(self, project: int, message: Id, reason: HeldReason) -> int:
        return await self._lanes.change(lambda tx: controls.hold(tx, project, message, reason))

    async def release(self, project: int, message: Id) -> int:
        return await self._lanes.change(lambda tx: controls.release(tx, project, message))

    # -- recovery ----------------------------------------------------------------------------------

    async def register(self, worker: WorkerRow) -> None:
        await self._lanes.tend(lambda tx: recovery.register(tx, worker))

    async def seen(self, worker: Id) -> None:
        await self._lanes.tend(lambda tx: recovery.seen(tx, worker))

    async def workers(self) -> Sequence[WorkerRow]:
        return await self._lanes.read(recovery.workers)

    async def forget(self, worker: Id) -> None:
        await self._lanes.tend(lambda tx: recovery.forget(tx, worker))

    async def appear(self, node: NodeRow) -> None:
        await self._lanes.tend(lambda tx: recovery.appear(tx, node))

    async def nodes(self) -> Sequence[NodeRow]:
        return await self._lanes.read(recovery.nodes)

    async def disappear(self, name: str) -> None:
        await self._lanes.tend(lambda tx: recovery.disappear(tx, name))

    async def claims_of(
        self, owner: Id | None, *, expired_only: bool, limit: int
    ) -> Sequence[tuple[Id, Claim, InDoubtPolicy]]:
        until = self.clock.steady() if expired_only else None
        return await self._lanes.read(
            lambda db: recovery.claims_of(db, owner, until=until, limit=limit)
        )

    async def held_for(self) -> frozenset[HeldReason]:
        return await self._lanes.read(recovery.held_for)

    async def rescue(self, owner: Id, settlements: Sequence[Settlement]) -> Sequence[bool]:
        return await self._lanes.move(Rescue(owner, settlements))

    async def purge(self, *, before: int, limit: int) -> int:
        work = recovery.Purge(before=before, steady=self.clock.steady(), limit=limit)
        return await self._lanes.move(work)

    async def checkpoint(self) -> None:
        """PostgreSQL keeps house by itself; days are ours."""
        await asyncio.to_thread(self._partitions.run)

    # -- reading -----------------------------------------------------------------------------------

    async def message(self, project: int, message: Id) -> MessageRow | None:
        return await self._lanes.read(
            lambda db: reading.message(db, project, message), snapshot=True
        )

    async def messages(
        self,
        project: int,
        *,
        limit: int,
        after: Id | None = None,
        before: Id | None = None,
        sandbox: bool | None = None,
    ) -> tuple[Sequence[MessageRow], bool]:
        return await self._lanes.read(
            lambda db: reading.messages(
                db, project, limit=limit, after=after, before=before, sandbox=sandbox
            ),
            snapshot=True,
        )

    async def attempts(self, project: int, message: Id) -> Sequence[AttemptRow]:
        return await self._lanes.read(lambda db: reading.attempts(db, project, message))

    async def events(self, project: int, message: Id) -> Sequence[EventRow]:
        return await self._lanes.read(lambda db: reading.events(db, project, message))

    async def facts(self) -> QueueFacts:
        return await self._lanes.read(
            lambda db: reading.facts(db, now=self.clock.now()), snapshot=True
        )

    # -- outbox ------------------------------------------------------------------------------------

    async def outbox(self, consumer: str, *, limit: int) -> Sequence[EventRow]:
        return await self._lanes.read(
            lambda db: recovery.outbox(db, consumer, limit=limit), snapshot=True
        )

    async def mark_published(self, consumer: str, position: int) -> None:
        await self._lanes.tend(lambda tx: recovery.mark_published(tx, consumer, position))

    # -- auditing ----------------------------------------------------------------------------------

    async def audit_page(self, after: Id, *, limit: int, upto: Id | None = None) -> AuditPage:
        return await self._auditor.audit_page(after, limit=limit, upto=upto)

    async def audit_parts(self, after: int, *, limit: int) -> PartsPage:
        return await self._auditor.audit_parts(after, limit=limit)

    async def audit_totals(self) -> Totals:
        return await self._auditor.audit_totals()

    async def audit_bounds(self, pieces: int) -> Sequence[Id]:
        return await self._auditor.audit_bounds(pieces)

    async def engine_check(self) -> Sequence[str]:
        return await self._auditor.engine_check()

    async def hold_damaged(self, recipients: Sequence[tuple[Id, int | None]], *, actor: str) -> int:
        return await self._lanes.change(
            lambda tx: repairs.hold_damaged(tx, recipients, actor=actor)
        )

    async def unowned(
        self, recipients: Sequence[tuple[Id, int]]
    ) -> Sequence[tuple[Claim, InDoubtPolicy | None]]:
        return await self._lanes.read(lambda db: repairs.unowned(db, recipients))

    async def take_back(self, settlements: Sequence[Settlement], *, actor: str) -> int:
        return await self._lanes.tend(lambda tx: repairs.take_back(tx, settlements, actor=actor))

    async def queue_anew(self, recipients: Sequence[tuple[Id, int]], *, actor: str) -> int:
        return await self._lanes.change(lambda tx: repairs.queue_anew(tx, recipients, actor=actor))

    async def orphans(self, messages: Sequence[Id]) -> Sequence[Mapping[str, Any]]:
        return await self._lanes.read(lambda db: repairs.orphans(db, messages), snapshot=True)

    async def drop_orphans(self, messages: Sequence[Id], *, actor: str, kept_in: str) -> int:
        return await self._lanes.change(
            lambda tx: repairs.drop_orphans(tx, messages, actor=actor, kept_in=kept_in)
        )

    async def mend_tallies(self, differences: Mapping[tuple[int, str], int], *, actor: str) -> None:
        await self._lanes.change(lambda tx: repairs.mend_tallies(tx, differences, actor=actor))

    # -- sharing -----------------------------------------------------------------------------------

    async def note(self, notes: Sequence[Note]) -> None:
        if notes:
            await self._lanes.move(sharing.PutNotes(notes))

    async def noted(self, kinds: Sequence[str], *, after: int = 0) -> tuple[int, Sequence[Note]]:
        now = self.clock.now()
        return await self._lanes.read(
            lambda db: sharing.noted(db, kinds, after=after, now=now), snapshot=True
        )

    async def lead(self, name: str, owner: Id, *, lease_ms: int) -> int | None:
        work = sharing.Lead(name, owner, lease_ms=lease_ms, now=self.clock.steady())
        return await self._lanes.move(work)

    async def yield_lead(self, name: str, owner: Id) -> None:
        await self._lanes.tend(lambda tx: sharing.yield_lead(tx, name, owner))

    async def share(
        self, owner: Id, asks: Sequence[Ask], *, lease_ms: int, among: int = 1
    ) -> Sequence[Grant]:
        if not asks:
            return ()
        work = sharing.Share(owner, asks, lease_ms=lease_ms, among=among)
        return await self._lanes.move(work)

    async def leave(self, owner: Id) -> None:
        await self._lanes.tend(lambda tx: sharing.leave(tx, owner))

    # -- catalog and keys --------------------------------------------------------------------------

    async def revision(self) -> int:
        return await self._lanes.read(catalog.revision)

    async def projects(self) -> Sequence[ProjectRow]:
        return await self._lanes.read(catalog.projects)

    async def streams(self) -> Sequence[StreamRow]:
        return await self._lanes.read(catalog.streams)

    async def api_keys(self) -> Sequence[ApiKeyRow]:
        return await self._lanes.read(catalog.api_keys)

    async def domains(self) -> Sequence[DomainRow]:
        return await self._lanes.read(catalog.domains)

    async def dkim_keys(self) -> Sequence[DkimKeyRow]:
        return await self._lanes.read(catalog.dkim_keys)

    async def relays(self) -> Sequence[RelayRow]:
        return await self._lanes.read(catalog.relays)

    async def pools(self) -> Sequence[PoolRow]:
        return await self._lanes.read(catalog.pools)

    async def routes(self) -> Sequence[RouteRow]:
        return await self._lanes.read(catalog.routes)

    async def put(self, row: CatalogRow, *, actor: str, action: str) -> None:
        await self._lanes.change(lambda tx: catalog.put(tx, row, actor=actor, action=action))

    async def change(self, changes: Sequence[Change], *, actor: str) -> None:
        await self._lanes.change(lambda tx: catalog.change(tx, changes, actor=actor))

    async def drop(self, kind: str, id_: Id, *, actor: str, action: str) -> bool:
        return await self._lanes.change(
            lambda tx: catalog.drop(tx, kind, id_, actor=actor, action=action)
        )

    async def audit(
        self, *, limit: int, after: int | None = None, before: int | None = None
    ) -> Sequence[Mapping[str, Any]]:
        return await self._lanes.read(
            lambda db: catalog.audit(db, limit=limit, after=after, before=before)
        )

    async def data_keys(self) -> Sequence[tuple[int, int, bytes]]:
        return await self._lanes.read(catalog.data_keys)

    async def add_data_key(self, project: int, wrapped: bytes) -> int:
        return await self._lanes.change(lambda tx: catalog.add_data_key(tx, project, wrapped))
