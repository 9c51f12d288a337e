"""What this process holds of its relays' limits: the allowances of the lanes that have work, what
to ask for them, and what comes of the answer. Doing; `allowance` decides.

Until `begin` is called nothing is leased: a relay's limits then hold for this process alone, as far
as they are connections. Afterwards a lane has what was granted, and a lane without work holds
nothing and costs nothing.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import msgspec

from everpost.clock import Clock
from everpost.delivery.allowance import Allowance, Load, Part, Spent, Wish
from everpost.delivery.keeping import Keeper
from everpost.delivery.lane import Lane
from everpost.delivery.lanes import Lanes

__all__ = ["Leases"]

_MOST_WOKEN = 64
"""Relays of one pool that are asked for at once when its mail finds none awake."""


class Leases:
    """`lanes` tell who wants in; `keeper` closes the sessions that there are no seats for."""

    def __init__(self, *, lanes: Lanes, keeper: Keeper, clock: Clock) -> None:
        self._lanes = lanes
        self._keeper = keeper
        self._clock = clock
        self._held: dict[bytes, Allowance] = {}
        self._asking: Sequence[tuple[Lane, Allowance]] = ()
        self._urge: Callable[[], None] | None = None

    def begin(self, urge: Callable[[], None]) -> None:
        """From now on lanes have what is granted. `urge` is called when one needs it soon."""
        self._urge = urge
        self._lanes.lease(self._wanted)
        self._keeper.left = self._left

    # -- between the slices ------------------------------------------------------------------------

    def _wanted(self, lanes: Iterable[Lane]) -> None:
        """These found no place for somebody, or gave away their last."""
        assert self._urge is not None
        now = self._clock.monotonic()
        soon = False
        for n, lane in enumerate(lanes):
            if n >= _MOST_WOKEN:
                break
            lane.waiting = True
            if lane.id not in self._held:
                self._held[lane.id] = Allowance(lane.relay, self._clock.now())
                soon = True
            soon = soon or now >= lane.ask_at or (lane.uses == 0 and not lane.spent)
        if soon:
            self._urge()

    def _left(self, lane: Lane) -> None:
        """A session has gone."""
        assert self._urge is not None
        allowance = self._held.get(lane.id)
        if allowance is not None and allowance.owes(_sessions(lane)):
            self._urge()

    # -- asking ------------------------------------------------------------------------------------

    def wishes(self) -> Sequence[Wish]:
        """What to ask for now; nothing where nothing is needed. What has ended is let go."""
        now, wall = self._clock.monotonic(), self._clock.now()
        self.lapse()
        loads = self._loads()
        wanted = self._lanes.pool_mates({id_ for id_, (_, load) in loads.items() if load.any})
        for lane in wanted:
            if lane.id not in loads:
                self._held[lane.id] = Allowance(lane.relay, wall)
                loads[lane.id] = lane, Load()
        mates = {lane.id for lane in wanted}
        found: list[Wish] = []
        asking = []
        for id_, (lane, load) in loads.items():
            allowance = self._held[id_]
            if not allowance.due(load, now=now, wall=wall):
                continue
            stays = load.any or id_ in mates
            found += allowance.wishes(load, now=now, wall=wall, wanted=stays)
            if stays:
                asking.append((lane, allowance))
                lane.waiting, lane.peak = False, lane.in_flight
            else:
                self._drop(lane)
        self._asking = asking
        return found

    def _loads(self) -> dict[bytes, tuple[Lane, Load]]:
        loads = {}
        for id_, allowance in tuple(self._held.items()):
            lane = self._lanes.lane(id_)
            if lane is None:  # its relay is gone; what it held ends by itself
                del self._held[id_]
                continue
            allowance.adopt(lane.relay, self._clock.now())
            loads[id_] = (
                lane,
                Load(
                    sessions=_sessions(lane),
                    widest=max(lane.busy.values(), default=0),
                    peak=lane.peak,
                    waiting=lane.waiting,
                ),
            )
        return loads

    def _drop(self, lane: Lane) -> None:
        del self._held[lane.id]
        lane.cap = lane.site_cap = 0
        lane.uses, lane.given, lane.ask_at, lane.spent = None, 0, 0.0, False

    def grant(self, parts: Sequence[Part], *, asked_at: float, wall: int) -> None:
        """The answer to `wishes`. `asked_at` (monotonic seconds) and `wall` (milliseconds): just
        before they were sent."""
        named = {part.name: part for part in parts}
        for _, allowance in self._asking:
            allowance.granted(named, asked_at=asked_at, wall=wall)
        self._asking = ()
        self.lapse()
        self._lanes.changed()

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
        turned = False
        for id_, allowance in self._held.items():
            lane = self._lanes.lane(id_)
            if lane is None:
                continue
            if lane.uses is not None:
                allowance.started(lane.given - lane.uses)
            allowance.lapse(now, wall)
            lane.cap, lane.site_cap = allowance.cap, allowance.site_cap
            lane.uses = allowance.uses
            lane.given = lane.uses or 0
            was, lane.spent = lane.spent, allowance.spent(now) is not None
            turned = turned or lane.spent is not was
            if lane.in_flight + len(lane.idle) > lane.cap:
                self._keeper.dismiss(lane.surplus(), lane)
        if turned:
            self._lanes.changed()

    def look_in(self) -> float | None:
        """Seconds until there may be something to do; None: when somebody wants something."""
        now, wall = self._clock.monotonic(), self._clock.now()
        soonest: float | None = None
        for id_, (lane, load) in self._loads().items():
            allowance = self._held[id_]
            hungry = msgspec.structs.replace(load, waiting=True)
            lane.ask_at = allowance.ask_at(hungry, now=now, wall=wall)
            at = min(allowance.ask_at(load, now=now, wall=wall), allowance.lapse_at)
            soonest = at if soonest is None else min(soonest, at)
        return None if soonest is None else max(soonest - now, 0.0)

    def lapse_in(self) -> float | None:
        """Seconds until something that is held ends; None: nothing is held."""
        soonest = min((a.lapse_at for a in self._held.values()), default=math.inf)
        return None if soonest == math.inf else max(soonest - self._clock.monotonic(), 0.0)

    def turned_away(self, lanes: Iterable[Lane]) -> Spent | None:
        """Why these relays take no message now, and when this one may come back, where a budget is
        the reason: of the first that has one again."""
        now = self._clock.monotonic()
        found = [
            (spent.until, n, allowance)
            for n, lane in enumerate(lanes)
            if (allowance := self._held.get(lane.id)) is not None
            and (spent := allowance.spent(now)) is not None
        ]
        return min(found)[2].turn_away(now) if found else None


def _sessions(lane: Lane) -> int:
    return lane.in_flight + len(lane.idle) + lane.leaving
