"""Who may use which relay now: room, turns and idle sessions. Doing; `pool` decides.

A *lane* is one relay's share of this process: at most `cap` sessions in flight, those that wait for
work kept for a while. In the lane of direct delivery each destination has a share of its own.
Whoever finds no room waits in line, first come first served.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence

from everpost import telemetry
from everpost.delivery import pool
from everpost.delivery.session import Session
from everpost.model.outcome import Deferred
from everpost.model.relay import Relay, RelayKind, RelayState

__all__ = ["Lane", "Lanes"]


class Lane:
    """One relay: its facts for `pool`, and its idle sessions, the last used on top. `direct`: its
    mail goes to each destination's own hosts; `busy` counts what is in flight to each then."""

    __slots__ = (
        "busy",
        "cap",
        "direct",
        "enabled",
        "faulted_at",
        "id",
        "idle",
        "in_flight",
        "relay",
        "turn",
        "weight",
    )

    def __init__(self, relay: Relay) -> None:
        self.id = relay.id
        self.in_flight = 0
        self.faulted_at: float | None = None
        self.turn = 0
        self.idle: list[Session] = []
        self.busy: Counter[str] = Counter()
        self.adopt(relay)

    def adopt(self, relay: Relay) -> list[Session]:
        """Take new settings; the idle sessions that were opened under others."""
        self.relay = relay
        self.weight = relay.weight
        self.cap = relay.connections
        self.enabled = relay.state is RelayState.ENABLED
        self.direct = relay.kind is RelayKind.MX
        outdated = [s for s in self.idle if not self.enabled or s.relay != relay]
        self.idle = [s for s in self.idle if s not in outdated]
        return outdated

    def admits(self, destination: str) -> bool:
        """Whether the destination has room here; the lane as a whole may be full."""
        return not self.direct or self.busy[destination] < self.relay.destination_connections

    def enter(self, destination: str) -> None:
        self.in_flight += 1
        if self.direct:
            self.busy[destination] += 1

    def leave(self, destination: str) -> None:
        self.in_flight -= 1
        if self.direct:
            self.busy[destination] -= 1
            if self.busy[destination] <= 0:
                del self.busy[destination]

    def surplus(self) -> list[Session]:
        """Take out the idle sessions, eldest first, that a new one beside those in flight would be
        too many with."""
        over = max(self.in_flight + len(self.idle) - self.cap, 0)
        taken, self.idle = self.idle[:over], self.idle[over:]
        return taken

    def warm(self, destination: str) -> Session | None:
        """An idle session that is still good and may carry mail there, or None."""
        if self.direct:
            theirs = [s for s in self.idle if s.destination == destination]
            while theirs:
                session = theirs.pop()
                self.idle.remove(session)
                if session.usable:
                    return session
            return None
        while self.idle:
            session = self.idle.pop()
            if session.usable:
                return session
        return None

    def failed(self, refusal: Deferred, *, now: float) -> None:
        """The relay itself is at fault; logged once, not once a message."""
        if self.faulted_at is None:
            telemetry.event(
                "relay.fault", relay=self.relay.name, phase=refusal.phase.value,
                reason=refusal.reason, reply=str(refusal.reply) if refusal.reply else None,
            )  # fmt: skip
        self.faulted_at = now

    def worked(self) -> None:
        if self.faulted_at is not None:
            telemetry.event("relay.recovered", relay=self.relay.name)
            self.faulted_at = None


class _Waiter:
    __slots__ = ("avoid", "destination", "place", "tried")

    def __init__(
        self,
        place: "asyncio.Future[Lane | None]",
        avoid: frozenset[bytes],
        tried: frozenset[bytes],
        destination: str,
    ) -> None:
        self.place = place
        self.avoid = avoid
        self.tried = tried
        self.destination = destination


class Lanes:
    """All relays. `now` gives monotonic seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lanes: dict[bytes, Lane] = {}
        self._enabled: Sequence[Lane] = ()
        self._waiters: deque[_Waiter] = deque()
        self._turns = 0
        self._direct = False

    def use(self, relays: Iterable[Relay]) -> list[Session]:
        """Replace the set of relays; the idle sessions that have to be closed for it. What is in
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
                self._lanes[id_] = Lane(relay)
            elif known.relay != relay:
                left += known.adopt(relay)
        self._enabled = [lane for lane in self._lanes.values() if lane.enabled]
        self._direct = any(lane.direct for lane in self._enabled)
        self._serve()
        return left

    @property
    def ready(self) -> bool:
        return bool(self._enabled)

    @property
    def direct(self) -> bool:
        """Whether mail may go straight to its destinations."""
        return self._direct

    def most(self) -> int | None:
        """Places that one destination can have at once; None where it may have them all."""
        if not self._direct or not all(lane.direct for lane in self._enabled):
            return None
        return sum(lane.relay.destination_connections for lane in self._enabled)

    def free(self) -> int:
        """Places that could be taken now: those that nobody in line could use. Who waits in line
        for direct delivery waits for room at a destination, and leaves the others theirs."""
        wishes = {(w.avoid, w.tried, w.destination) for w in self._waiters if not w.place.done()}
        awaited = {lane.id for wish in wishes for lane in self._preferred(*wish) if not lane.direct}
        return pool.free(self._enabled, now=self._now(), awaited=awaited)

    def any_beyond(self, tried: frozenset[bytes], destination: str) -> bool:
        """Whether another relay than these is enabled that can carry mail there."""
        return any(lane.id not in tried for lane in self._for(destination))

    async def take(
        self, avoid: frozenset[bytes], tried: frozenset[bytes], destination: str
    ) -> Lane | None:
        """A place in a lane, at once or in turn; None when no enabled relay is left to try. Must
        be given back with `give_back`. Without a destination none delivers directly."""
        if not self._waiters:
            lanes = self._preferred(avoid, tried, destination)
            if not lanes:
                return None
            lane = self._choose(lanes, destination)
            if lane is not None:
                self._enter(lane, destination)
                return lane
        place: asyncio.Future[Lane | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(_Waiter(place, avoid, tried, destination))
        self._serve()
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and (given := place.result()) is not None:
                self.give_back(given, destination)
            raise

    def give_back(self, lane: Lane, destination: str) -> None:
        lane.leave(destination)
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

    def _for(self, destination: str) -> Sequence[Lane]:
        if destination or not self._direct:
            return self._enabled
        return [lane for lane in self._enabled if not lane.direct]

    def _preferred(
        self, avoid: frozenset[bytes], tried: frozenset[bytes], destination: str
    ) -> Sequence[Lane]:
        lanes = self._for(destination)
        if len(lanes) < 2 and not tried:
            return lanes
        return pool.preferred(lanes, now=self._now(), avoid=avoid, tried=tried)

    def _choose(self, lanes: Sequence[Lane], destination: str) -> Lane | None:
        if self._direct:
            lanes = [lane for lane in lanes if lane.admits(destination)]
        return pool.choose(lanes)

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
            lanes = self._preferred(waiter.avoid, waiter.tried, waiter.destination)
            lane = self._choose(lanes, waiter.destination)
            if lane is None and lanes:
                waiting.append(waiter)
                if all(lane.in_flight >= lane.cap for lane in self._enabled):
                    break
                continue
            if lane is not None:
                self._enter(lane, waiter.destination)
            waiter.place.set_result(lane)
        waiting.extend(self._waiters)
        self._waiters = waiting
