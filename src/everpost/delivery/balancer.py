"""One pool in this process: which of its lanes serve now, how much room they have, who waits for
it. Doing; `pool` decides."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from enum import Enum, auto
from typing import Final

from everpost import telemetry
from everpost.delivery.envelope import Envelope
from everpost.delivery.lane import Lane
from everpost.delivery.pool import Entry, Group, Turns, outlier, serving
from everpost.delivery.sites import Site
from everpost.model.health import CircuitState
from everpost.model.outcome import Deferred, Phase, Speaker
from everpost.model.pool import Pool

__all__ = ["FULL", "Balancer", "Full", "Waiter"]

_RAMP_LOOK = 1.0
"""Seconds after which the tiers are looked at again while a relay's share grows."""
_OUTLIER_SAMPLES = 10
"""Transactions of the last minute that it takes to call a relay slow."""

_PART_OF_OUTAGE = 0.25
_LONGEST_WAIT = 60.0
"""Mail of a pool that is out of service waits for this part of the time that it is out already, at
most so many seconds: what waits for days does not come and go all the time."""
_NAMED = 3
"""Relays that a refusal names."""

_NONE: frozenset[bytes] = frozenset()


class Full(Enum):
    """There are lanes for it, and none has room."""

    FULL = auto()


FULL: Final = Full.FULL


class Waiter:
    """One in line: its place, once there is one; None when no relay is left to try, a deferral when
    its site takes nothing now."""

    __slots__ = ("envelope", "number", "place", "site", "tried")

    def __init__(
        self, envelope: Envelope, tried: frozenset[bytes], site: Site, number: int
    ) -> None:
        self.place: asyncio.Future[Lane | Deferred | None] = (
            asyncio.get_running_loop().create_future()
        )
        self.envelope = envelope
        self.tried = tried
        self.site = site
        self.number = number


