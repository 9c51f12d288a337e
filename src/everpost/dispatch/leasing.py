"""Asks the store for this process's share of its relays' limits: one call for all relays, once a
slice while there is mail, none while there is none."""

import asyncio
from collections.abc import Callable, Sequence

from everpost import telemetry
from everpost.clock import Clock
from everpost.delivery import TERM_MS, Leases
from everpost.ids import Id
from everpost.model.shares import Ask, Grant
from everpost.store.interface import StoreError
from everpost.store.sharing import Sharing

__all__ = ["Leasing"]

_CALLS = telemetry.counter(
    "everpost_lease_calls_total", "Times that a process asked for its share of limits", ("result",)
)


class Leasing:
    """`granted` is called when mail that found no place may find one now; `processes` tells how
    many share the limits when all that are to be there have started."""

    def __init__(
        self,
        *,
        owner: Id,
        store: Sharing,
        leases: Leases,
        clock: Clock,
        granted: Callable[[], None],
        processes: Callable[[], int] = lambda: 1,
    ) -> None:
        self._processes = processes
        self._owner = owner
        self._store = store
        self._leases = leases
        self._clock = clock
        self._granted = granted
        self._urged = asyncio.Event()
        self._sharing: asyncio.Future[Sequence[Grant]] | None = None
        leases.begin(self._urged.set)

    async def run(self) -> None:
        """Hold what is needed, until cancelled."""
        try:
            while True:
                self._urged.clear()
                asks = self._leases.asks()
                if asks:
                    await self._ask(asks)
                await self._wait(self._leases.look_in())
        finally:
            if self._sharing is not None:
                self._sharing.cancel()

    async def _wait(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._urged.wait()
        except TimeoutError:
            pass

    async def _ask(self, asks: Sequence[Ask]) -> None:
        asked_at, wall = self._clock.monotonic(), self._clock.now()
        self._sharing = asyncio.ensure_future(
            self._store.share(
                self._owner,
                asks,
                lease_ms=TERM_MS,
                among=self._processes(),
            )
        )
        try:
            # The store may take long; what was granted before ends meanwhile.
            while not self._sharing.done():
                await asyncio.wait([self._sharing], timeout=self._leases.lapse_in())
                self._leases.lapse()
            grants = self._sharing.result()
        except StoreError as error:
            telemetry.event("dispatch.leasing_failed", error=str(error))
            _CALLS.add(1, "failed")
            self._leases.refused()
        else:
            _CALLS.add(1, "answered")
            self._leases.grant(grants, asked_at=asked_at, wall=wall)
            self._granted()
        finally:
            if self._sharing.done():
                self._sharing = None

    async def leave(self) -> None:
        """Give everything back; after all sessions are closed."""
        try:
            await self._store.leave(self._owner)
        except StoreError as error:
            telemetry.event("dispatch.leaving_failed", error=str(error))
