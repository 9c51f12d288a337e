"""Who may use which relay now: all lanes, all pools, and the lines of those who wait. Doing.

Each relay has a *lane*: at most `cap` sessions in flight, those that wait for work kept for a
while. Each pool has a *wing*: the lanes that its mail may take, in tiers. Whoever finds no room
waits in the wing's line, first come first served.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator

from everpost.delivery.breaker import OPEN_FOR, Spare
from everpost.delivery.envelope import Envelope
from everpost.delivery.lane import Lane
from everpost.delivery.session import Session
from everpost.delivery.wing import Waiter, Wing
from everpost.model.health import CircuitState
from everpost.model.pool import DEFAULT_POOL, Pool
from everpost.model.relay import Relay

__all__ = ["Lanes"]

_ANSWERED_AT_ONCE = 100
"""Transactions that a pool without any relay in service can be asked for: they do not wait."""

_MOST_MATES = 64

_NOWHERE: tuple[Wing, ...] = ()


class Lanes:
    """All relays and pools. `now` gives monotonic seconds, `random` numbers in [0, 1); `site` is
    ours; `open_for`: seconds without mail after a relay's first fault."""

    def __init__(
        self,
        now: Callable[[], float],
        *,
        random: Callable[[], float],
        site: str = "",
        open_for: float = OPEN_FOR,
    ) -> None:
        self._now = now
        self._random = random
        self._site = site
        self._open_for = open_for
        self._lanes: dict[bytes, Lane] = {}
        self._wings: dict[str, Wing] = {}
        self._of: dict[bytes, tuple[Wing, ...]] = {}
        self._pinned: dict[bytes, deque[Waiter]] = {}
        self._number = 0
        self._due: float | None = None  # when a circuit or a tier is to be looked at
        self._urge: Callable[[Iterable[Lane]], None] | None = None

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
                self._lanes[id_] = Lane(relay, open_for=self._open_for, urge=self._urge)
            elif known.relay != relay:
                left += known.adopt(relay)
        for lane in self._lanes.values():
            lane.counted = lane.room
        self._raise_wings(pools)
        for id_ in tuple(self._pinned):
            self._serve_pinned(id_)
        return left

    def _raise_wings(self, pools: Iterable[Pool]) -> None:
        named = {pool.name: pool for pool in pools}
        named.setdefault(DEFAULT_POOL, Pool(name=DEFAULT_POOL, tiers=(tuple(self._lanes),)))
        old, now = self._wings, self._now()
        self._wings = {}
        of: dict[bytes, tuple[Wing, ...]] = {}
        for name, pool in named.items():
            tiers = [[self._lanes[id_] for id_ in t if id_ in self._lanes] for t in pool.tiers]
            wing = Wing(pool, tiers, site=self._site, random=self._random)
            before = old.pop(name, None)
            if before is not None:
                wing.waiters = before.waiters
            wing.look(now)
            self._wings[name] = wing
            for lane in wing.lanes:
                of[lane.id] = (*of.get(lane.id, ()), wing)
        self._of = of
        self._plan()
        for wing in (*self._wings.values(), *old.values()):
            if wing.name not in self._wings:
                wing.dissolve()
            self._serve(wing)

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def lane(self, relay: bytes) -> Lane | None:
        return self._lanes.get(relay)

    def wing(self, name: str) -> Wing | None:
        return self._wings.get(name)

    def wings(self) -> Iterable[Wing]:
        return self._wings.values()

    def spare(self, lane: Lane) -> Spare:
        """Whether the lane's pools keep their floor without it."""
        own = lane.circuit.state is CircuitState.CLOSED
        for wing in self._of.get(lane.id, _NOWHERE):
            if wing.sound - own < wing.pool.floor:
                return Spare.FLOOR
        return Spare.PLENTY

    def free(self, name: str) -> int:
        """Transactions that could start in the pool now without waiting. Where none is in service
        they are answered at once."""
        wing = self._wings.get(name)
        if wing is None or not wing.lanes:
            return 0
        self._look()
        if wing.out:
            return _ANSWERED_AT_ONCE
        if wing.room > 0 or self._urge is None:
            return max(wing.room, 0)
        # Lanes have what they are given: one message in line asks for those that have nothing.
        asleep = not wing.waiters and not any(lane.in_flight for lane in wing.lanes)
        return int(asleep)

    def in_line(self, lane: Lane) -> bool:
        """Whether somebody waits for a place that this lane could give."""
        return lane.id in self._pinned or any(w.waiters for w in self._of.get(lane.id, _NOWHERE))

    def mates(self, ids: Container[bytes]) -> list[Lane]:
        """The enabled lanes of every pool that has one of these: they share its mail, and none is
        to be passed over for having nothing yet. Large pools get along with those that are awake.
        """
        found: dict[bytes, Lane] = {}
        for wing in self._wings.values():
            if len(wing.lanes) <= _MOST_MATES and any(lane.id in ids for lane in wing.lanes):
                found.update((lane.id, lane) for lane in wing.lanes)
        return list(found.values())

    def any_beyond(self, tried: frozenset[bytes], envelope: Envelope) -> bool:
        """Whether another relay than these is enabled that can carry the envelope."""
        wing = self._wings.get(envelope.pool)
        if wing is None or envelope.only is not None:
            return False
        return any(
            lane.id not in tried and (envelope.destination or not lane.direct)
            for lane in wing.lanes
        )

    # --- places -----------------------------------------------------------------------------------

    async def take(self, envelope: Envelope, tried: frozenset[bytes]) -> Lane | None:
        """A place in a lane, at once or in turn; None when no relay is left to try. Must be given
        back with `give_back`. Without a destination none delivers directly."""
        if envelope.only is not None:
            return await self._take_pinned(envelope.only, envelope, tried)
        wing = self._wings.get(envelope.pool)
        if wing is None:
            return None
        now = self._look()
        if not wing.waiters:
            lane, waits = wing.choose(envelope, tried, now)
            if lane is not None:
                self._enter(lane, envelope.destination)
                return lane
            if not waits:
                return None
        if self._urge is not None:
            self._urge(wing.lanes)
        waiter = self._waiter(envelope, tried)
        wing.waiters.append(waiter)
        if wing.room > 0:
            self._serve(wing)
        return await self._in_line(waiter)

    async def _take_pinned(
        self, relay: bytes, envelope: Envelope, tried: frozenset[bytes]
    ) -> Lane | None:
        if relay not in self._lanes or relay in tried:
            return None
        waiter = self._waiter(envelope, tried)
        self._pinned.setdefault(relay, deque()).append(waiter)
        self._serve_pinned(relay)
        if self._urge is not None and not waiter.place.done():
            self._urge([self._lanes[relay]])
        return await self._in_line(waiter)

    def _waiter(self, envelope: Envelope, tried: frozenset[bytes]) -> Waiter:
        self._number += 1
        return Waiter(envelope, tried, self._number)

    async def _in_line(self, waiter: Waiter) -> Lane | None:
        place = waiter.place
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and (given := place.result()) is not None:
                self.give_back(given, waiter.envelope.destination)
            raise

    def _enter(self, lane: Lane, destination: str) -> None:
        lane.enter(destination)
        self._recount(lane)

    def give_back(self, lane: Lane, destination: str) -> None:
        lane.leave(destination)
        self._recount(lane)
        self._hand_on(lane)

    def changed(self, lane: Lane) -> None:
        """The lane's circuit, `cap`, `uses` or `away` has changed: who serves, and who may have a
        place now?"""
        now = self._now()
        lane.counted = lane.room
        for wing in self._of.get(lane.id, _NOWHERE):
            wing.look(now)
        self._plan()
        self._hand_on(lane)

    def resized(self, lane: Lane) -> None:
        """Only its `cap` or `uses` has changed, or how many sessions are leaving."""
        self._recount(lane)
        self._hand_on(lane)

    def _recount(self, lane: Lane) -> None:
        room = lane.room
        by = room - lane.counted
        if by:
            lane.counted = room
            for wing in self._of.get(lane.id, _NOWHERE):
                wing.room_changed(lane, by)

    def _hand_on(self, lane: Lane) -> None:
        """There is room in the lane, or it serves no more: those in line come first."""
        if lane.id in self._pinned:
            self._serve_pinned(lane.id)
        lines = [wing for wing in self._of.get(lane.id, _NOWHERE) if wing.waiters]
        if len(lines) > 1:
            lines.sort(key=lambda wing: wing.waiters[0].number)
        for wing in lines:
            self._serve(wing)

    def _serve(self, wing: Wing) -> None:
        """Give places to those in line; one who can only use a full lane, or waits for room at its
        destination, lets others pass."""
        now = self._now()
        waiting: deque[Waiter] = deque()
        while wing.waiters:
            waiter = wing.waiters.popleft()
            if waiter.place.done():  # cancelled
                continue
            lane, waits = wing.choose(waiter.envelope, waiter.tried, now)
            if lane is None and waits:
                waiting.append(waiter)
                if wing.room <= 0:
                    break
                continue
            if lane is not None:
                self._enter(lane, waiter.envelope.destination)
            waiter.place.set_result(lane)
        waiting.extend(wing.waiters)
        wing.waiters = waiting

    def _serve_pinned(self, relay: bytes) -> None:
        """Mail for this relay only: whatever its state, within its own connections."""
        line, lane = self._pinned[relay], self._lanes.get(relay)
        while line:
            waiter = line[0]
            if not waiter.place.done():
                destination = waiter.envelope.destination
                if lane is not None:
                    if lane.in_flight >= lane.cap or not lane.admits(destination):
                        return
                    self._enter(lane, destination)
                waiter.place.set_result(lane)
            line.popleft()
        del self._pinned[relay]

    # --- time -------------------------------------------------------------------------------------

    def _look(self) -> float:
        """Now; and what is due by now is looked at."""
        now = self._now()
        if self._due is not None and now >= self._due:
            back = [lane for lane in self._lanes.values() if lane.circuit.look(now)]
            for wing in self._wings.values():
                if wing.due is not None and now >= wing.due:
                    wing.look(now)
            self._plan()
            for lane in back:
                self.changed(lane)
        return now

    def _plan(self) -> None:
        looks = [lane.circuit.next_look for lane in self._lanes.values()]
        looks += [wing.due for wing in self._wings.values()]
        self._due = min((look for look in looks if look is not None), default=None)

    # --- sessions at rest -------------------------------------------------------------------------

    def keep(self, lane: Lane, session: Session) -> bool:
        """Whether this session may wait in its lane for more work; if so it does now."""
        has_seat = lane.in_flight <= lane.cap  # it is still one of those in flight
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
