"""Who may use which relay now: room, pools and turns. Doing; `pool` decides.

Each relay has a *lane*: at most `cap` sessions in flight, those that wait for work kept for a
while. A pool names the lanes that its mail may take. Whoever finds no room waits in line, first
come first served.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence

from everpost.delivery import pool
from everpost.delivery.envelope import Envelope
from everpost.delivery.lane import Lane
from everpost.delivery.session import Session
from everpost.model.pool import DEFAULT_POOL, Pool
from everpost.model.relay import Relay

__all__ = ["Lanes"]

_MOST_MATES = 64
_TOLD_AT_ONCE = 1_000


class _Waiter:
    """One in line: its place, once there is one; None when no relay is left to try."""

    __slots__ = ("envelope", "place", "tried")

    def __init__(
        self, place: "asyncio.Future[Lane | None]", envelope: Envelope, tried: frozenset[bytes]
    ) -> None:
        self.place = place
        self.envelope = envelope
        self.tried = tried


class _Wing:
    """A pool in this process: its lanes that are enabled, in tiers."""

    __slots__ = ("direct", "enabled", "name", "tiers")

    def __init__(self, name: str, tiers: Sequence[Sequence[Lane]]) -> None:
        self.name = name
        self.tiers = [[lane for lane in tier if lane.enabled] for tier in tiers]
        self.enabled = [lane for tier in self.tiers for lane in tier]
        self.direct = any(lane.direct for lane in self.enabled)

    def serving(self, destination: str) -> Sequence[Lane]:
        if destination or not self.direct:
            return self.enabled
        return [lane for lane in self.enabled if not lane.direct]


class Lanes:
    """All relays and pools. `now` gives monotonic seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lanes: dict[bytes, Lane] = {}
        self._wings: dict[str, _Wing] = {}
        self._waiters: deque[_Waiter] = deque()
        self._turns = 0
        self._urge: Callable[[Iterable[Lane]], None] | None = None

    def lease(self, urge: Callable[[Iterable[Lane]], None]) -> None:
        """From now on the lanes have what they are given; `urge` is told which find no place for
        somebody, or gave away their last."""
        self._urge = urge
        for lane in self._lanes.values():
            lane.urge = urge
            lane.cap = lane.site_cap = 0

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
                self._lanes[id_] = Lane(relay, urge=self._urge)
            elif known.relay != relay:
                left += known.adopt(relay)
        named = {pool.name: pool for pool in pools}
        named.setdefault(DEFAULT_POOL, Pool(name=DEFAULT_POOL, tiers=(tuple(self._lanes),)))
        self._wings = {
            name: _Wing(
                name,
                [[self._lanes[id_] for id_ in tier if id_ in self._lanes] for tier in pool.tiers],
            )
            for name, pool in named.items()
        }
        self._serve()
        return left

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def lane(self, relay: bytes) -> Lane | None:
        return self._lanes.get(relay)

    def ready(self, name: str) -> bool:
        wing = self._wings.get(name)
        return wing is not None and bool(wing.enabled)

    def direct(self, name: str) -> bool:
        """Whether mail of this pool may go straight to its destinations."""
        wing = self._wings.get(name)
        return wing is not None and wing.direct

    def most(self, name: str) -> int | None:
        """Places that one destination can have at once; None where it may have them all."""
        wing = self._wings.get(name)
        if wing is None or not wing.direct or not all(lane.direct for lane in wing.enabled):
            return None
        return sum(lane.relay.destination_connections for lane in wing.enabled)

    def free(self, name: str) -> int:
        """Places of this pool that could be taken now."""
        wing = self._wings.get(name)
        if wing is None:
            return 0
        free = pool.free(wing.enabled, now=self._now())
        if free or self._urge is None:
            return free
        return self._to_ask_with(wing)

    def _to_ask_with(self, wing: _Wing) -> int:
        """Where lanes have what they are given: one message stands in line for those that nothing
        was asked for yet. All may come where every relay has spent its budget, to be told so."""
        if wing.enabled and all(lane.spent for lane in wing.enabled):
            return _TOLD_AT_ONCE
        asleep = not any(lane.in_flight for lane in wing.enabled)
        return int(asleep and not any(w.envelope.pool == wing.name for w in self._waiters))

    def any_beyond(self, tried: frozenset[bytes], envelope: Envelope) -> bool:
        """Whether another relay than these is enabled that can carry the envelope."""
        return any(lane.id not in tried for lane in self._for(envelope))

    async def take(self, envelope: Envelope, tried: frozenset[bytes]) -> Lane | None:
        """A place in a lane, at once or in turn; None when no relay is left to try. Must be given
        back with `give_back`. Without a destination none delivers directly."""
        if not self._waiters:
            lanes = self._preferred(envelope, tried)
            if not lanes:
                return None
            lane = self._choose(lanes, envelope.destination)
            if lane is not None:
                self._enter(lane, envelope.destination)
                return lane
        if self._urge is not None:
            self._urge(self._preferred(envelope, tried))
        place: asyncio.Future[Lane | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(_Waiter(place, envelope, tried))
        self._serve()
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and (given := place.result()) is not None:
                self.give_back(given, envelope.destination)
            raise

    def give_back(self, lane: Lane, destination: str) -> None:
        lane.leave(destination)
        if self._waiters:
            self._serve()

    def changed(self) -> None:
        """The `cap` or `uses` of a lane has changed: those in line may have a place now."""
        if self._waiters:
            self._serve()

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

    def _for(self, envelope: Envelope) -> Sequence[Lane]:
        if envelope.only is not None:
            pinned = self._lanes.get(envelope.only)
            lanes: Sequence[Lane] = [] if pinned is None else [pinned]
        else:
            wing = self._wings.get(envelope.pool)
            lanes = [] if wing is None else wing.serving(envelope.destination)
        if self._urge is not None and any(lane.spent for lane in lanes):
            return [lane for lane in lanes if not lane.spent]
        return lanes

    def spent(self, envelope: Envelope) -> Sequence[Lane]:
        """The relays that could carry it, were their budgets not spent."""
        if envelope.only is not None:
            pinned = self._lanes.get(envelope.only)
            return [pinned] if pinned is not None and pinned.spent else []
        wing = self._wings.get(envelope.pool)
        return [lane for lane in wing.enabled if lane.spent] if wing is not None else []

    def pool_mates(self, ids: Container[bytes]) -> list[Lane]:
        """The enabled lanes of every pool that has one of these: they share its mail, so that none
        is passed over for having nothing yet. Large pools: as many as are awake anyway."""
        found: dict[bytes, Lane] = {}
        for wing in self._wings.values():
            if len(wing.enabled) <= _MOST_MATES and any(lane.id in ids for lane in wing.enabled):
                found.update((lane.id, lane) for lane in wing.enabled)
        return list(found.values())

    def _preferred(self, envelope: Envelope, tried: frozenset[bytes]) -> Sequence[Lane]:
        lanes = self._for(envelope)
        if len(lanes) < 2 and not tried:
            return lanes
        return pool.preferred(lanes, now=self._now(), avoid=envelope.avoid, tried=tried)

    @staticmethod
    def _choose(lanes: Sequence[Lane], destination: str) -> Lane | None:
        return pool.choose([lane for lane in lanes if lane.admits(destination)])

    def _enter(self, lane: Lane, destination: str) -> None:
        lane.enter(destination)
        self._turns += 1
        lane.turn = self._turns

    def _serve(self) -> None:
        """Give places to those in line; one who can only use a full lane, or waits for room at its
        destination, lets others pass."""
        waiting: deque[_Waiter] = deque()
        while self._waiters:
            waiter = self._waiters.popleft()
            if waiter.place.done():  # cancelled
                continue
            lanes = self._preferred(waiter.envelope, waiter.tried)
            lane = self._choose(lanes, waiter.envelope.destination)
            if lane is None and lanes:
                waiting.append(waiter)
                if not any(lane.room for lane in self._lanes.values()):
                    break
                continue
            if lane is not None:
                self._enter(lane, waiter.envelope.destination)
            waiter.place.set_result(lane)
        waiting.extend(self._waiters)
        self._waiters = waiting