class Balancer:
    """`lanes`: those of the pool that are enabled; `sound`: how many of them are in health, and
    since when none is: `out_since` (monotonic seconds, or None); `room`: transactions that those
    who serve could start now."""

    def __init__(
        self, pool: Pool, lanes: Sequence[Sequence[Lane]], *, site: str, random: Callable[[], float]
    ) -> None:
        self.pool = pool
        self.name = pool.name
        self.groups: list[tuple[int, list[Entry[Lane]]]] = []
        for tier, members in enumerate(lanes):
            near: list[Entry[Lane]] = []
            far: list[Entry[Lane]] = []
            for lane in members:
                if lane.enabled:
                    own = not site or lane.relay.site in {None, site}
                    (near if own else far).append(Entry(lane))
            self.groups += [(tier, group) for group in (near, far) if group]
        self.entries = {entry.relay.id: entry for _, group in self.groups for entry in group}
        self.lanes = tuple(entry.relay for entry in self.entries.values())
        self.direct = any(lane.direct for lane in self.lanes)
        self.waiters: deque[Waiter] = deque()
        self.room = 0
        self.sound = 0
        self._turns: Turns[Lane] = Turns(random)
        self._serving: frozenset[bytes] = _NONE
        self._tiers = 0
        self._look_at: float | None = None
        self.out_since: float | None = None

    # --- who serves -------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """A circuit or the enabled lanes have changed, or a share has grown: who serves now?"""
        self.sound = sum(
            lane.circuit.state is CircuitState.CLOSED and lane.away is None for lane in self.lanes
        )
        if self.sound:
            self.out_since = None
        elif self.out_since is None:
            self.out_since = now
        groups = [
            Group(
                tier,
                sum(max(entry.relay.weight, 1) for entry in group),
                sum(_health(entry.relay, now) for entry in group),
            )
            for tier, group in self.groups
        ]
        before = self._tiers
        self._tiers = (
            serving(groups, spill_below=self.pool.spill_below, now_serving=before) if groups else 0
        )
        ramping = any(lane.circuit.ramping for lane in self.lanes)
        self._look_at = now + _RAMP_LOOK if ramping else None
        entries = [
            entry
            for _, group in self.groups[: self._tiers]
            for entry in group
            if entry.relay.serves
        ]
        names = frozenset(entry.relay.id for entry in entries)
        if names != self._serving:
            fresh = [
                entry
                for entry in entries
                if entry.relay.id not in self._serving
                and entry.relay.circuit.state is CircuitState.HALF_OPEN
            ]
            self._turns.serve(entries, at_once=fresh)
            self._serving = names
        self.room = sum(entry.relay.counted for entry in entries)
        for entry in entries:
            if entry.relay.counted > 0:
                self._turns.wake(entry)
        if before and before != self._tiers:
            telemetry.event("pool.tiers", pool=self.pool.name, groups=self._tiers)

    @property
    def due(self) -> float | None:
        """When to `look` again though nothing happened."""
        return self._look_at

    def dissolve(self) -> None:
        """The pool is gone: nothing of it serves."""
        self.groups, self.entries, self.lanes, self._serving = [], {}, (), _NONE
        self._turns.serve(())

    @property
    def out(self) -> bool:
        """Whether nothing of it is in service."""
        return not self._serving

    def room_changed(self, lane: Lane, by: int) -> None:
        if lane.id in self._serving:
            self.room += by
            if by > 0:
                self._turns.wake(self.entries[lane.id])

    # --- places -----------------------------------------------------------------------------------

    def choose(
        self, envelope: Envelope, tried: frozenset[bytes], site: Site, *, now: float, wall: int
    ) -> Lane | Deferred | Full | None:
        """The lane for an envelope: never one that was tried. FULL where one is worth waiting for,
        None where there is none, a deferral where those that are left take nothing for the site
        now. `wall` is `now` in milliseconds."""
        if not tried and not self.direct:
            return self._turns.choose(now) or (None if self.out else FULL)
        destination = envelope.destination
        if not self._is_open_to(destination, tried):
            return self._beyond(destination, tried, site, wall)
        seen: bytes | None = None
        if self.direct and site.name:
            lanes = [self.entries[id_].relay for id_ in self._serving if id_ not in tried]
            cooling = _cooling(lanes, site, wall)
            if cooling is not None:
                return cooling
            seen = self._seen(lanes, site, wall)

        def fits(lane: Lane) -> bool:
            if seen is not None and lane.id != seen:
                return False
            if lane.direct and not (destination and lane.admits(site, wall)):
                return False
            return lane.id not in tried

        return self._turns.choose(now, fits) or FULL

    def _beyond(
        self, destination: str, tried: frozenset[bytes], site: Site, wall: int
    ) -> Lane | Deferred | Full | None:
        """All who serve were tried and failed, which may not have shown in their circuits yet: the
        next sound lane of a later tier."""
        found = [
            lane
            for lane in self.lanes
            if lane.id not in tried and lane.serves and (destination or not lane.direct)
        ]
        if not found:
            return None
        cooling = _cooling(found, site, wall)
        if cooling is not None:
            return cooling
        fit = (lane for lane in found if lane.room > 0 and lane.admits(site, wall))
        return next(fit, FULL)

    @staticmethod
    def _seen(lanes: Sequence[Lane], site: Site, wall: int) -> bytes | None:
        """The lane that a greylist knows: it is worth waiting for."""
        shaper = lanes[0].shaper
        seen = shaper.preferred(site.name, now=wall)
        if seen is None or all(lane.id != seen for lane in lanes):
            return None
        return seen if shaper.cooling(seen, site.name, now=wall) is None else None

    def _is_open_to(self, destination: str, tried: Collection[bytes]) -> bool:
        return any(
            id_ not in tried and (destination or not self.entries[id_].relay.direct)
            for id_ in self._serving
        )

    def most(self) -> int | None:
        """Places that one destination can have at once; None where it may have them all."""
        if not self.direct or not all(lane.direct for lane in self.lanes):
            return None
        return sum(lane.relay.destination_connections for lane in self.lanes)

    # --- judging ----------------------------------------------------------------------------------

    def laggard(self, now: float) -> Lane | None:
        """A lane that is far slower than the others that serve, who can do without it."""
        if self.sound <= self.pool.floor:
            return None
        known = [
            lane
            for lane in self.lanes
            if lane.id in self._serving
            and not lane.direct
            and lane.meter.counts(now)[1] >= _OUTLIER_SAMPLES
        ]
        if not known:
            return None
        slowest = max(known, key=lambda lane: lane.meter.average)
        others = [lane.meter.average for lane in known if lane is not slowest]
        return slowest if outlier(slowest.meter.average, others) else None

    def turn_away(self, now: float, wall: int) -> Deferred:
        """Why no lane is in service, and when that may change; nothing is tried before."""
        if not self.lanes:
            return Deferred(f"no relay of pool {self.name} is enabled", Phase.ROUTE, Speaker.SELF)
        told = [_why(lane, now) for lane in self.lanes[:_NAMED]]
        more = len(self.lanes) - len(told)
        rest = f"; and {more} more" if more > 0 else ""
        looks = [lane.circuit.next_look for lane in self.lanes]
        soonest = min((look for look in looks if look is not None), default=now)
        if self.out_since is not None:
            out_for = now - self.out_since
            soonest = max(soonest, now + min(out_for * _PART_OF_OUTAGE, _LONGEST_WAIT))
        return Deferred(
            f"no relay of pool {self.name} is in service: {'; '.join(told)}{rest}",
            Phase.ROUTE,
            Speaker.SELF,
            until=wall + max(round((soonest - now) * 1000), 0),
            untried=True,
        )


def _cooling(lanes: Sequence[Lane], site: Site, wall: int) -> Deferred | None:
    """Why none of these may go to the site now, or None: one may."""
    moments: list[int] = []
    for lane in lanes:
        until = lane.shaper.cooling(lane.id, site.name, now=wall) if lane.direct else None
        if until is None:
            return None
        moments.append(until)
    why = lanes[0].shaper.why(lanes[0].id, site.name)
    return Deferred(
        f"not tried, {site.name} takes nothing from us for a while: {why}",
        Phase.ROUTE,
        Speaker.DESTINATION,
        until=min(moments),
        untried=True,
    )


def _health(lane: Lane, now: float) -> float:
    return max(lane.weight, 1) * lane.circuit.share(now) if lane.away is None else 0.0


def _why(lane: Lane, now: float) -> str:
    if lane.away is not None:
        return f"{lane.relay.name}: {lane.away}"
    next_look = lane.circuit.next_look
    if next_look is None:
        return f"{lane.relay.name}: tried already"
    return f"{lane.relay.name}: {lane.circuit.why}, next look in {max(next_look - now, 0):.0f} s"
