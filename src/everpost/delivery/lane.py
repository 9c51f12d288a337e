"""One relay's share of this process: room, sessions at rest, its circuit and its meter. Doing;
`breaker` and `pool` decide."""

from collections import Counter
from collections.abc import Callable, Iterable

from everpost.delivery.breaker import Circuit
from everpost.delivery.envelope import Envelope
from everpost.delivery.meter import Meter
from everpost.delivery.session import Session
from everpost.delivery.shaping import Shaper
from everpost.delivery.sites import Site
from everpost.model.health import CircuitState
from everpost.model.relay import Relay, RelayKind, RelayState

__all__ = ["Lane"]

_MAKE_ANOTHER = (
    "auth", "helo", "host", "implicit_tls", "kind", "password", "port", "source", "state", "tls",
    "username",
)  # fmt: skip


class Lane:
    """One relay: its facts for `pool`, and its idle sessions, the last used on top.

    `cap`: sessions that this process may have in flight now; `uses`: messages that it may start now
    (None: as many as it likes), one less with each; `away`: why it gets no mail for a longer while
    though its circuit is closed (None: it does). `direct`: its mail goes to each destination's own
    hosts; `busy` counts what is in flight to each site then, and `shaper` says how much that may
    be, of at most `site_cap`. `trial`: what tries a circuit that is half open now. Whoever changes
    `cap`, `uses` or `away` tells `Lanes.changed`.

    For `leases`, once there is an `urge` to call: `given`, what `uses` was when last set; `peak`,
    most in flight; `waiting`, whether somebody found no place; `leaving`, sessions that are saying
    goodbye; `ask_at`, when more may be asked for; `spent`: it is `away` because a budget is used
    up.
    """

    __slots__ = (
        "ask_at", "away", "busy", "cap", "circuit", "counted", "direct", "enabled", "faulted",
        "given", "id", "idle", "in_flight", "leaving", "meter", "peak", "relay", "shaper",
        "site_cap", "spent", "trial", "urge", "uses", "waiting", "weight",
    )  # fmt: skip

    def __init__(
        self,
        relay: Relay,
        shaper: Shaper,
        *,
        open_for: float,
        now: float,
        urge: "Callable[[Iterable[Lane]], None] | None" = None,
    ) -> None:
        self.id = relay.id
        self.shaper = shaper
        self.in_flight = 0
        self.counted = 0  # the room that its pools know of
        self.faulted = False
        self.trial: Envelope | None = None
        self.cap = self.site_cap = 0
        self.uses: int | None = None
        self.urge = urge
        self.given = self.peak = self.leaving = 0
        self.waiting = self.spent = False
        self.ask_at = 0.0
        self.away: str | None = None
        self.idle: list[Session] = []
        self.busy: Counter[str] = Counter()
        self.circuit = Circuit(open_for=open_for)  # whatever others know of it is news
        self.meter = Meter()
        self.relay = relay
        self.adopt(relay, open_for=open_for, now=now)

    def adopt(self, relay: Relay, *, open_for: float, now: float) -> list[Session]:
        """Take new settings; the idle sessions that were opened under others. What was known of a
        relay that is another one now, or was just taken into service, is forgotten."""
        if any(getattr(relay, name) != getattr(self.relay, name) for name in _MAKE_ANOTHER):
            self.circuit = Circuit(open_for=open_for, now=now)
            self.meter = Meter()
            self.faulted = False
        self.relay = relay
        self.weight = relay.weight
        if self.urge is None:
            self.cap = relay.connections
            self.site_cap = relay.destination_connections
        self.enabled = relay.state is RelayState.ENABLED
        self.direct = relay.kind is RelayKind.MX
        self.circuit.expect_probes(relay.probe and not self.direct)
        outdated = [s for s in self.idle if not self.enabled or s.relay != relay]
        self.idle = [s for s in self.idle if s not in outdated]
        return outdated

    @property
    def serves(self) -> bool:
        """Whether it may get mail at all."""
        return self.enabled and self.away is None and self.circuit.state is not CircuitState.OPEN

    @property
    def doubtful(self) -> bool:
        return self.circuit.doubtful

    def share(self, now: float) -> float:
        """The part of its weight that it may have. What is tried out has its turns like another:
        its room bounds it."""
        if self.circuit.state is CircuitState.HALF_OPEN:
            return 1.0
        return self.circuit.share(now)

    def latency(self, now: float) -> float:
        """Seconds that a transaction takes; 0: not known. How fast destinations are says nothing of
        who delivers to them."""
        if self.direct:
            return 0.0
        # What hangs tells nothing: while it does, the relay is no faster than it was.
        return self.meter.average if self.in_flight else self.meter.latency(now)

    @property
    def room(self) -> int:
        """Transactions that could start now; one at a time while its circuit is half open, beside
        what hangs from before; few at a time when it is just back. Of direct mail each site has its
        own slow start."""
        most = self.cap if self.direct else self.circuit.places(self.cap)
        free = most - self.in_flight - self.leaving
        if self.circuit.state is CircuitState.HALF_OPEN:
            free = min(free, 1) if self.trial is None else 0
        return max(free if self.uses is None else min(free, self.uses), 0)

    def most(self, site: Site) -> int:
        """Sessions that the site may ever have at once through this lane."""
        return self._share(self.site_cap or self.relay.destination_connections, site)

    def has_seat(self, site: Site) -> bool:
        """Whether it is within our share of connections, of the relay's and of the site's."""
        if self.in_flight >= self.cap:
            return False
        return not self.direct or self.busy[site.name] < self._share(self.site_cap, site)

    def _share(self, seats: int, site: Site) -> int:
        """What `seats`, our part of the connections to any site, are to one that takes fewer."""
        if site.connections is None or not seats:
            return seats
        whole = max(self.relay.destination_connections, 1)
        return min(seats, max(min(site.connections, whole) * seats // whole, 1))

    def admits(self, site: Site, now: int) -> bool:
        """Whether the site has room here at `now` (milliseconds); the lane as a whole may be
        full."""
        return not self.direct or self.shaper.admits(
            self.id, site.name, self.busy[site.name], cap=self._share(self.site_cap, site), now=now
        )

    def enter(self, site: Site, envelope: Envelope) -> None:
        self.in_flight += 1
        if self.trial is None and self.circuit.state is CircuitState.HALF_OPEN:
            self.trial = envelope
        self.peak = max(self.peak, self.in_flight)
        if self.uses is not None:
            self.uses -= 1
        if self.urge is not None and (
            self.uses == 0 or (self.in_flight >= self.cap and not self.waiting)
        ):
            self.urge((self,))
        if self.direct:
            self.busy[site.name] += 1

    def leave(self, site: Site, envelope: Envelope) -> None:
        self.in_flight -= 1
        if self.trial is envelope:
            self.trial = None
        if self.busy:  # also where it was direct only when this began
            self.busy[site.name] -= 1
            if self.busy[site.name] <= 0:
                del self.busy[site.name]

    def surplus(self) -> list[Session]:
        """Take out the idle sessions, eldest first, that a new one beside those in flight would be
        too many with."""
        over = max(self.in_flight + len(self.idle) - self.cap, 0)
        taken, self.idle = self.idle[:over], self.idle[over:]
        return taken

    def there(self) -> Counter[str]:
        """Sessions by site, at work and at rest."""
        sites = Counter(self.busy)
        sites.update(session.site for session in self.idle)
        return sites

    def crowded(self) -> list[Session]:
        """Take out the idle sessions, eldest first, of sites that have more than they may."""
        over = {site: n - self.site_cap for site, n in self.there().items() if n > self.site_cap}
        taken = []
        for session in self.idle:
            if over.get(session.site, 0) > 0:
                over[session.site] -= 1
                taken.append(session)
        self.idle = [session for session in self.idle if session not in taken]
        return taken

    def surplus_of(self, site: Site, busy: int) -> list[Session]:
        """Take out the idle sessions to a site, eldest first, that a new one beside `busy` others
        would be too many with: they count there though they rest."""
        theirs = [s for s in self.idle if s.site == site.name]
        limit = self.shaper.limit(self.id, site.name, cap=self.most(site))
        taken = theirs[: max(busy + len(theirs) + 1 - limit, 0)]
        for session in taken:
            self.idle.remove(session)
        return taken

    def warm(self, destination: str, site: Site) -> Session | None:
        """An idle session that is still good and may carry mail there, or None."""
        if self.direct:
            theirs = [s for s in self.idle if s.destination in {destination, site.group}]
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
