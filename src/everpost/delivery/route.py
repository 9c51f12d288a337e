"""Which far ends an attempt may go to: one for a smart host, those that DNS names for a
destination. Doing: asks the resolver; `mx` decides.

A destination whose hosts could none be connected to is remembered for a moment, so that a thousand
waiting messages do not each wait for the same dead hosts. The site of a destination is remembered
for minutes: it is asked for before a message takes a place.
"""

import asyncio
import random
from collections import OrderedDict
from dataclasses import dataclass

import msgspec

from everpost.clock import Clock
from everpost.delivery import mx
from everpost.delivery.sites import Site, lone, site_of
from everpost.model.outcome import Bounced, Deferred, Via
from everpost.model.relay import Relay, RelayKind
from everpost.net.resolver import Resolver, Unresolved

__all__ = ["FarEnd", "Reach", "Route", "Router"]

DEAD_FOR = 30.0
"""Seconds for which a dead destination is not tried again: less than a message's own first pause,
so that its second attempt finds out anew."""

_HOSTS_AT_ONCE = 3
_HOSTS_AT_MOST = 9
"""Hosts of a destination whose addresses are looked up. More are a mistake or an attack (F63)."""
_REMEMBERED = 10_000
_SITE_FOR = (60.0, 300.0)
"""Seconds for which a destination's site is remembered: the records' own time, within these."""
_UNKNOWN_FOR = 5.0


class FarEnd(msgspec.Struct, frozen=True):
    """What a session connects to. `name` is what its certificate must say and the record shows;
    without `addresses` the system's resolver looks it up."""

    name: str
    port: int
    addresses: tuple[str, ...] = ()
    via: Via = Via.RELAY


@dataclass(frozen=True, slots=True)
class Reach:
    """How far one attempt goes on its way to a destination: addresses it connects to and sessions
    it opens, at most (Postfix's smtp_mx_address_limit and smtp_mx_session_limit)."""

    addresses: int = 5
    sessions: int = 2


@dataclass(frozen=True, slots=True)
class Route:
    """The far ends in order, and how many sessions may be opened to them."""

    far_ends: tuple[FarEnd, ...]
    sessions: int = 1


class Router:
    """Finds the way. `helo` is our name where a relay has none of its own."""

    def __init__(
        self, resolver: Resolver, *, clock: Clock, rng: random.Random, helo: str, reach: Reach
    ) -> None:
        self._resolver = resolver
        self._clock = clock
        self._rng = rng
        self._helo = helo
        self._reach = reach
        self._dead: OrderedDict[tuple[bytes, str], tuple[float, Deferred]] = OrderedDict()
        self._sites: OrderedDict[str, tuple[float, Site]] = OrderedDict()

    def known_site(self, destination: str) -> Site | None:
        """The destination's site, if it was asked for lately."""
        known = self._sites.get(destination)
        if known is None or known[0] <= self._clock.monotonic():
            return None
        return known[1]

    async def site(self, destination: str) -> Site:
        """The destination's site, asked of DNS; the destination itself while DNS does not tell."""
        answer = await self._resolver.lookup(destination, "MX")
        known = mx.exchanges(destination, answer, shuffle=lambda _: None)
        found = site_of(known) if isinstance(known, mx.Exchanges) else lone(destination)
        shortest, longest = _SITE_FOR
        hold = (
            min(max(answer.ttl, shortest), longest)
            if not isinstance(answer, Unresolved)
            else (_UNKNOWN_FOR)
        )
        self._sites.pop(destination, None)
        self._sites[destination] = (self._clock.monotonic() + hold, found)
        if len(self._sites) > _REMEMBERED:
            self._sites.popitem(last=False)
        return found

    async def find(self, relay: Relay, destination: str) -> Route | Bounced | Deferred:
        """The far ends of this relay for a destination, or what becomes of its recipients."""
        if relay.kind is not RelayKind.MX:
            return Route((FarEnd(relay.host, relay.port),))
        dead = self._dead.get((relay.id, destination))
        if dead is not None:
            if dead[0] > self._clock.monotonic():
                return dead[1]
            del self._dead[relay.id, destination]
        known = mx.exchanges(
            destination,
            await self._resolver.lookup(destination, "MX"),
            shuffle=self._rng.shuffle,
        )
        if not isinstance(known, mx.Exchanges):
            return known
        ours = mx.Ours(
            names=frozenset({self._helo.lower(), (relay.helo or self._helo).lower()}),
            addresses=frozenset(relay.source),
            sources=relay.source,
            private=relay.allow_private,
            most=self._reach.addresses,
        )
        hosts = mx.plan(known, await self._answers(known, ours), ours, shuffle=self._rng.shuffle)
        if not isinstance(hosts, tuple):
            return hosts
        far_ends = (FarEnd(host.name, relay.port, host.addresses, Via.MX) for host in hosts)
        return Route(tuple(far_ends), self._reach.sessions)

    async def _answers(self, known: mx.Exchanges, ours: mx.Ours) -> dict[str, mx.HostAnswers]:
        """Addresses of the first hosts, some at once, until the plan has enough of them."""
        answers: dict[str, mx.HostAnswers] = {}
        names = [one.host for one in known.hosts[:_HOSTS_AT_MOST]]
        for at in range(0, len(names), _HOSTS_AT_ONCE):
            some = names[at : at + _HOSTS_AT_ONCE]
            found = await asyncio.gather(*(self._host(name) for name in some))
            answers.update(zip(some, found, strict=True))
            if mx.enough(known, answers, ours):
                break
        return answers

    async def _host(self, name: str) -> mx.HostAnswers:
        a, aaaa = await asyncio.gather(
            self._resolver.lookup(name, "A"), self._resolver.lookup(name, "AAAA")
        )
        return mx.HostAnswers(a, aaaa)

    def reached(self, relay: Relay, destination: str) -> None:
        """One of its hosts is ready for mail."""
        if self._dead:
            self._dead.pop((relay.id, destination), None)

    def unreachable(self, relay: Relay, destination: str, refusal: Deferred) -> None:
        """None of its hosts could be connected to."""
        again = msgspec.structs.replace(
            refusal, reason=f"not tried, a moment ago no host answered: {refusal.reason}"
        )
        self._dead.pop((relay.id, destination), None)
        self._dead[relay.id, destination] = (self._clock.monotonic() + DEAD_FOR, again)
        if len(self._dead) > _REMEMBERED:
            self._dead.popitem(last=False)
