"""Takes over the claims of processes that are gone, and those whose term has ended.

A worker's dot log tells which of its claims may have been delivered (RELIABILITY §3.3): those are
recorded as in doubt and their policy decides; the others go back to the queue at once.
"""

import random
from collections.abc import Mapping, Sequence
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
    """`folder` holds the dot logs, `boot` names this run of the kernel."""

    def __init__(
        self, *, store: Recovery, folder: Path, boot: str, clock: Clock, rng: random.Random
    ) -> None:
        self._store = store
        self._folder = folder
        self._boot = boot
        self._clock = clock
        self._rng = rng

    async def lost_workers(self) -> int:
        """Rescue the claims of every worker that is gone; how many claims those were."""
        rescued = 0
        for worker in await self._store.workers():
            if self._gone(worker):
                rescued += await self._rescue(worker)
        return rescued

    def _gone(self, worker: WorkerRow) -> bool:
        """The embedded store has one host, so another boot id means that the process is dead;
        in the same boot, a dead process has let go of its dot log's lock."""
        return worker.boot != self._boot or not is_alive(self._folder / worker.dots)

    async def _rescue(self, worker: WorkerRow) -> int:
        dots = self._dots(worker)
        telemetry.event("rescue.started", worker=worker.id, role=worker.role, pid=worker.pid)
        total = 0
        while rows := await self._store.claims_of(worker.id, expired_only=False, limit=_BATCH):
            total += await self._settle(worker.id, rows, dots)
        await self._store.forget(worker.id)
        (self._folder / worker.dots).unlink(missing_ok=True)
        telemetry.event("rescue.ended", worker=worker.id, claims=total)
        return total

    def _dots(self, worker: WorkerRow) -> Mapping[Dot, Step] | None:
        if worker.boot != self._boot:
            return None
        try:
            return read_dots(self._folder / worker.dots)
        except DotsUnreadableError as error:
            telemetry.event("rescue.dots_unreadable", worker=worker.id, error=str(error))
            return None

    async def ended_terms(self) -> int:
        """Claims whose term has ended although their owner may still live: it is fenced off.

        Its dot log tells what it may have sent, as long as it can be read: a process that wakes up
        later marks first and looks at its deadline then, so it sends nothing more of these.
        """
        logs = {worker.id: worker for worker in await self._store.workers()}
        total = 0
        while rows := await self._store.claims_of(None, expired_only=True, limit=_BATCH):
            by_owner: dict[Id, list[tuple[Id, Claim, InDoubtPolicy]]] = {}
            for row in rows:
                by_owner.setdefault(row[0], []).append(row)
            moved = 0
            for owner, owned in by_owner.items():
                worker = logs.get(owner)
                dots = self._dots(worker) if worker is not None else None
                moved += await self._settle(owner, owned, dots)
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
