"""Takes over the claims of processes that are gone, and those whose term has ended.

A worker's dot log tells which of its claims may have been delivered (RELIABILITY §3.3): those are
recorded as in doubt and their policy decides; the others go back to the queue at once.
"""

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from everpost import telemetry
from everpost.clock import Clock
from everpost.dispatch import RetryPolicy, abandoned, doubted, read_dots, returned
from everpost.dispatch.dots import Dot, DotsUnreadableError, Step, is_alive
from everpost.ids import Id
from everpost.model.outcome import Abandoned, AttemptRecord, InDoubt
from everpost.model.states import InDoubtPolicy
from everpost.store.interface import Claim, Recovery, Settlement, WorkerRow

__all__ = ["Rescuer", "decide_rescue"]

_RESCUED = telemetry.counter(
    "everpost_rescued_total", "Claims taken over from a process that is gone", ("outcome",)
)
_SOON = RetryPolicy(first_ms=1_000, cap_ms=1_000)
_BATCH = 500
_OWN_GRACE_MS = 5_000
"""Where several nodes share the store: what a living process could not settle while the store did
not answer, it settles as soon as it does."""


def decide_rescue(
    claim: Claim,
    in_doubt: InDoubtPolicy,
    *,
    dots: Mapping[Dot, Step] | None,
    now: int,
    jitter: float,
) -> Settlement:
    """What becomes of one claim of a lost process. `dots` None: its log cannot be read."""
    record = AttemptRecord(started_at=now, ended_at=now)
    step = None if dots is None else dots.get((claim.message, claim.n, claim.term))
    if dots is not None and step is None:
        return returned(claim, now=now)
    if dots is not None and step is not Step.DOT:
        outcome = Abandoned(reason="Its process ended before the final dot left")
        crashed = step is Step.COMPOSING
        return abandoned(claim, outcome, record, now=now, crashed=crashed)
    reason = (
        "The host went down, or the dot log was lost, while it was being delivered"
        if dots is None
        else "Its process ended after the final dot may have left, before an answer was recorded"
    )
    return doubted(
        claim,
        InDoubt(reason=reason),
        record,
        policy=_SOON,
        in_doubt=in_doubt,
        now=now,
        jitter=jitter,
    )


