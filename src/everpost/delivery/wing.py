"""One pool in this process: which of its lanes serve now, how much room they have, who waits for
it. Doing; `pool` decides."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence

from everpost import telemetry
from everpost.delivery.envelope import Envelope
from everpost.delivery.lane import Lane
from everpost.delivery.pool import Group, Seat, Turns, outlier, serving
from everpost.model.health import CircuitState
from everpost.model.pool import Pool

__all__ = ["Waiter", "Wing"]

_RAMP_LOOK = 1.0
"""Seconds after which the tiers are looked at again while a relay's share grows."""
_OUTLIER_SAMPLES = 10
"""Transactions of the last minute that it takes to call a relay slow."""

_NONE: frozenset[bytes] = frozenset()


class Waiter:
    """One in line: its place, once there is one; None when no relay is left to try."""

    __slots__ = ("envelope", "number", "place", "tried")

    def __init__(self, envelope: Envelope, tried: frozenset[bytes], number: int) -> None:
        self.place: asyncio.Future[Lane | None] = asyncio.get_running_loop().create_future()
        self.envelope = envelope
        self.tried = tried
        self.number = number


class Wing:
    """`lanes`: those of the pool that are enabled; `sound`: how many of them are in health; `room`:
    transactions that those who serve could start now."""

    def __init__(
        self, pool: Pool, lanes: Sequence[Sequence[Lane]], *, site: str, random: Callable[[], float]
    ) -> None:
        self.pool = pool
        self.name = pool.name
        self.groups: list[tuple[int, list[Seat[Lane]]]] = []
        for tier, members in enumerate(lanes):
            near: list[Seat[Lane]] = []
            far: list[Seat[Lane]] = []
            for lane in members:
                if lane.enabled:
                    own = not site or lane.relay.site in {None, site}
                    (near if own else far).append(Seat(lane))
            self.groups += [(tier, group) for group in (near, far) if group]
        self.seats = {seat.relay.id: seat for _, group in self.groups for seat in group}
        self.lanes = tuple(seat.relay for seat in self.seats.values())
        self.direct = any(lane.direct for lane in self.lanes)
        self.waiters: deque[Waiter] = deque()
        self.room = 0
        self.sound = 0
        self._turns: Turns[Lane] = Turns(random)
        self._serving: frozenset[bytes] = _NONE
        self._tiers = 0
        self._look_at: float | None = None

    # --- who serves -------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """A circuit or the enabled lanes have changed, or a share has grown: who serves now?"""
        self.sound = sum(
            lane.circuit.state is CircuitState.CLOSED and lane.away is None for lane in self.lanes
        )
        groups = [
            Group(
                tier,
                sum(max(seat.relay.weight, 1) for seat in group),
                sum(_health(seat.relay, now) for seat in group),
            )
            for tier, group in self.groups
        ]
        before = self._tiers
        self._tiers = (
            serving(groups, spill_below=self.pool.spill_below, now_serving=before) if groups else 0
        )
        ramping = any(lane.circuit.ramping for lane in self.lanes)
        self._look_at = now + _RAMP_LOOK if ramping else None
        seats = [
            seat for _, group in self.groups[: self._tiers] for seat in group if seat.relay.serves
        ]
        names = frozenset(seat.relay.id for seat in seats)
        if names != self._serving:
            fresh = [
                seat
                for seat in seats
                if seat.relay.id not in self._serving
                and seat.relay.circuit.state is CircuitState.HALF_OPEN
            ]
            self._turns.seat(seats, at_once=fresh)
            self._serving = names
        self.room = sum(seat.relay.counted for seat in seats)
        for seat in seats:
            if seat.relay.counted > 0:
                self._turns.wake(seat)
        if before and before != self._tiers:
            telemetry.event("pool.tiers", pool=self.pool.name, groups=self._tiers)

    @property
    def due(self) -> float | None:
        """When to `look` again though nothing happened."""
        return self._look_at

    def dissolve(self) -> None:
        """The pool is gone: nothing of it serves."""
        self.groups, self.seats, self.lanes, self._serving = [], {}, (), _NONE

    @property
    def out(self) -> bool:
        """Whether nothing of it is in service."""
        return not self._serving

    def room_changed(self, lane: Lane, by: int) -> None:
        if lane.id in self._serving:
            self.room += by
            if by > 0:
                self._turns.wake(self.seats[lane.id])

    # --- places -----------------------------------------------------------------------------------

    def choose(
        self, envelope: Envelope, tried: frozenset[bytes], now: float
    ) -> tuple[Lane | None, bool]:
        """The lane for an envelope; else whether one is worth waiting for: never one that was
        tried, nor one to avoid while there is another."""
        if not tried and not envelope.avoid and not self.direct:
            lane = self._turns.choose(now)
            return lane, not self.out
        destination = envelope.destination
        excluded = tried | envelope.avoid
        if not self._is_open_to(destination, excluded):
            excluded = tried
            if not self._is_open_to(destination, excluded):
                return None, False

        def fits(lane: Lane) -> bool:
            return (
                lane.id not in excluded
                and (bool(destination) or not lane.direct)
                and lane.admits(destination)
            )

        return self._turns.choose(now, fits), True

    def _is_open_to(self, destination: str, excluded: Collection[bytes]) -> bool:
        return any(
            id_ not in excluded and (destination or not self.seats[id_].relay.direct)
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

    def why_out(self, now: float) -> str:
        """Why no lane is in service, and when that may change; for people."""
        if not self.lanes:
            return f"no relay of pool {self.pool.name} is enabled"
        told = [_why(lane, now) for lane in self.lanes[:3]]
        more = len(self.lanes) - len(told)
        rest = f"; and {more} more" if more > 0 else ""
        return f"no relay of pool {self.pool.name} is in service: {'; '.join(told)}{rest}"


def _health(lane: Lane, now: float) -> float:
    return max(lane.weight, 1) * lane.circuit.share(now) if lane.away is None else 0.0


def _why(lane: Lane, now: float) -> str:
    if lane.away is not None:
        return f"{lane.relay.name}: {lane.away}"
    next_look = lane.circuit.next_look
    if next_look is None:
        return f"{lane.relay.name}: tried already"
    return f"{lane.relay.name}: {lane.circuit.why}, next look in {max(next_look - now, 0):.0f} s"
