"""The face of delivery: an envelope and a way to render go in, outcomes come out."""

import random
import ssl
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import cast

import msgspec

from everpost.clock import Clock
from everpost.delivery.breaker import OPEN_FOR
from everpost.delivery.course import CONNECTS_PER_CARRY, Course
from everpost.delivery.envelope import Envelope, Render, Report
from everpost.delivery.judging import Judge
from everpost.delivery.keeping import Keeper
from everpost.delivery.lanes import Lanes
from everpost.delivery.leases import Leases
from everpost.delivery.probe import Probed, probe
from everpost.delivery.route import Reach, Router
from everpost.delivery.session import Outset
from everpost.delivery.shaping import News, Shaper
from everpost.delivery.site_feedback import SiteFeedback
from everpost.delivery.sites import Site, lone
from everpost.delivery.timeouts import TOWARDS_MX, Timeouts
from everpost.delivery.trying import CLOSING, Attempt, Means
from everpost.model.health import Health, Standing
from everpost.model.outcome import AttemptRecord, Bounced, Deferred, Outcome, Phase, Speaker
from everpost.model.pool import Pool
from everpost.model.relay import Relay
from everpost.net.resolver import Resolver
from everpost.net.streams import Misses, tls_context

__all__ = ["Carrier"]

_ANYWHERE = lone("")
_GONE = Deferred("the relay it is meant for does not exist", Phase.ROUTE, Speaker.SELF)


