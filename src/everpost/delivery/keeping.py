"""Sessions at work and at rest: those that carry something, those kept for the next message, and
those that say goodbye. Doing; the lanes hold what rests."""

import asyncio
from collections.abc import Callable, Sequence

from everpost.clock import Clock
from everpost.delivery.envelope import Envelope
from everpost.delivery.lane import Lane
from everpost.delivery.lanes import Lanes
from everpost.delivery.session import Outset, Session
from everpost.delivery.sites import Site
from everpost.delivery.timeouts import Timeouts

__all__ = ["Keeper"]


class Keeper:
    """All sessions of a carrier. `busy`: those that carry something, or are being opened for it;
    `closing`: nothing new may start; `left` is told whose session has said goodbye."""

    def __init__(self, *, clock: Clock, lanes: Lanes, outset: Outset, timeouts: Timeouts) -> None:
        self._clock = clock
        self._lanes = lanes
        self._outset = outset
        self._timeouts = timeouts
        self.busy: set[Session] = set()
        self.closing = False
        self.left: Callable[[Lane], None] | None = None
        self._farewells: set[asyncio.Task[None]] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._all_back = asyncio.Event()

    def put_back(self, lane: Lane, site: Site, envelope: Envelope, session: Session | None) -> None:
        """An attempt is over: its session waits for more, or ends; its place is free."""
        if session is not None:
            self.busy.discard(session)
            if not self.closing and self._lanes.keep(lane, session):
                session.idle_since = self._clock.monotonic()
                if self._sweep is None:
                    self._sweep_in(self._timeouts.idle)
            elif session.usable:
                self.dismiss([session])
            else:
                session.abort()
        self._lanes.give_back(lane, site, envelope)
        if self.closing and not self.busy:
            self._all_back.set()

    def _sweep_in(self, seconds: float) -> None:
        self._sweep = asyncio.get_running_loop().call_later(seconds, self._close_idle)

    def _close_idle(self) -> None:
        self._sweep = None
        now = self._clock.monotonic()
        stale, eldest = self._lanes.idle_before(now - self._timeouts.idle)
        self.dismiss(stale)
        if eldest is not None:
            self._sweep_in(max(eldest + self._timeouts.idle - now, 0.01))

    def dismiss(self, sessions: Sequence[Session]) -> None:
        """QUIT and close, without anybody waiting for it. Until it is gone, each takes up a place
        in its relay's lane."""
        for session in sessions:
            lane = self._lanes.lane(session.relay.id)
            if lane is not None:
                lane.leaving += 1
                self._lanes.resized(lane)
            task = asyncio.get_running_loop().create_task(
                session.quit() if lane is None else self._leave(lane, session)
            )
            self._farewells.add(task)
            task.add_done_callback(self._farewells.discard)

    async def _leave(self, lane: Lane, session: Session) -> None:
        try:
            await session.leave()
        finally:
            lane.leaving -= 1
            self._lanes.resized(lane)
            if self.left is not None:
                self.left(lane)

    async def close(self, *, deadline: float) -> None:
        """Take nothing more, QUIT idle sessions, wait up to `deadline` seconds for what is being
        carried, then hang up."""
        self.closing = True
        self.dismiss(self._lanes.use((), ()))
        if self._sweep is not None:
            self._sweep.cancel()
        if self.busy:
            try:
                async with asyncio.timeout(deadline):
                    await self._all_back.wait()
            except TimeoutError:
                for session in self.busy:
                    session.abort()
        try:
            async with asyncio.timeout(2 * self._timeouts.quit):
                await asyncio.gather(*self._farewells)
                await asyncio.gather(*(open_.gone() for open_ in self._outset.open))
        except TimeoutError:
            for conversation in self._outset.open:
                conversation.abort()
