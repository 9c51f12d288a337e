"""What one relay makes of an envelope: open a session or take a kept one, prepare, hand over, and
note what that says of the relay. Doing; `course` decides where the message goes next."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import msgspec

from everpost import telemetry
from everpost.clock import Clock
from everpost.delivery.course import Course
from everpost.delivery.envelope import CannotRender, Envelope, Render
from everpost.delivery.handover import HandOver, lacks
from everpost.delivery.judging import Judge, party
from everpost.delivery.keeping import Keeper
from everpost.delivery.lane import Lane
from everpost.delivery.lanes import Lanes
from everpost.delivery.route import FarEnd, Route, Router
from everpost.delivery.session import Outset, Session
from everpost.delivery.site_feedback import SiteFeedback, not_this_way
from everpost.delivery.sites import Site
from everpost.model.message import Rendered
from everpost.model.outcome import Bounced, Deferred, Outcome, Phase, Speaker
from everpost.net.streams import shown

__all__ = ["CLOSING", "Attempt", "Means"]

CLOSING = Deferred("delivery is closing", Phase.ROUTE, Speaker.SELF)

_OPENED = telemetry.counter(
    "everpost_relay_connections_total", "Sessions opened to relays", ("relay", "result")
)
_CONNECT = telemetry.histogram(
    "everpost_relay_connect_seconds", "Opening a session: connect, greet, secure, log in"
)
_SESSION = telemetry.histogram(
    "everpost_relay_session_seconds", "One transaction, from MAIL to the answer to its content"
)
_LACKING = Deferred(
    "the relay lacks what the message needs, another one may have it",
    Phase.MAIL,
    Speaker.RELAY,
    relay_fault=True,
)


@dataclass(frozen=True, slots=True)
class Means:
    """What all attempts of a carrier work with."""

    clock: Clock
    outset: Outset
    router: Router
    lanes: Lanes
    keeper: Keeper
    judge: Judge
    feedback: SiteFeedback


class Attempt:
    """What one relay made of an envelope.

    `outcomes` has one entry per recipient, none is None at the end; `elsewhere`, whether another
    relay may be tried now. `session`, `rendered` and `timings` (milliseconds) are for the record.
    """

    __slots__ = (
        "_began",
        "_course",
        "_cut",
        "_destination",
        "_envelope",
        "_far_ends",
        "_means",
        "_met",
        "_passed",
        "_sessions",
        "_site",
        "elsewhere",
        "lane",
        "outcomes",
        "rendered",
        "session",
        "timings",
    )

    def __init__(
        self, means: Means, lane: Lane, envelope: Envelope, course: Course, site: Site
    ) -> None:
        self._means = means
        self._site = site
        self._began = means.clock.now() if lane.direct else 0
        self._cut = False  # the site wants no more of us now: its other hosts are not asked
        self._envelope = envelope
        self._course = course
        self._destination = envelope.destination
        self._far_ends: list[FarEnd] | None = None  # still to be tried; None: not looked up
        self._sessions = 0  # that may yet be opened to them
        self._met = False  # any could be connected to
        self._passed: Deferred | None = None  # why the last MX host was left for the next one
        self.lane = lane
        self.session: Session | None = None
        self.outcomes: Sequence[Outcome | None] = ()
        self.rendered: Rendered | None = None
        self.timings: dict[str, float] = {}
        self.elsewhere = False

    async def make(self, render: Render, before_dot: Callable[[], None]) -> None:
        """A kept session that turns out to be dead is replaced by a fresh one, once: nothing was
        accepted on it. An MX host that takes no mail now is left for the next one."""
        means, envelope = self._means, self._envelope
        session = await self._kept()
        kept = session is not None
        if session is not None:
            self._passed = session.instead_of
        while True:
            if session is None:
                session = await self._open()
                if session is None:
                    return
            self.session = session
            means.keeper.busy.add(session)
            transaction = session.transaction(len(envelope.recipients), before_dot)
            self.outcomes = transaction.outcomes
            if not await self._prepared(session, transaction, render):
                return
            began = means.clock.monotonic()
            await session.hand_over(transaction)
            _SESSION.observe(means.clock.monotonic() - began)
            if kept and transaction.untouched:
                kept, self._passed = False, None
            else:
                self._note(transaction, began)
                if self._cut or not transaction.host_failed:
                    return
                self._pass_on(session, cast(Deferred, transaction.outcomes[0]))
                if not (self._far_ends and self._sessions):
                    return
            means.keeper.busy.discard(session)
            session.abort()
            session = None

    def put_back(self) -> None:
        """The attempt is over, however it ended: its session and its place are free."""
        self._means.keeper.put_back(self.lane, self._site, self._envelope, self.session)

    def wait_for(self, later: Deferred) -> None:
        """No other relay may go there now, which is no reason to bounce anybody for what was said
        of this one: they wait as `later` has it, unless it is a fault of this one, which may be
        over sooner."""
        self.outcomes = [
            msgspec.structs.replace(outcome, until=later.until)
            if isinstance(outcome, Deferred) and (outcome is _LACKING or not outcome.relay_fault)
            else not_this_way(outcome, later.until)
            if isinstance(outcome, Bounced)
            else outcome
            for outcome in self.outcomes
        ]

    # --- sessions ---------------------------------------------------------------------------------

    async def _kept(self) -> Session | None:
        """A session from an earlier message, unless it had its share of them (long-lived ones pin
        mail to one machine behind a balanced name): then it goes while its place is ours, so that
        it never stands beside its successor."""
        session = self.lane.warm(self._destination, self._site)
        share = self.lane.relay.messages_per_connection
        if self._site.messages is not None:
            share = min(share, self._site.messages)
        if session is None or session.transactions < share:
            return session
        busy = self._means.keeper.busy
        self.session = session
        busy.add(session)
        await session.leave()
        busy.discard(session)
        return None

    async def _open(self) -> Session | None:
        """A fresh session with the next far end that is ready for mail, or None with everybody's
        outcome set. A far end that cannot be connected to costs no session."""
        if self._far_ends is None:
            route = await self._means.router.find(self.lane.relay, self._destination)
            if not isinstance(route, Route):
                self._everybody(self._ruled_out(route))
                return None
            self._far_ends, self._sessions = list(route.far_ends), route.sessions
        self._everybody(CLOSING)
        while self._far_ends and self._sessions and not self._means.keeper.closing:
            session = await self._open_to(self._far_ends.pop(0))
            if session is not None or self.elsewhere or self._cut:
                return session
        return None

    async def _open_to(self, far_end: FarEnd) -> Session | None:
        lane, means, destination, site = self.lane, self._means, self._destination, self._site
        if lane.direct:
            means.keeper.dismiss(lane.surplus())
            await self._make_room()
        own = site.group if far_end.name in site.hosts else destination
        self.session = session = Session(
            lane.relay,
            far_end,
            means.outset,
            own if lane.direct else "",
            site=site.name if lane.direct else "",
        )
        means.keeper.busy.add(session)
        began = means.clock.monotonic()
        refusal = await session.open()
        _CONNECT.observe(means.clock.monotonic() - began)
        self.timings.update(session.timings)
        if session.peer is not None:
            self._sessions -= 1
            self._met = True
        if refusal is None:
            _OPENED.add(1, lane.relay.name, "opened")
            if lane.direct:
                means.router.reached(lane.relay, destination)
                session.instead_of = self._passed
            return session
        means.keeper.busy.discard(session)
        _OPENED.add(1, lane.relay.name, refusal.phase.value)
        self._everybody(refusal)
        if refusal.relay_fault:
            self._blame(refusal, began, session=False)
            self.elsewhere = True
            return None
        self._heed()
        if self._cut:
            return None
        self._pass_on(session, refusal)
        if not (self._far_ends or self._met or self._reaches()):
            means.router.unreachable(lane.relay, destination, refusal)
        return None

    async def _make_room(self) -> None:
        """Sessions that rest at the site go, and are gone, before one too many is opened there."""
        lane, site, busy = self.lane, self._site, self._means.keeper.busy
        there = sum(s.site == site.name and s.relay.id == lane.id for s in busy)
        leaving = lane.surplus_of(site, there)
        busy.update(leaving)
        try:
            for session in leaving:
                await session.leave()
        finally:
            busy.difference_update(leaving)
            for session in leaving:
                session.abort()

    def _everybody(self, outcome: Outcome) -> None:
        self.outcomes = (outcome,) * len(self._envelope.recipients)

    def _ruled_out(self, refusal: Bounced | Deferred) -> Bounced | Deferred:
        """What becomes of everybody when DNS names no way. Our own rules for this relay bind no
        other one: nobody bounces for them while another may carry it, or is only out of order."""
        if isinstance(refusal, Bounced) and refusal.speaker is Speaker.SELF:
            self.elsewhere = self._another_is_there()
            if self.elsewhere:
                return not_this_way(refusal, None)
            if self._course.fault is not None:
                return self._course.fault
        return refusal

    def _another_is_there(self) -> bool:
        return self._means.lanes.any_beyond(self._course.tried, self._envelope)

    def _pass_on(self, session: Session, refusal: Deferred) -> None:
        """This MX host takes no mail now: the next is its own next address, if it was a machine
        that answered (RFC 5321 §5.1), else another host."""
        self._passed = refusal
        far_end = session.far_end
        rest = tuple(a for a in far_end.addresses if shown(a, far_end.port) != session.peer)
        if session.peer is not None and rest and self._far_ends is not None:
            self._far_ends.insert(0, msgspec.structs.replace(far_end, addresses=rest))

    def _reaches(self) -> bool:
        """Whether a session to the destination is open: then its hosts live, and only want no more
        of them."""
        return any(
            s.destination in {self._destination, self._site.group}
            and s.relay.id == self.lane.id
            and s.peer
            for s in (*self._means.keeper.busy, *self.lane.idle)
        )

    # --- the transaction --------------------------------------------------------------------------

    async def _prepared(self, session: Session, transaction: HandOver, render: Render) -> bool:
        """Screen the envelope, render for this far end, build the commands; whether to go on."""
        sender, recipients = self._envelope.sender, self._envelope.recipients
        reaches = transaction.screen(sender, recipients)
        if self._left(transaction, partly=reaches) or not reaches:
            return False
        try:
            self.rendered = rendered = await render(session.extensions, session.relay)
        except CannotRender as error:
            transaction.outcomes[:] = [o or error.outcome for o in transaction.outcomes]
        else:
            if transaction.prepare(sender, recipients, rendered):
                return True
        self._left(transaction)
        return False

    def _left(self, transaction: HandOver, *, partly: bool = False) -> bool:
        """Whether the message goes to another relay, since this one lacks something for somebody;
        `partly`: not for all. When there is no other, whom it fails bounces; but if one that might
        have served them is at fault, they are deferred as it would have them."""
        course, outcomes = self._course, transaction.outcomes
        lacking = [i for i, outcome in enumerate(outcomes) if lacks(outcome)]
        if not lacking:
            return False
        if self.lane.direct:
            # The destination's own lack: nobody else makes up for it, but for a better host of its
            # own that was only not there.
            if self._passed is not None:
                for i in lacking:
                    outcomes[i] = self._passed
            return False
        if not course.back and self._another_is_there():
            if partly:
                course.could_partly(self.lane.id)
            self._everybody(_LACKING)
            self.elsewhere = True
            return True
        if course.fault is not None:
            for i in lacking:
                outcomes[i] = course.fault
        return False

    def _note(self, transaction: HandOver, began: float) -> None:
        """What the transaction says of the relay and of our time."""
        timings = self.timings
        timings["envelope"] = round(transaction.envelope_ms, 3)
        if transaction.body_ms:
            timings["body"] = round(transaction.body_ms, 3)
        if transaction.marked:
            timings["dot"] = round(transaction.dot_ms, 3)
        lane, judge = self.lane, self._means.judge
        if lane.direct:  # how a destination fares says nothing of the relay
            if transaction.host_failed:
                judge.neither(lane)
            else:
                judge.worked(lane, began=began)
            self._left(transaction)
            self._heed()
            return
        refusal = transaction.fault
        if refusal is None and transaction.relay_failed:
            refusal = next(o for o in transaction.outcomes if isinstance(o, Deferred))
        if refusal is not None:
            self._blame(refusal, began, session=True)
        elif transaction.decided:
            judge.worked(lane, began=began)
            for refused, why in self._course.refused:
                judge.disproved(refused, why)
        else:
            judge.neither(lane)
        self.elsewhere = transaction.relay_failed
        if transaction.lacking:
            self._left(transaction)

    # --- who is to blame --------------------------------------------------------------------------

    def _heed(self) -> None:
        """What a destination's host said of us."""
        assert self.session is not None
        heard = self._means.feedback.hear(
            self.outcomes,
            self.lane,
            self._site,
            host=self.session.far_end.name,
            began=self._began,
            tried=self._course.tried,
            envelope=self._envelope,
        )
        self.outcomes, self._cut, self.elsewhere = heard.outcomes, heard.cut, heard.elsewhere

    def _blame(self, refusal: Deferred, began: float, *, session: bool) -> None:
        """The relay is at fault; but a message that others have refused may be so itself."""
        means, envelope, course = self._means, self._envelope, self._course
        if session and course.refused and refusal.reply is not None:
            means.judge.neither(self.lane)
        else:
            who = party(refusal, sender=envelope.sender, recipient=envelope.recipients[0])
            means.judge.failed(self.lane, refusal, party=who, began=began)
        took = means.clock.monotonic() - began
        course.at_fault(self.lane.id, refusal, took=took, session=session)
