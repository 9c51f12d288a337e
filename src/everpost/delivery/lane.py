"""One relay's share of this process: its facts for `pool`, and its sessions at rest."""

from collections import Counter
from collections.abc import Callable, Iterable

from everpost import telemetry
from everpost.delivery.session import Session
from everpost.model.outcome import Deferred
from everpost.model.relay import Relay, RelayKind, RelayState

__all__ = ["Lane"]


class Lane:
    """One relay: its facts for `pool`, and its idle sessions, the last used on top.

    `cap`: sessions that this process may have in flight now; `uses`: messages that it may start now
    (None: as many as it likes), one less with each. `direct`: its mail goes to each destination's
    own hosts; `busy` counts what is in flight to each then.
    """

    __slots__ = (
        "ask_at",
        "busy",
        "cap",
        "direct",
        "enabled",
        "faulted_at",
        "given",
        "id",
        "idle",
        "in_flight",
        "leaving",
        "peak",
        "relay",
        "site_cap",
        "spent",
        "turn",
        "urge",
        "uses",
        "waiting",
        "weight",
    )

    def __init__(
        self, relay: Relay, *, urge: "Callable[[Iterable[Lane]], None] | None" = None
    ) -> None:
        self.id = relay.id
        self.in_flight = 0
        self.faulted_at: float | None = None
        self.turn = 0
        self.uses: int | None = None
        self.cap = self.site_cap = 0
        self.urge = urge
        self.given = self.peak = self.leaving = 0
        self.waiting = self.spent = False
        self.ask_at = 0.0
        self.idle: list[Session] = []
        self.busy: Counter[str] = Counter()
        self.adopt(relay)

    def adopt(self, relay: Relay) -> list[Session]:
        """Take new settings; the idle sessions that were opened under others."""
        self.relay = relay
        self.weight = relay.weight
        if self.urge is None:
            self.cap = relay.connections
            self.site_cap = relay.destination_connections
        self.enabled = relay.state is RelayState.ENABLED
        self.direct = relay.kind is RelayKind.MX
        outdated = [s for s in self.idle if not self.enabled or s.relay != relay]
        self.idle = [s for s in self.idle if s not in outdated]
        return outdated

    @property
    def room(self) -> int:
        """Transactions that could start now."""
        free = self.cap - self.in_flight - self.leaving
        return max(free if self.uses is None else min(free, self.uses), 0)

    def admits(self, destination: str) -> bool:
        """Whether the destination has room here; the lane as a whole may be full."""
        return not self.direct or self.busy[destination] < self.site_cap

    def enter(self, destination: str) -> None:
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        if self.uses is not None:
            self.uses -= 1
        if self.urge is not None and (self.in_flight >= self.cap or self.uses == 0):
            self.urge((self,))
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