class Rescuer:
    """`folder` holds the dot logs, `boot` names this run of the kernel. `node` is our name among
    those that share the store ("": it has one node only), `grace_ms` how long another node that
    lives is left to take back by itself what its processes have let end: it has their dot logs."""

    def __init__(
        self,
        *,
        store: Recovery,
        folder: Path,
        boot: str,
        clock: Clock,
        rng: random.Random,
        node: str = "",
        grace_ms: int = 0,
    ) -> None:
        self._store = store
        self._folder = folder
        self._boot = boot
        self._clock = clock
        self._rng = rng
        self._node = node
        self._grace_ms = grace_ms

    # --- this node's own --------------------------------------------------------------------------

    async def lost_workers(self) -> int:
        """Rescue the claims of every worker of this node that is gone; how many claims those
        were."""
        rescued = 0
        for worker in await self._store.workers():
            if worker.node == self._node and self._gone(worker):
                rescued += await self._rescue(worker, self._dots(worker))
                (self._folder / worker.dots).unlink(missing_ok=True)
        return rescued

    def _gone(self, worker: WorkerRow) -> bool:
        """A node has one host, so another boot id means that the process is dead; in the same boot,
        a dead process has let go of its dot log's lock."""
        return worker.boot != self._boot or not is_alive(self._folder / worker.dots)

    def _dots(self, worker: WorkerRow) -> Mapping[Dot, Step] | None:
        if worker.boot != self._boot or worker.node != self._node:
            return None
        try:
            return read_dots(self._folder / worker.dots)
        except DotsUnreadableError as error:
            telemetry.event("rescue.dots_unreadable", worker=worker.id, error=str(error))
            return None

    async def ended_terms(self, *, stretch_ms: int | None = None) -> int:
        """Claims whose term has ended although their owner may still live: it is fenced off.
        `stretch_ms` as in `of_other_nodes`.

        Its dot log tells what it may have sent, as long as it can be read: a process that wakes up
        later marks first and looks at its deadline then, so it sends nothing more of these. In a
        store of several nodes these are our own node's.
        """
        workers = {w.id: w for w in await self._store.workers() if w.node == self._node}
        if not self._node:
            return await self._ended(None, workers)
        moved = 0
        for worker in workers:
            moved += await self._ended(
                worker, workers, grace_ms=_OWN_GRACE_MS, stretch_ms=stretch_ms
            )
        return moved

    # --- other nodes' -----------------------------------------------------------------------------

    async def of_other_nodes(self, gone: Callable[[str], bool], *, stretch_ms: int) -> int:
        """What other nodes cannot take back themselves; how many claims. For the one process that
        leads: all that it does may be done twice.

        `gone` says whether a node of that name is. Of a worker of such a node each claim is in
        doubt when its term ends; without any it is forgotten. Of one that lives, or that nobody
        knows, the claims that ended longer ago than the grace. `stretch_ms`: so long the store has
        been answering; what ended before could not be renewed.
        """
        moved = 0
        known = {worker.id: worker for worker in await self._store.workers()}
        for worker in known.values():
            if worker.node != self._node and gone(worker.node):
                moved += await self._rescue(worker, None)
        others = {id_: w for id_, w in known.items() if w.node != self._node}
        own = known.keys() - others.keys()
        return moved + await self._ended(
            None, others, but=own, grace_ms=self._grace_ms, stretch_ms=stretch_ms
        )

    # --- both -------------------------------------------------------------------------------------

    async def _rescue(self, worker: WorkerRow, dots: Mapping[Dot, Step] | None) -> int:
        """All its claims, and then itself. Where several nodes share the store, only its dot log
        proves that a process is dead: without one its claims are left to it until their terms end
        (RULINGS "In doubt")."""
        waits = dots is None and bool(self._node)
        total = 0
        while rows := await self._store.claims_of(worker.id, expired_only=waits, limit=_BATCH):
            moved = await self._settle(worker.id, rows, dots)
            total += moved
            if not moved:
                return total
        if waits and await self._store.claims_of(worker.id, expired_only=False, limit=1):
            return total
        await self._store.forget(worker.id)
        telemetry.event(
            "rescue.ended", worker=worker.id, role=worker.role, pid=worker.pid, node=worker.node,
            claims=total,
        )  # fmt: skip
        return total

    async def _ended(
        self,
        owner: Id | None,
        workers: Mapping[Id, WorkerRow],
        *,
        but: Collection[Id] = (),
        grace_ms: int = 0,
        stretch_ms: int | None = None,
    ) -> int:
        """Claims of one owner, or of all `but` some, whose terms ended longer than the grace ago:
        of that, what the store has been answering counts."""
        total = 0
        while rows := await self._store.claims_of(owner, expired_only=True, limit=_BATCH):
            now = self._clock.steady()
            by_owner: dict[Id, list[tuple[Id, Claim, InDoubtPolicy]]] = {}
            for row in rows:
                since = now - row[1].deadline
                past = since if stretch_ms is None else min(since, stretch_ms)
                if row[0] not in but and past >= grace_ms:
                    by_owner.setdefault(row[0], []).append(row)
            moved = 0
            for each, owned in by_owner.items():
                worker = workers.get(each)
                dots = self._dots(worker) if worker is not None else None
                moved += await self._settle(each, owned, dots)
            total += moved
            if not moved:
                break
        return total

    async def _settle(
        self,
        owner: Id,
        rows: Sequence[tuple[Id, Claim, InDoubtPolicy]],
        dots: Mapping[Dot, Step] | None,
    ) -> int:
        now = self._clock.now()
        settlements = [
            decide_rescue(claim, policy, dots=dots, now=now, jitter=self._rng.random())
            for _, claim, policy in rows
        ]
        written = await self._store.rescue(owner, settlements)
        for settlement, was in zip(settlements, written, strict=True):
            if was:
                _RESCUED.add(1, settlement.event)
        return sum(written)
