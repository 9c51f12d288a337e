"""Who may use which relay now: all lanes, all pools, and the lines of those who wait. Doing.

Each relay has a *lane*: at most `cap` sessions in flight, those that wait for work kept for a
while. Each pool has a *balancer*: the lanes that its mail may take, in tiers. Whoever finds no room
waits in the balancer's line, first come first served.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator

from everpost.clock import Clock
from everpost.delivery.balancer import FULL, Balancer, Waiter
from everpost.delivery.breaker import OPEN_FOR, Spare
from everpost.delivery.envelope import Envelope
from everpost.delivery.lane import Lane
from everpost.delivery.session import Session
from everpost.delivery.shaping import Shaper
from everpost.delivery.sites import Site
from everpost.model.health import CircuitState
from everpost.model.outcome import Deferred, Phase, Speaker
from everpost.model.pool import Pool, with_default
from everpost.model.relay import Relay

__all__ = ["Lanes"]

_ANSWERED_AT_ONCE = 100
"""Transactions that a pool without any relay in service can be asked for: they do not wait."""

_MOST_MATES = 64
_SEAT_S = 1.0
"""So long a connection without mail waits to be let in."""
_LINE = 400
"""How many may wait in line for one site. More go back to the queue, or a slow site with many
domains would fill all that a process may have in hand (I17)."""
_LINE_MS = 5_000

_NOWHERE: tuple[Balancer, ...] = ()


class Lanes:
    """All relays and pools. `shaper` says what direct lanes may do at a site; `random` gives
    numbers in [0, 1); `site` is where we are; `open_for`: seconds without mail after a relay's
    first fault."""

    def __init__(
        self,
        clock: Clock,
        shaper: Shaper,
        *,
        random: Callable[[], float],
        site: str = "",
        open_for: float = OPEN_FOR,
    ) -> None:
        self._clock = clock
        self._now = clock.monotonic
        self._shaper = shaper
        self._random = random
        self._site = site
        self._open_for = open_for
        self._lanes: dict[bytes, Lane] = {}
        self._balancers: dict[str, Balancer] = {}
        self._of: dict[bytes, tuple[Balancer, ...]] = {}
        self._pinned: dict[bytes, deque[Waiter]] = {}
        self._number = 0
        self._due: float | None = None  # when a circuit or a tier is to be looked at
        self._urge: Callable[[Iterable[Lane]], None] | None = None
        self._visitors: dict[bytes, list[asyncio.Future[None]]] = {}

    def lease(self, urge: Callable[[Iterable[Lane]], None]) -> None:
        """From now on the lanes have what they are given; `urge` is told which of them find no
        place for somebody, or gave away their last."""
        self._urge = urge
        for lane in self._lanes.values():
            lane.urge = urge
            lane.cap = lane.site_cap = 0
            self.resized(lane)

    # --- relays and pools -------------------------------------------------------------------------

    def use(self, relays: Iterable[Relay], pools: Iterable[Pool]) -> list[Session]:
        """Replace the relays and pools; the idle sessions that have to be closed for it. What is in
        flight finishes: `keep` then refuses its session."""
        left: list[Session] = []
        now, open_for = self._now(), self._open_for
        wanted = {relay.id: relay for relay in relays}
        for id_, lane in list(self._lanes.items()):
            if id_ not in wanted:
                left += lane.idle
                lane.idle = []
                lane.enabled = False
                del self._lanes[id_]
        for id_, relay in wanted.items():
            known = self._lanes.get(id_)
            if known is None:
                self._lanes[id_] = Lane(
                    relay, self._shaper, open_for=open_for, now=now, urge=self._urge
                )
            elif known.relay != relay:
                left += known.adopt(relay, open_for=open_for, now=now)
        for lane in self._lanes.values():
            lane.counted = lane.room
        self._make_balancers(pools)
        for id_ in tuple(self._pinned):
            self._serve_pinned(id_)
        return left

    def _make_balancers(self, pools: Iterable[Pool]) -> None:
        old, now = self._balancers, self._now()
        self._balancers = {}
        of: dict[bytes, tuple[Balancer, ...]] = {}
        for pool in with_default(pools, tuple(self._lanes)):
            name = pool.name
            tiers = [[self._lanes[id_] for id_ in t if id_ in self._lanes] for t in pool.tiers]
            balancer = Balancer(pool, tiers, site=self._site, random=self._random)
            before = old.pop(name, None)
            if before is not None:
                balancer.waiters, balancer.out_since = before.waiters, before.out_since
            balancer.look(now)
            self._balancers[name] = balancer
            for lane in balancer.lanes:
                of[lane.id] = (*of.get(lane.id, ()), balancer)
        self._of = of
        self._plan()
        for balancer in (*self._balancers.values(), *old.values()):
            if balancer.name not in self._balancers:
                balancer.dissolve()
            self._serve(balancer)

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def lane(self, relay: bytes) -> Lane | None:
        return self._lanes.get(relay)

    def balancer(self, name: str) -> Balancer | None:
        return self._balancers.get(name)

    def balancers(self) -> Iterable[Balancer]:
        return self._balancers.values()

    def spare(self, lane: Lane) -> Spare:
        """Whether the lane's pools keep their floor without it."""
        own = lane.circuit.state is CircuitState.CLOSED
        for balancer in self._of.get(lane.id, _NOWHERE):
            if balancer.sound - own < balancer.pool.floor:
                return Spare.FLOOR
        return Spare.PLENTY

    def free(self, name: str) -> int:
        """Transactions that could start in the pool now without waiting. Where none is in service
        they are answered at once."""
        balancer = self._balancers.get(name)
        if balancer is None or not balancer.lanes:
            return 0
        self.look()
        if balancer.out:
            return _ANSWERED_AT_ONCE
        if balancer.room > 0 or self._urge is None:
            return max(balancer.room, 0)
        # Lanes have what they are given: one message in line asks for those that have nothing.
        asleep = not balancer.waiters and not any(lane.in_flight for lane in balancer.lanes)
        return int(asleep)

    def in_line(self, lane: Lane) -> bool:
        """Whether somebody waits for a place that this lane could give."""
        if lane.id in self._pinned or self._visitors.get(lane.id):
            return True
        return any(balancer.waiters for balancer in self._of.get(lane.id, _NOWHERE))

    def mates(self, ids: Container[bytes]) -> list[Lane]:
        """The enabled lanes of every pool that has one of these: they share its mail, and none is
        to be passed over for having nothing yet. Large pools get along with those that are awake.
        """
        found: dict[bytes, Lane] = {}
        for balancer in self._balancers.values():
            if len(balancer.lanes) <= _MOST_MATES and any(
                lane.id in ids for lane in balancer.lanes
            ):
                found.update((lane.id, lane) for lane in balancer.lanes)
        return list(found.values())

    def any_beyond(
        self, tried: frozenset[bytes], envelope: Envelope, unblocked_at: Site | None = None
    ) -> bool:
        """Whether another relay than these is enabled that can carry the envelope; one whose
        address the site does not refuse, where a site is given."""
        balancer = self._balancers.get(envelope.pool)
        if balancer is None or envelope.only is not None:
            return False
        wall = self._clock.now()
        return any(
            lane.id not in tried
            and (envelope.destination or not lane.direct)
            and not (
                unblocked_at is not None
                and lane.direct
                and self._shaper.blocked(lane.id, unblocked_at.name, now=wall)
            )
            for lane in balancer.lanes
        )

    def may_go_directly(self, envelope: Envelope) -> bool:
        """Whether one of the lanes for it is direct."""
        if envelope.only is not None:
            pinned = self._lanes.get(envelope.only)
            return pinned is not None and pinned.direct
        balancer = self._balancers.get(envelope.pool)
        return balancer is not None and balancer.direct

    # --- places -----------------------------------------------------------------------------------

    async def take(
        self, envelope: Envelope, tried: frozenset[bytes], site: Site
    ) -> Lane | Deferred | None:
        """A place in a lane, at once or in turn; None when no relay is left to try; a deferral when
        those that are left take nothing for the site now. A lane must be given back with
        `give_back`. Without a destination none delivers directly."""
        if envelope.only is not None:
            return await self._take_pinned(envelope.only, self._waiter(envelope, tried, site))
        balancer = self._balancers.get(envelope.pool)
        if balancer is None:
            return None
        now = self.look()
        if not balancer.waiters:
            found = balancer.choose(envelope, tried, site, now=now, wall=self._clock.now())
            if found is not FULL:
                return self._enter(found, site, envelope)
        elif len(balancer.waiters) >= _LINE and _is_long(balancer.waiters, site):
            return _line_is_long(site, self._clock.now())
        if not balancer.waiters:
            self._ask_for(balancer)
        waiter = self._waiter(envelope, tried, site)
        balancer.waiters.append(waiter)
        if balancer.room > 0:
            self._serve(balancer)
        return await self._in_line(waiter)

    async def _take_pinned(self, relay: bytes, waiter: Waiter) -> Lane | Deferred | None:
        if relay not in self._lanes or relay in waiter.tried:
            return None
        self._pinned.setdefault(relay, deque()).append(waiter)
        self._serve_pinned(relay)
        if self._urge is not None and not waiter.place.done():
            self._urge([self._lanes[relay]])
        return await self._in_line(waiter)

    def _waiter(self, envelope: Envelope, tried: frozenset[bytes], site: Site) -> Waiter:
        self._number += 1
        return Waiter(envelope, tried, site, self._number)

    async def _in_line(self, waiter: Waiter) -> Lane | Deferred | None:
        place = waiter.place
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                given = place.result()
                if isinstance(given, Lane):
                    self.give_back(given, waiter.site, waiter.envelope)
            raise

    def _enter(
        self, found: Lane | Deferred | None, site: Site, envelope: Envelope
    ) -> Lane | Deferred | None:
        if isinstance(found, Lane):
            found.enter(site, envelope)
            self._recount(found)
        return found

    def give_back(self, lane: Lane, site: Site, envelope: Envelope) -> None:
        lane.leave(site, envelope)
        self._recount(lane)
        self._hand_on(lane)

    async def visit(self, relay: bytes) -> Lane | None:
        """A place for one connection that carries no mail, and counts as none; None when there is
        no room for it now, sessions at rest included. Must be given back with `visited`."""
        lane = self._lanes.get(relay)
        if lane is not None and not lane.cap and self._urge is not None:
            await self._seat(lane, self._urge)
        if lane is None or not lane.enabled:
            return None
        if lane.in_flight + len(lane.idle) + lane.leaving >= lane.cap:
            return None
        lane.in_flight += 1
        lane.peak = max(lane.peak, lane.in_flight)
        self._recount(lane)
        return lane

    async def _seat(self, lane: Lane, urge: Callable[[Iterable[Lane]], None]) -> None:
        """Ask for what the lane has nothing of, and wait a moment for it."""
        visitor: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        visitors = self._visitors.setdefault(lane.id, [])
        visitors.append(visitor)
        urge((lane,))
        try:
            async with asyncio.timeout(_SEAT_S):
                await visitor
        except TimeoutError:
            pass
        finally:
            visitors.remove(visitor)

    def visited(self, lane: Lane) -> None:
        lane.in_flight -= 1
        self._recount(lane)
        self._hand_on(lane)

    def changed(self, lane: Lane | None = None) -> None:
        """The lane's circuit, `cap`, `uses` or `away` has changed; without a lane, that of any, or
        what a site takes: who serves, and who may have a place now, or none to wait for?"""
        now = self._now()
        for one in self._lanes.values() if lane is None else (lane,):
            if one.circuit.state is not CircuitState.HALF_OPEN:
                one.trial = None
            one.counted = one.room
        balancers = self._balancers.values() if lane is None else self._of.get(lane.id, _NOWHERE)
        for balancer in tuple(balancers):
            balancer.look(now)
        self._plan()
        if lane is not None:
            self._hand_on(lane)
        else:
            for id_ in tuple(self._pinned):
                self._serve_pinned(id_)
            for balancer in tuple(balancers):
                self._serve(balancer)
        for balancer in balancers:
            if balancer.waiters and balancer.room <= 0:
                self._ask_for(balancer)

    def _ask_for(self, balancer: Balancer) -> None:
        """Somebody finds no place in it: those that serve may have been given nothing yet."""
        if self._urge is not None:
            self._urge(lane for lane in balancer.lanes if lane.serves)

    def resized(self, lane: Lane) -> None:
        """Only its `cap` or `uses` has changed, or how many sessions are leaving."""
        for visitor in self._visitors.get(lane.id, ()) if lane.cap else ():
            if not visitor.done():
                visitor.set_result(None)
        self._recount(lane)
        self._hand_on(lane)

    def _recount(self, lane: Lane) -> None:
        room = lane.room
        by = room - lane.counted
        if by:
            lane.counted = room
            for balancer in self._of.get(lane.id, _NOWHERE):
                balancer.room_changed(lane, by)

    def _hand_on(self, lane: Lane) -> None:
        """There is room in the lane, or it serves no more: those in line come first."""
        if lane.id in self._pinned:
            self._serve_pinned(lane.id)
        lines = [balancer for balancer in self._of.get(lane.id, _NOWHERE) if balancer.waiters]
        if len(lines) > 1:
            lines.sort(key=lambda balancer: balancer.waiters[0].number)
        for balancer in lines:
            self._serve(balancer)

    def _serve(self, balancer: Balancer) -> None:
        """Give places to those in line; one who can only use a full lane, or waits for room at its
        site, lets others pass."""
        now, wall = self._now(), self._clock.now()
        waiting: deque[Waiter] = deque()
        full: set[str] = set()  # sites: who stands behind for one need not be asked
        while balancer.waiters:
            waiter = balancer.waiters.popleft()
            if waiter.place.done():  # cancelled
                continue
            if waiter.site.name in full and not waiter.tried:
                waiting.append(waiter)
                continue
            found = balancer.choose(waiter.envelope, waiter.tried, waiter.site, now=now, wall=wall)
            if found is FULL:
                waiting.append(waiter)
                if waiter.site.name:
                    full.add(waiter.site.name)
                if balancer.room <= 0:
                    break
                continue
            waiter.place.set_result(self._enter(found, waiter.site, waiter.envelope))
        waiting.extend(balancer.waiters)
        balancer.waiters = waiting

    def _serve_pinned(self, relay: bytes) -> None:
        """Mail for this relay only: whatever its state, within its own connections."""
        line, lane = self._pinned[relay], self._lanes.get(relay)
        while line:
            waiter = line[0]
            if not waiter.place.done():
                if lane is not None and not lane.has_seat(waiter.site):
                    return
                waiter.place.set_result(self._enter(lane, waiter.site, waiter.envelope))
            line.popleft()
        del self._pinned[relay]

    # --- time -------------------------------------------------------------------------------------

    def look(self) -> float:
        """Now; and what is due by now is looked at."""
        now = self._now()
        if self._due is not None and now >= self._due:
            back = [lane for lane in self._lanes.values() if lane.circuit.look(now)]
            for balancer in self._balancers.values():
                if balancer.due is not None and now >= balancer.due:
                    balancer.look(now)
            self._plan()
            for lane in back:
                self.changed(lane)
            for lane in self._lanes.values():
                if lane.room != lane.counted:  # its slow start goes on, or is over
                    self.resized(lane)
        return now

    def _plan(self) -> None:
        looks = [lane.circuit.next_look for lane in self._lanes.values()]
        looks += [balancer.due for balancer in self._balancers.values()]
        self._due = min((look for look in looks if look is not None), default=None)

    # --- sessions at rest -------------------------------------------------------------------------

    def keep(self, lane: Lane, session: Session) -> bool:
        """Whether this session may wait in its lane for more work; if so it does now."""
        # It is still one of those in flight.
        has_seat = lane.in_flight <= lane.cap and (
            not lane.direct or lane.busy[session.site] <= lane.site_cap
        )
        if lane.enabled and has_seat and session.relay is lane.relay and session.usable:
            lane.idle.append(session)
            return True
        return False

    def idle_before(self, moment: float) -> tuple[list[Session], float | None]:
        """Take out the sessions idle since before `moment`, and say since when the eldest of the
        others is."""
        stale: list[Session] = []
        eldest: float | None = None
        for lane in self._lanes.values():
            if not lane.idle:
                continue
            stale += [s for s in lane.idle if s.idle_since <= moment]
            lane.idle = [s for s in lane.idle if s.idle_since > moment]
            since = min((s.idle_since for s in lane.idle), default=None)
            if since is not None and (eldest is None or since < eldest):
                eldest = since
        return stale, eldest


def _is_long(line: Iterable[Waiter], site: Site) -> bool:
    return bool(site.hosts) and sum(waiter.site.name == site.name for waiter in line) >= _LINE


def _line_is_long(site: Site, wall: int) -> Deferred:
    return Deferred(
        f"not tried, too many wait for {site.name} already",
        Phase.ROUTE,
        Speaker.DESTINATION,
        until=wall + _LINE_MS,
        untried=True,
    )