class Carrier:
    """Carries mail to relays over sessions that it keeps; knows no store and no composing.

    `helo` is our name; `ca_file` names authorities trusted beside the system's; `resolver` finds
    the MX hosts of destinations, `rng` mixes equal ones, `reach` bounds how many are tried. `site`
    is where this process runs: relays of the same site come first; `open_for`, the
    seconds for which a relay gets no mail after its first fault. `leases` lets another room share
    the relays' limits among processes.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        helo: str,
        resolver: Resolver,
        rng: random.Random,
        timeouts: Timeouts = Timeouts(),  # noqa: B008  frozen
        mx_timeouts: Timeouts = TOWARDS_MX,
        reach: Reach = Reach(),  # noqa: B008  frozen
        ca_file: str | None = None,
        site: str = "",
        open_for: float = OPEN_FOR,
    ) -> None:
        @cache
        def tls(verify: bool) -> ssl.SSLContext:
            return tls_context(verify=verify, ca_file=ca_file)

        self._clock = clock
        outset = Outset(clock, helo, timeouts, mx_timeouts, tls, Misses(clock.monotonic))
        self._router = Router(resolver, clock=clock, rng=rng, helo=helo, reach=reach)
        self._patience = CONNECTS_PER_CARRY * timeouts.connect
        self.shaper = Shaper()
        self._lanes = Lanes(clock, self.shaper, random=rng.random, site=site, open_for=open_for)
        self._judge = Judge(clock, self._lanes)
        self._keeper = Keeper(clock=clock, lanes=self._lanes, outset=outset, timeouts=timeouts)
        self.leases = Leases(lanes=self._lanes, keeper=self._keeper, clock=clock)
        feedback = SiteFeedback(clock, shaper=self.shaper, lanes=self._lanes, judge=self._judge)
        self._means = Means(
            clock, outset, self._router, self._lanes, self._keeper, self._judge, feedback
        )

    # --- relays and pools -------------------------------------------------------------------------

    def use(self, relays: Sequence[Relay], pools: Sequence[Pool] = ()) -> None:
        """Replace the relays and pools. Without a pool named `default` there is one of all relays.
        Sessions of relays that vanished, drain or changed finish what they carry and are closed."""
        if not self._keeper.closing:
            self._keeper.dismiss(self._lanes.use(relays, pools))
            self.leases.relays_changed()

    def ready(self, pool: str) -> bool:
        """Whether any relay of the pool is enabled, however sick."""
        balancer = self._lanes.balancer(pool)
        return balancer is not None and bool(balancer.lanes)

    def capacity(self, pool: str) -> int:
        """Transactions that could start in the pool now without waiting; some, where no relay is in
        service: `carry` answers at once then."""
        return self._lanes.free(pool)

    def direct(self, pool: str) -> bool:
        """Whether mail of the pool may go straight to its destinations, for which an envelope has
        to name one that all its recipients share."""
        balancer = self._lanes.balancer(pool)
        return balancer is not None and balancer.direct

    def most(self, pool: str) -> int | None:
        """Transactions that one destination may have at once in the pool; None: as many as there
        are."""
        balancer = self._lanes.balancer(pool)
        return None if balancer is None else balancer.most()

    # --- carrying ---------------------------------------------------------------------------------

    async def carry(
        self, envelope: Envelope, render: Render, *, before_dot: Callable[[], None]
    ) -> Report:
        """Hand a message to a relay of its pool, or to the one it is pinned to. Waits for a free
        session, first come first served.

        Never raises for what the far end or the network does. `before_dot` is called at most once,
        immediately before the bytes that hold the final dot go to the transport; what it raises
        propagates, with nothing delivered. A relay that is at fault, or lacks what the message
        needs, is left for another one, as long as nothing can have been delivered.
        """
        started = self._clock.now()
        course = Course(self._patience)
        last: Attempt | None = None
        site = await self._site(envelope)
        while not self._keeper.closing:
            lane = None
            if not course.over:
                lane = await self._lanes.take(envelope, course.tried, site)
            if lane is None:
                if self._turns_back(envelope, course):
                    continue
                break
            if isinstance(lane, Deferred):
                if last is None:
                    return self._postponed(envelope, lane, started)
                last.wait_for(lane)
                break
            course.arrived(lane.id)
            last = Attempt(self._means, lane, envelope, course, site)
            try:
                await last.make(render, before_dot)
            finally:
                last.put_back()
            if not last.elsewhere:
                break
            course.leaves(lane.relay.name, cast(Bounced | Deferred, last.outcomes[0]))
        return self._report(envelope, last, course, started)

    def _turns_back(self, envelope: Envelope, course: Course) -> bool:
        if not course.over and self._lanes.any_beyond(course.tried, envelope):
            course.out_of_service(self._nowhere(envelope))
        return course.turn_back()

    async def _site(self, envelope: Envelope) -> Site:
        """Where its mail ends up, for direct delivery: known before a place is taken, so that a
        thousand destinations of one provider do not open a thousand sessions."""
        destination = envelope.destination
        if not destination or not self._lanes.may_go_directly(envelope):
            return _ANYWHERE
        return self._router.known_site(destination) or await self._router.site(destination)

    def learn_sites(self, news: Iterable[News]) -> None:
        """What other processes found out of sites (see Shaper.news): those that wait in line for a
        site which takes nothing now go back."""
        self.shaper.learn(news, now=self._clock.now())
        self._lanes.changed()

    def _postponed(self, envelope: Envelope, outcome: Deferred, started: int) -> Report:
        record = AttemptRecord(started_at=started, ended_at=self._clock.now())
        return Report((outcome,) * len(envelope.recipients), record)

    def _report(
        self, envelope: Envelope, attempt: Attempt | None, course: Course, started: int
    ) -> Report:
        if attempt is None:
            record = AttemptRecord(started_at=started, ended_at=self._clock.now())
            refusal = self._nowhere(envelope) if course.fault is None else course.fault
            return Report((refusal,) * len(envelope.recipients), record)
        session, relay, rendered = attempt.session, attempt.lane.relay, attempt.rendered
        return Report(
            tuple(cast(Sequence[Outcome], attempt.outcomes)),  # none is None by now
            AttemptRecord(
                started_at=started,
                ended_at=self._clock.now(),
                relay=relay.name,
                relay_id=relay.id,
                host=session.far_end.name if session else None,
                peer=session.peer if session else None,
                tls=session.tls if session else None,
                timings=attempt.timings,
                form=rendered.form.value if rendered else None,
                body_hash=rendered.body_hash if rendered else None,
                transaction=envelope.transaction,
                tried=course.left[:-1] if attempt.elsewhere else course.left,
            ),
        )

    def _nowhere(self, envelope: Envelope) -> Deferred:
        if self._keeper.closing:
            return CLOSING
        if envelope.only is not None:
            return _GONE
        balancer = self._lanes.balancer(envelope.pool)
        if balancer is None:
            return Deferred(f"there is no pool {envelope.pool}", Phase.ROUTE, Speaker.SELF)
        refusal = balancer.turn_away(self._clock.monotonic(), self._clock.now())
        until = self.leases.turned_away(balancer.lanes)
        return refusal if until is None else msgspec.structs.replace(refusal, until=until)

    # --- health -----------------------------------------------------------------------------------

    def news(self) -> Sequence[Health]:
        """Circuits that changed in this process by its own evidence, since this was last asked."""
        news = self._judge.news()
        self._lanes.look()  # those in line wait for no new mail to have it done
        return news

    def learn(self, known: Iterable[Health]) -> None:
        """What other processes or probes found out of circuits."""
        self._judge.learn(known)

    def when_news(self, tell: Callable[[], None]) -> None:
        """Call `tell` whenever there is news."""
        self._judge.on_news = tell

    async def probe(self, relay: bytes, sender: str) -> Probed | None:
        """Probe a smart host, in the name of `sender`, and judge it by that. None when it is not
        there, has no place for one more connection, or delivery is closing."""
        lane = None if self._keeper.closing else await self._lanes.visit(relay)
        if lane is None:
            return None
        try:
            if self._keeper.closing:  # since a place was waited for
                return None
            probed = await probe(lane.relay, sender, self._means.outset)
        finally:
            self._lanes.visited(lane)
        self.probed(relay, probed.refusal)
        return probed

    def probed(self, relay: bytes, refusal: Deferred | None) -> None:
        """What a probe of the relay found; None: it is ready for mail. Its circuit decides what
        follows."""
        self._judge.probed(relay, refusal)

    def standing(self) -> Sequence[Standing]:
        """What this process saw of each relay in the last minute."""
        return self._judge.standing()

    # --- the end ----------------------------------------------------------------------------------

    async def close(self, *, deadline: float) -> None:
        """Take nothing more, QUIT idle sessions, wait up to `deadline` seconds for what is being
        carried, then hang up."""
        await self._keeper.close(deadline=deadline)
