"""Who may use which relay now: room, pools and turns. Doing; `pool` decides.

Each relay has a *lane*: at most `cap` sessions in flight, those that wait for work kept for a
while. A pool names the lanes that its mail may take. Whoever finds no room waits in line, first
come first served.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum, auto
from typing import Final, cast

from everpost.delivery import pool
from everpost.delivery.envelope import Envelope
from everpost.delivery.lane import Lane
from everpost.delivery.session import Session
from everpost.delivery.shaping import Shaper
from everpost.delivery.sites import Site
from everpost.model.outcome import Deferred, Phase, Speaker
from everpost.model.pool import DEFAULT_POOL, Pool
from everpost.model.relay import Relay

__all__ = ["Lanes"]


_LINE = 100
"""How many may wait in line for one site. More go back to the queue, or a slow site with many
domains would fill all that a process may have in hand (I17)."""
_LINE_MS = 30_000


class _Waiter:
    """One in line: its place, once there is one; None when no relay is left to try, a deferral when
    its site takes nothing now."""

    __slots__ = ("envelope", "place", "site", "tried")

    def __init__(
        self,
        place: "asyncio.Future[Lane | Deferred | None]",
        envelope: Envelope,
        tried: frozenset[bytes],
        site: Site,
    ) -> None:
        self.place = place
        self.envelope = envelope
        self.tried = tried
        self.site = site


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
    """All relays and pools. `now` gives monotonic seconds, `wall` milliseconds; `shaper` says what
    direct lanes may do at a site."""

    def __init__(self, now: Callable[[], float], wall: Callable[[], int], shaper: Shaper) -> None:
        self._now = now
        self._wall = wall
        self._shaper = shaper
        self._lanes: dict[bytes, Lane] = {}
        self._wings: dict[str, _Wing] = {}
        self._waiters: deque[_Waiter] = deque()
        self._turns = 0

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
                self._lanes[id_] = Lane(relay, self._shaper)
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

    def may_go_directly(self, envelope: Envelope) -> bool:
        """Whether one of the lanes for it is direct."""
        if envelope.only is not None:
            pinned = self._lanes.get(envelope.only)
            return pinned is not None and pinned.direct
        return self.direct(envelope.pool)

    def most(self, name: str) -> int | None:
        """Places that one destination can have at once; None where it may have them all."""
        wing = self._wings.get(name)
        if wing is None or not wing.direct or not all(lane.direct for lane in wing.enabled):
            return None
        return sum(lane.relay.destination_connections for lane in wing.enabled)

    def free(self, name: str) -> int:
        """Places of this pool that could be taken now."""
        wing = self._wings.get(name)
        return 0 if wing is None else pool.free(wing.enabled, now=self._now())

    def any_beyond(self, tried: frozenset[bytes], envelope: Envelope) -> bool:
        """Whether another relay than these is enabled that can carry the envelope."""
        return any(lane.id not in tried for lane in self._for(envelope))

    def unblocked_beyond(self, tried: frozenset[bytes], envelope: Envelope, site: Site) -> bool:
        """The same, whose address the site does not refuse."""
        now = self._wall()
        return any(
            lane.id not in tried
            and not (lane.direct and self._shaper.blocked(lane.id, site.name, now=now))
            for lane in self._for(envelope)
        )

    async def take(
        self, envelope: Envelope, tried: frozenset[bytes], site: Site
    ) -> Lane | Deferred | None:
        """A place in a lane, at once or in turn; None when no relay is left to try; a deferral when
        those that are left take nothing for the site now. A lane must be given back with
        `give_back`. Without a destination none delivers directly."""
        if not self._waiters:
            found = self._find(envelope, tried, site)
            if found is not _FULL:
                return self._enter(found, site)
        elif len(self._waiters) >= _LINE and self._long_line(site):
            return _line_is_long(site, self._wall())
        place: asyncio.Future[Lane | Deferred | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(_Waiter(place, envelope, tried, site))
        self._serve()
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and isinstance(place.result(), Lane):
                self.give_back(cast(Lane, place.result()), site)
            raise

    def _long_line(self, site: Site) -> bool:
        return bool(site.hosts) and (
            sum(waiter.site.name == site.name for waiter in self._waiters) >= _LINE
        )

    def give_back(self, lane: Lane, site: Site) -> None:
        lane.leave(site)
        if self._waiters:
            self._serve()

    def changed(self) -> None:
        """The `cap` or `uses` of a lane, or what a site takes, has changed: those in line may have
        a place now, or none to wait for."""
        if self._waiters:
            self._serve()

    def keep(self, lane: Lane, session: Session) -> bool:
        """Whether this session may wait in its lane for more work; if so it does now."""
        if lane.enabled and session.relay is lane.relay and session.usable:
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
            return [] if pinned is None else [pinned]
        wing = self._wings.get(envelope.pool)
        return [] if wing is None else wing.serving(envelope.destination)

    def _preferred(self, envelope: Envelope, tried: frozenset[bytes]) -> Sequence[Lane]:
        lanes = self._for(envelope)
        if len(lanes) < 2 and not tried:
            return lanes
        return pool.preferred(lanes, now=self._now(), avoid=envelope.avoid, tried=tried)

    def _find(
        self, envelope: Envelope, tried: frozenset[bytes], site: Site
    ) -> "Lane | Deferred | _Full | None":
        lanes = self._preferred(envelope, tried)
        if not lanes:
            return None
        if not site.name:
            return pool.choose(lanes) or _FULL
        now, name = self._wall(), site.name
        cooling = [
            until
            for lane in lanes
            if lane.direct and (until := self._shaper.cooling(lane.id, name, now=now)) is not None
        ]
        if len(cooling) == len(lanes):
            return _cools(site, min(cooling), self._shaper.why(lanes[0].id, name))
        if (seen := self._shaper.preferred(name, now=now)) is not None:
            # A greylist knows this one: it is worth waiting for.
            lanes = [
                lane
                for lane in lanes
                if lane.id == seen and self._shaper.cooling(seen, name, now=now) is None
            ] or lanes
        return pool.choose([lane for lane in lanes if lane.admits(site, now)]) or _FULL

    def _enter(self, found: "Lane | Deferred | None", site: Site) -> "Lane | Deferred | None":
        if isinstance(found, Lane):
            found.enter(site)
            self._turns += 1
            found.turn = self._turns
        return found

    def _serve(self) -> None:
        """Give places to those in line; one who can only use a full lane, or waits for room at its
        site, lets others pass."""
        waiting: deque[_Waiter] = deque()
        while self._waiters:
            waiter = self._waiters.popleft()
            if waiter.place.done():  # cancelled
                continue
            found = self._find(waiter.envelope, waiter.tried, waiter.site)
            if found is _FULL:
                waiting.append(waiter)
                if not any(lane.room for lane in self._lanes.values()):
                    break
                continue
            waiter.place.set_result(self._enter(found, waiter.site))
        waiting.extend(self._waiters)
        self._waiters = waiting


class _Full(Enum):
    """There are lanes for it, and none has room."""

    FULL = auto()


_FULL: Final = _Full.FULL


def _cools(site: Site, until: int, why: str) -> Deferred:
    return Deferred(
        f"not tried, {site.name} takes nothing from us for a while: {why}",
        Phase.ROUTE,
        Speaker.DESTINATION,
        until=until,
        untried=True,
    )


def _line_is_long(site: Site, now: int) -> Deferred:
    return Deferred(
        f"not tried, too many wait for {site.name} already",
        Phase.ROUTE,
        Speaker.DESTINATION,
        until=now + _LINE_MS,
        untried=True,
    )
