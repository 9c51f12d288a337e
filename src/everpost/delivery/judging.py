"""What attempts, probes and other processes say of the relays, brought to their circuits. Doing;
`breaker` decides."""

from collections.abc import Callable, Iterable, Sequence

from everpost import telemetry
from everpost.clock import Clock
from everpost.delivery.breaker import Spare, fault_of
from everpost.delivery.lane import Lane
from everpost.delivery.lanes import Lanes
from everpost.delivery.shaping import BLOCKING_MS
from everpost.model.health import CircuitState, Health, Standing
from everpost.model.outcome import Deferred, Phase, Speaker

__all__ = ["Judge"]

_COMPARE_EVERY = 5.0
"""Seconds between two looks for relays that are far slower than their like."""

_UNWELCOME_FOR = BLOCKING_MS / 1000
"""Seconds after which an address that works, and of which nobody said so again, is not called
blocked any more though it was never taken out."""


class Judge:
    """Of all lanes. `on_news` is called when there is news."""

    def __init__(self, clock: Clock, lanes: Lanes) -> None:
        self._clock = clock
        self._lanes = lanes
        self._news: dict[bytes, Lane] = {}
        self._unwelcome: dict[bytes, float] = {}  # since when, in monotonic seconds
        self._compare_at = 0.0
        self.on_news: Callable[[], None] | None = None

    # --- attempts ---------------------------------------------------------------------------------

    def worked(self, lane: Lane, *, began: float) -> None:
        """The relay did its work for a message, from `began` (monotonic seconds) until now."""
        now = self._clock.monotonic()
        lane.meter.worked(now - began, now=now)
        if lane.faulted:
            lane.faulted = False
            telemetry.event("relay.recovered", relay=lane.relay.name)
        if lane.circuit.worked(began=began, now=now):
            self._turned(lane)
        elif self._unwelcome and now - self._unwelcome.get(lane.id, now) >= _UNWELCOME_FOR:
            self._welcome(lane)
        if now >= self._compare_at:
            self._compare(now)

    def neither(self, lane: Lane) -> None:
        """An attempt that says nothing of the relay."""
        lane.meter.neither(now=self._clock.monotonic())

    def failed(self, lane: Lane, refusal: Deferred, *, party: str | None, began: float) -> None:
        """The relay failed a message, if the refusal is its own; logged once, not once a message.
        `party`: who else may be to blame."""
        fault = fault_of(refusal)
        if fault is None:
            self.neither(lane)
            return
        now = self._clock.monotonic()
        lane.meter.failed(now=now)
        if not lane.faulted:
            lane.faulted = True
            telemetry.event(
                "relay.fault", relay=lane.relay.name, phase=refusal.phase.value,
                reason=refusal.reason, reply=str(refusal.reply) if refusal.reply else None,
            )  # fmt: skip
        spare = self._lanes.spare(lane)
        if lane.circuit.failed(refusal, fault, party=party, spare=spare, began=began, now=now):
            self._turned(lane, own=refusal.speaker is not Speaker.SELF)

    def unwelcome(self, lane: Lane, sites: int) -> None:
        """So many sites refuse the lane's own address that the others should carry the mail."""
        name = lane.relay.name
        telemetry.alarm(f"source_blocked:{name}").raise_(relay=name, sites=sites)
        spare, now = self._lanes.spare(lane), self._clock.monotonic()
        self._unwelcome[lane.id] = now
        why = Deferred(f"blocked by {sites} sites", Phase.ROUTE, Speaker.DESTINATION)
        if spare is Spare.PLENTY and lane.circuit.takes_out(why, now=now):
            self._turned(lane)

    def disproved(self, relay: bytes, refusal: Deferred) -> None:
        """Another relay took what this one had refused."""
        lane, now = self._lanes.lane(relay), self._clock.monotonic()
        if lane is not None and lane.circuit.disproved(
            refusal, spare=self._lanes.spare(lane), now=now
        ):
            self._turned(lane)

    def _compare(self, now: float) -> None:
        self._compare_at = now + _COMPARE_EVERY
        for balancer in tuple(self._lanes.balancers()):
            lane = balancer.laggard(now)
            if lane is None or self._lanes.spare(lane) is Spare.FLOOR:
                continue
            why = f"far slower than the others: {lane.meter.average:.1f} s a message"
            if lane.circuit.takes_out(Deferred(why, Phase.DOT, Speaker.RELAY), now=now):
                lane.meter.forget()
                self._turned(lane)

    # --- probes and other processes ---------------------------------------------------------------

    def probed(self, relay: bytes, refusal: Deferred | None) -> None:
        """What a probe found."""
        lane = self._lanes.lane(relay)
        if lane is not None:
            spare, now = self._lanes.spare(lane), self._clock.monotonic()
            if lane.circuit.probed(refusal, spare=spare, now=now):
                self._turned(lane)
            else:
                self._lanes.changed(lane)  # an open one may be due sooner now

    def news(self) -> Sequence[Health]:
        """Circuits that changed here, by our own evidence, since this was last asked."""
        if not self._news:
            return ()
        news, self._news = self._news, {}
        now, wall = self._clock.monotonic(), self._clock.now()
        return [lane.circuit.health(id_, now=now, wall=wall) for id_, lane in news.items()]

    def learn(self, known: Iterable[Health]) -> None:
        """What others found out."""
        now, wall = self._clock.monotonic(), self._clock.now()
        for health in known:
            lane = self._lanes.lane(health.relay)
            if lane is not None and lane.circuit.learn(health, now=now, wall=wall):
                self._turned(lane, own=False)

    def standing(self) -> Sequence[Standing]:
        """What this process saw of each relay in the last minute."""
        now, wall = self._clock.monotonic(), self._clock.now()
        found: list[Standing] = []
        for lane in self._lanes:
            tried, worked, faults = lane.meter.counts(now)
            last = lane.meter.worked_at
            found.append(
                Standing(
                    relay=lane.id,
                    tried=tried,
                    worked=worked,
                    faults=faults,
                    worked_at=None if last is None else wall - int((now - last) * 1000),
                    in_flight=lane.in_flight,
                    sessions=lane.in_flight + len(lane.idle),
                    latency_ms=lane.meter.percentiles(now) if worked else {},
                )
            )
        return found

    def _turned(self, lane: Lane, *, own: bool = True) -> None:
        """The lane's circuit has changed."""
        circuit = lane.circuit
        if circuit.state is CircuitState.CLOSED and lane.id in self._unwelcome:
            self._welcome(lane)
        if own:
            self._news[lane.id] = lane
            if self.on_news is not None:
                self.on_news()
        telemetry.event(
            "relay.circuit", relay=lane.relay.name, state=circuit.state.value, why=circuit.why,
            ejections=circuit.ejections,
        )  # fmt: skip
        self._lanes.changed(lane)

    def _welcome(self, lane: Lane) -> None:
        del self._unwelcome[lane.id]
        telemetry.alarm(f"source_blocked:{lane.relay.name}").clear()


def party(refusal: Deferred, *, sender: str, recipient: str) -> str | None:
    """Who else than the relay a refusal may be about: the sender's domain at MAIL, later the first
    recipient's; nobody, where it is our own lack."""
    if refusal.speaker is Speaker.SELF:
        return None
    address = sender if refusal.phase is Phase.MAIL else recipient
    return address.rpartition("@")[2]
