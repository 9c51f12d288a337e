"""Writing what became of recipients: all that one turn of the event loop brought, at once.

Doing; `settle` decides. Many outcomes a call share one future, one hand-over to the store's thread
and its statements.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence

from everpost import telemetry
from everpost.dispatch.dots import DotLog
from everpost.ids import Id
from everpost.store.interface import Claiming, Settlement, StoreCorrupt, StoreUnavailable

__all__ = ["Settling"]

_SETTLE = telemetry.histogram("everpost_settle_seconds", "Writing the outcomes of one transaction")
_STALE = telemetry.counter(
    "everpost_stale_settlements_total", "Outcomes of claims that were another process's by then"
)

_TRIES = 3
"""Of outcomes whose rows look damaged: SQLite says so of a page that cannot be read, too (F3)."""


class Settling:
    """`spawn` starts a task that the dispatcher waits for when it stops; `let_go` hears of what is
    no longer in hand, settled or not; `retry_s`: seconds between tries while the store is away."""

    def __init__(
        self,
        *,
        owner: Id,
        store: Claiming,
        dots: DotLog,
        spawn: Callable[[Coroutine[None, None, None]], None],
        let_go: Callable[[Sequence[Settlement]], None],
        retry_s: float,
    ) -> None:
        self._owner = owner
        self._store = store
        self._dots = dots
        self._spawn = spawn
        self._let_go = let_go
        self._retry_s = retry_s
        self._gathered: list[Sequence[Settlement]] = []

    def put(self, settlements: Sequence[Settlement]) -> None:
        """These are written with all that comes before the loop's next turn."""
        self._gathered.append(settlements)
        if len(self._gathered) == 1:
            self._spawn(self._write_gathered())

    async def _write_gathered(self) -> None:
        gathered, self._gathered = self._gathered, []
        if len(gathered) > 1:
            try:
                await self._write([s for settlements in gathered for s in settlements], tries=1)
                return
            except Exception as error:  # one of them is to blame: not all may be dropped for it
                telemetry.event("dispatch.settle_apart", error=repr(error))
        faults = []
        for settlements in gathered:
            try:
                await self._write(settlements, tries=_TRIES)
            except Exception as error:
                # Waiting does not mend it. They are not renewed any more: recovery finds them by
                # their term.
                self._let_go(settlements)
                faults.append(error)
        if faults:
            raise faults[0]

    async def _write(self, settlements: Sequence[Settlement], *, tries: int) -> None:
        """Until it is written; what cannot be written now is written as soon as it can. `tries`:
        where the store calls itself damaged."""
        started = time.perf_counter()
        while True:
            try:
                written = await asyncio.shield(self._store.settle(self._owner, settlements))
                break
            except (StoreUnavailable, StoreCorrupt) as error:
                tries -= isinstance(error, StoreCorrupt)
                if tries <= 0:
                    raise
                telemetry.event("dispatch.settle_waits", error=str(error))
                await asyncio.sleep(self._retry_s)
        self._let_go(settlements)
        self._dots.settled((s.message, s.n, s.term) for s in settlements)
        _SETTLE.observe(time.perf_counter() - started)
        if not all(written):
            _STALE.add(written.count(False))
