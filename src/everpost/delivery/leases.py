"""What this process holds of its relays' limits: the allowances of the lanes that have work, what
to ask for them, and what comes of the answer. Doing; `allowance` decides.

Until `begin` is called nothing is leased: a relay's limits then hold for this process alone, as far
as they are connections. Afterwards a lane has what was granted, and a lane without work holds
nothing and costs nothing.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import islice

import msgspec

from everpost.clock import Clock
from everpost.delivery.allowance import Allowance, Load
from everpost.delivery.keeping import Keeper
from everpost.delivery.lane import Lane
from everpost.delivery.lanes import Lanes
from everpost.model.shares import Ask, Grant

__all__ = ["Leases"]

_MOST_WOKEN = 64
"""Relays of one pool that are asked for at once when its mail finds none awake."""


_LOOK_S = 60.0
"""Where something is held or spent it is looked at so often, since the wall clock may be set."""


class Leases:
    """`lanes` tell who wants in; `keeper` closes the sessions that there are no seats for."""

    def __init__(self, *, lanes: Lanes, keeper: Keeper, clock: Clock) -> None:
        self._lanes = lanes
        self._keeper = keeper
        self._clock = clock
        self._held: dict[bytes, Allowance] = {}
        self._asking: Sequence[tuple[Lane, Allowance]] = ()
        self._mates: set[bytes] = set()
        self._urge: Callable[[], None] | None = None

    def begin(self, urge: Callable[[], None]) -> None:
        """From now on lanes have what is granted. `urge` is called when one needs it soon."""
        self._urge = urge
        self._lanes.lease(self._wanted)
        self._keeper.left = self._left

    def relays_changed(self) -> None:
        if self._held and self._urge is not None:
            self._urge()

    # -- between the slices ------------------------------------------------------------------------

    def _wanted(self, lanes: Iterable[Lane]) -> None:
        """These found no place for somebody, or gave away their last."""
        assert self._urge is not None
        now = self._clock.monotonic()
        soon = False
        for lane in islice(lanes, _MOST_WOKEN):
            if lane.id not in self._held:
                self._held[lane.id] = Allowance(lane.relay, self._clock.now())
            elif lane.waiting and now < lane.ask_at and (lane.uses != 0 or lane.spent):
                continue
            lane.waiting = soon = True
        if soon:
            self._urge()

    def _left(self, lane: Lane) -> None:
        """A session has gone."""
        assert self._urge is not None
        allowance = self._held.get(lane.id)
        if allowance is not None and allowance.owes(_load(lane)):
            self._urge()

    # -- asking ------------------------------------------------------------------------------------

    def asks(self) -> Sequence[Ask]:
        """What to ask for now; nothing where nothing is needed. What has ended is let go."""
        now, wall = self._clock.monotonic(), self._clock.now()
        self.lapse()
        loads = self._loads()
        mates = self._lanes.mates({id_ for id_, (_, load) in loads.items() if load.any})
        for lane in mates:
            if lane.id not in loads and lane.away is None:
                self._held[lane.id] = Allowance(lane.relay, wall)
                loads[lane.id] = lane, Load()
        self._mates = {lane.id for lane in mates if lane.away is None}
        found: list[Ask] = []
        asking = []
        for id_, (lane, load) in loads.items():
            allowance = self._held[id_]
            wanted = load.any or id_ in self._mates
            if not wanted and not allowance.holds:
                self._forget(lane, allowance, now)
            elif allowance.ask_at(load, now=now, wall=wall) <= now:
                found += allowance.asks(load, now=now, wall=wall, wanted=wanted)
                asking.append((lane, allowance))
                lane.waiting, lane.peak = False, lane.in_flight
        self._asking = asking
        return found

    def _forget(self, lane: Lane, allowance: Allowance, now: float) -> None:
        """It has no work and no seats; that its budget is spent is still to be known."""
        if allowance.spent(now) is None:
            del self._held[lane.id]
            lane.cap = lane.site_cap = 0
            lane.uses, lane.given, lane.ask_at = None, 0, 0.0
            if lane.spent:  # its time has come since that was last looked at
                lane.spent, lane.away = False, None
                self._lanes.changed(lane)
            else:
                self._lanes.resized(lane)

    def _loads(self) -> dict[bytes, tuple[Lane, Load]]:
        loads = {}
        for id_ in tuple(self._held):
            lane = self._lanes.lane(id_)
            if lane is None:  # its relay is gone; what it held ends by itself
                del self._held[id_]
                continue
            load = _load(lane)
            if self._lanes.in_line(lane):
                load = msgspec.structs.replace(load, waiting=True)
            loads[id_] = lane, load
        return loads

    def grant(self, grants: Sequence[Grant], *, asked_at: float, wall: int) -> None:
        """The answer to `asks`. `asked_at` (monotonic seconds) and `wall` (milliseconds): just
        before they were sent."""
        named = {grant.name: grant for grant in grants}
        for _, allowance in self._asking:
            allowance.granted(named, asked_at=asked_at, wall=wall)
        self._asking = ()
        self.lapse()

    def refused(self) -> None:
        """There was no answer."""
        now = self._clock.monotonic()
        for lane, allowance in self._asking:
            allowance.refused(now)
            lane.waiting = True
        self._asking = ()

    # -- time --------------------------------------------------------------------------------------

    def lapse(self) -> None:
        """Give every lane what it may use now: what has ended is not its any more."""
        now, wall = self._clock.monotonic(), self._clock.now()
        for id_, allowance in tuple(self._held.items()):  # what changes may wake others
            lane = self._lanes.lane(id_)
            if lane is None:
                continue
            allowance.adopt(lane.relay, wall)
            if lane.uses is not None:
                allowance.started(lane.given - lane.uses)
            allowance.lapse(now)
            self._fit(lane, allowance, now)

    def _fit(self, lane: Lane, allowance: Allowance, now: float) -> None:
        lane.cap, lane.site_cap = allowance.cap, allowance.site_cap
        lane.uses = allowance.uses
        lane.given = lane.uses or 0
        if lane.in_flight + len(lane.idle) > lane.cap:
            self._keeper.dismiss(lane.surplus())
        if lane.direct and lane.idle:
            self._keeper.dismiss(lane.crowded())
        spent = allowance.spent(now)
        if spent is not None and lane.away is None:
            lane.spent, lane.away = True, f"{spent.words}, next at {_utc(spent.until)}"
            self._lanes.changed(lane)
        elif spent is None and lane.spent:
            lane.spent, lane.away = False, None
            self._lanes.changed(lane)
        else:
            self._lanes.resized(lane)

    def look_in(self) -> float | None:
        """Seconds until there may be something to do; None: when somebody wants something."""
        now, wall = self._clock.monotonic(), self._clock.now()
        soonest = math.inf
        for id_, (lane, load) in self._loads().items():
            allowance = self._held[id_]
            if not (load.any or id_ in self._mates or allowance.holds):
                self._forget(lane, allowance, now)
                soonest, lane.ask_at = min(soonest, allowance.lapse_at(now)), 0.0
                continue
            hungry = msgspec.structs.replace(load, waiting=True)
            lane.ask_at = allowance.ask_at(hungry, now=now, wall=wall)
            at = allowance.ask_at(load, now=now, wall=wall)
            soonest = min(soonest, at, allowance.lapse_at(now))
        if soonest == math.inf:
            return None
        return min(max(soonest - now, 0.0), _LOOK_S)

    def lapse_in(self) -> float | None:
        """Seconds until something that is held ends; None: nothing is held."""
        now = self._clock.monotonic()
        soonest = min((a.lapse_at(now) for a in self._held.values()), default=math.inf)
        return None if soonest == math.inf else max(soonest - now, 0.0)

    def turned_away(self, lanes: Iterable[Lane]) -> int | None:
        """When a message may come back that none of these takes, in milliseconds: None unless spent
        budgets alone are the reason. Those that are turned away come back one after the other."""
        now = self._clock.monotonic()
        spent: list[tuple[int, int, Allowance]] = []
        for lane in lanes:
            allowance = self._held.get(lane.id)
            found = allowance.spent(now) if allowance is not None and lane.spent else None
            if allowance is None or found is None:
                return None
            spent.append((found.until, len(spent), allowance))
        return min(spent)[2].turn_away(now) if spent else None


def _utc(ms: int) -> str:
    return datetime.fromtimestamp(ms // 1000, tz=UTC).isoformat().replace("+00:00", "Z")


def _load(lane: Lane) -> Load:
    """`widest` takes all that say goodbye for sessions to its site: they are few, and soon gone."""
    widest = 0
    if lane.direct:
        widest = max(lane.there().values(), default=0) + lane.leaving
    return Load(
        sessions=lane.in_flight + len(lane.idle) + lane.leaving,
        widest=widest,
        peak=lane.peak,
        waiting=lane.waiting,
    )
