"""Who may use which relay now: room, turns and idle sessions. Doing; `pool` decides.

A *lane* is one relay's share of this process: at most `cap` sessions in flight, those that wait for
work kept for a while. Whoever finds no room waits in line, first come first served.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from everpost import telemetry
from everpost.delivery import pool
from everpost.delivery.session import Session
from everpost.model.outcome import Deferred
from everpost.model.relay import Relay, RelayState

__all__ = ["Lane", "Lanes"]


class Lane:
    """One relay: its facts for `pool`, and its idle sessions, the last used on top."""

    __slots__ = (
        "cap",
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
        self.adopt(relay)

    def adopt(self, relay: Relay) -> list[Session]:
        """Take new settings; the idle sessions that were opened under others."""
        self.relay = relay
        self.weight = relay.weight
        self.cap = relay.connections
        self.enabled = relay.state is RelayState.ENABLED
        outdated = [s for s in self.idle if not self.enabled or s.relay != relay]
        self.idle = [s for s in self.idle if s not in outdated]
        return outdated

    def warm(self) -> Session | None:
        """An idle session that is still good, or None."""
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
    __slots__ = ("avoid", "place", "tried")

    def __init__(
        self, place: "asyncio.Future[Lane | None]", avoid: frozenset[bytes], tried: frozenset[bytes]
    ) -> None:
        self.place = place
        self.avoid = avoid
        self.tried = tried


class Lanes:
    """All relays. `now` gives monotonic seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lanes: dict[bytes, Lane] = {}
        self._enabled: Sequence[Lane] = ()
        self._waiters: deque[_Waiter] = deque()
        self._turns = 0

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
        self._serve()
        return left

    @property
    def ready(self) -> bool:
        return bool(self._enabled)

    def free(self) -> int:
        """Places that could be taken now: those that nobody in line could use."""
        wishes = {(w.avoid, w.tried) for w in self._waiters if not w.place.done()}
        awaited = {lane.id for wish in wishes for lane in self._preferred(*wish)}
        return pool.free(self._enabled, now=self._now(), awaited=awaited)

    def any_beyond(self, tried: frozenset[bytes]) -> bool:
        """Whether another relay than these is enabled."""
        return any(lane.id not in tried for lane in self._enabled)

    async def take(self, avoid: frozenset[bytes], tried: frozenset[bytes]) -> Lane | None:
        """A place in a lane, at once or in turn; None when no enabled relay is left to try. Must
        be given back with `give_back`."""
        if not self._waiters:
            lanes = self._preferred(avoid, tried)
            if not lanes:
                return None
            lane = pool.choose(lanes)
            if lane is not None:
                self._enter(lane)
                return lane
        place: asyncio.Future[Lane | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(_Waiter(place, avoid, tried))
        self._serve()
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and (given := place.result()) is not None:
                self.give_back(given)
            raise

    def give_back(self, lane: Lane) -> None:
        lane.in_flight -= 1
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

    def _preferred(self, avoid: frozenset[bytes], tried: frozenset[bytes]) -> Sequence[Lane]:
        if len(self._enabled) < 2 and not tried:
            return self._enabled
        return pool.preferred(self._enabled, now=self._now(), avoid=avoid, tried=tried)

    def _enter(self, lane: Lane) -> None:
        lane.in_flight += 1
        self._turns += 1
        lane.turn = self._turns

    def _serve(self) -> None:
        """Give places to those in line; one who can only use a full lane lets others pass."""
        waiting: deque[_Waiter] = deque()
        while self._waiters:
            waiter = self._waiters.popleft()
            if waiter.place.done():  # cancelled
                continue
            lanes = self._preferred(waiter.avoid, waiter.tried)
            lane = pool.choose(lanes)
            if lane is None and lanes:
                waiting.append(waiter)
                if all(lane.in_flight >= lane.cap for lane in self._enabled):
                    break
                continue
            if lane is not None:
                self._enter(lane)
            waiter.place.set_result(lane)
        waiting.extend(self._waiters)
        self._waiters = waiting
