"""The face of delivery: an envelope and a way to render go in, outcomes come out."""

import asyncio
import random
import ssl
from collections.abc import Callable, Sequence
from functools import cache
from typing import cast

import msgspec

from everpost import telemetry
from everpost.clock import Clock
from everpost.delivery.course import Course
from everpost.delivery.envelope import CannotRender, Envelope, Render, Report
from everpost.delivery.handover import HandOver, lacks
from everpost.delivery.lanes import Lane, Lanes
from everpost.delivery.route import FarEnd, Reach, Route, Router
from everpost.delivery.session import Outset, Session
from everpost.delivery.timeouts import TOWARDS_MX, Timeouts
from everpost.model.message import Rendered
from everpost.model.outcome import AttemptRecord, Bounced, Deferred, Outcome, Phase, Speaker
from everpost.model.relay import Relay
from everpost.net.resolver import Resolver
from everpost.net.streams import Misses, shown, tls_context

__all__ = ["Carrier"]

TRANSACTIONS_PER_SESSION = 1000
"""Then the session is replaced: long-lived ones pin mail to one machine behind a balanced name."""

_OPENED = telemetry.counter(
    "everpost_relay_connections_total", "Sessions opened to relays", ("relay", "result")
)
_CONNECT = telemetry.histogram(
    "everpost_relay_connect_seconds", "Opening a session: connect, greet, secure, log in"
)
_SESSION = telemetry.histogram(
    "everpost_relay_session_seconds", "One transaction, from MAIL to the answer to its content"
)
_CLOSING = Deferred("delivery is closing", Phase.ROUTE, Speaker.SELF)
_NO_RELAY = Deferred("no relay is enabled", Phase.ROUTE, Speaker.SELF)
_LACKING = Deferred(
    "the relay lacks what the message needs, another one may have it",
    Phase.MAIL,
    Speaker.RELAY,
    relay_fault=True,
)


class _Attempt:
    """What one relay made of an envelope. `far_ends` are those still to be tried, None until they
    are looked up; `sessions`, how many may yet be opened to them; `met`, whether any could be
    connected to; `passed`, why the last MX host was left for the next one."""

    __slots__ = (
        "course",
        "destination",
        "elsewhere",
        "far_ends",
        "lane",
        "met",
        "outcomes",
        "passed",
        "recipients",
        "rendered",
        "session",
        "sessions",
        "timings",
    )

    def __init__(self, lane: Lane, recipients: int, course: Course, destination: str) -> None:
        self.lane = lane
        self.course = course
        self.destination = destination
        self.far_ends: list[FarEnd] | None = None
        self.sessions = 0
        self.met = False
        self.passed: Deferred | None = None
        self.recipients = recipients
        self.session: Session | None = None
        self.outcomes: Sequence[Outcome | None] = ()
        self.rendered: Rendered | None = None
        self.timings: dict[str, float] = {}
        self.elsewhere = False


class Carrier:
    """Carries mail to relays over sessions that it keeps; knows no store and no composing.

    `helo` is our name; `ca_file` names authorities trusted beside the system's; `resolver` finds
    the MX hosts of destinations, `rng` mixes equal ones, `reach` bounds how many are tried.
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
    ) -> None:
        @cache
        def tls(verify: bool) -> ssl.SSLContext:
            return tls_context(verify=verify, ca_file=ca_file)

        self._clock = clock
        self._timeouts = timeouts
        self._outset = Outset(clock, helo, timeouts, mx_timeouts, tls, Misses(clock.monotonic))
        self._router = Router(resolver, clock=clock, rng=rng, helo=helo, reach=reach)
        self._lanes = Lanes(clock.monotonic)
        self._busy: set[Session] = set()
        self._farewells: set[asyncio.Task[None]] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._closing = False
        self._all_back = asyncio.Event()

    # --- relays -----------------------------------------------------------------------------------

    def use(self, relays: Sequence[Relay]) -> None:
        """Replace the set of relays. Sessions of relays that vanished, drain or changed finish what
        they carry and are closed."""
        if not self._closing:
            self._dismiss(self._lanes.use(relays))

    def ready(self) -> bool:
        """Whether any relay is enabled."""
        return self._lanes.ready

    def capacity(self) -> int:
        """Transactions that could start now without waiting."""
        return self._lanes.free()

    @property
    def direct(self) -> bool:
        """Whether mail may go straight to its destinations, for which an envelope has to name one
        that all its recipients share."""
        return self._lanes.direct

    def most(self) -> int | None:
        """Transactions that one destination may have at once; None: as many as there are."""
        return self._lanes.most()

    # --- carrying ---------------------------------------------------------------------------------

    async def carry(
        self, envelope: Envelope, render: Render, *, before_dot: Callable[[], None]
    ) -> Report:
        """Hand a message to a relay. Waits for a free session, first come first served.

        Never raises for what the far end or the network does. `before_dot` is called at most once,
        immediately before the bytes that hold the final dot go to the transport; what it raises
        propagates, with nothing delivered. A relay that is at fault, or lacks what the message
        needs, is left for another one, as long as nothing can have been delivered.
        """
        started = self._clock.now()
        course = Course()
        last: _Attempt | None = None
        while not self._closing:
            lane = None
            if not course.over:
                lane = await self._lanes.take(envelope.avoid, course.tried, envelope.destination)
            if lane is None:
                if course.turn_back():
                    continue
                break
            course.arrived(lane.id)
            last = _Attempt(lane, len(envelope.recipients), course, envelope.destination)
            try:
                await self._try(last, envelope, render, before_dot)
            finally:
                self._put_back(last)
            if not last.elsewhere:
                break
        return self._report(envelope, last, started)

    async def _try(
        self,
        attempt: _Attempt,
        envelope: Envelope,
        render: Render,
        before_dot: Callable[[], None],
    ) -> None:
        """One relay. A kept session that turns out to be dead is replaced by a fresh one, once:
        nothing was accepted on it. An MX host that takes no mail now is left for the next one."""
        lane = attempt.lane
        session = lane.warm(attempt.destination)
        if session is not None and session.transactions >= TRANSACTIONS_PER_SESSION:
            # It goes while its place is ours, so that it never stands beside its successor.
            attempt.session = session
            self._busy.add(session)
            await session.leave()
            self._busy.discard(session)
            session = None
        kept = session is not None
        if session is not None:
            attempt.passed = session.instead_of
        while True:
            if session is None:
                session = await self._open(attempt)
                if session is None:
                    return
            attempt.session = session
            self._busy.add(session)
            transaction = session.transaction(len(envelope.recipients), before_dot)
            attempt.outcomes = transaction.outcomes
            if not await self._prepared(attempt, transaction, envelope, render):
                return
            began = self._clock.monotonic()
            await session.hand_over(transaction)
            _SESSION.observe(self._clock.monotonic() - began)
            if kept and transaction.untouched:
                kept, attempt.passed = False, None
            else:
                self._note(attempt, transaction)
                if not transaction.host_failed:
                    return
                self._pass_on(attempt, session, cast(Deferred, transaction.outcomes[0]))
                if not (attempt.far_ends and attempt.sessions):
                    return
            self._busy.discard(session)
            session.abort()
            session = None

    async def _open(self, attempt: _Attempt) -> Session | None:
        """A fresh session with the next far end that is ready for mail, or None with everybody's
        outcome set. A far end that cannot be connected to costs no session."""
        lane = attempt.lane
        if attempt.far_ends is None:
            route = await self._router.find(lane.relay, attempt.destination)
            if not isinstance(route, Route):
                attempt.outcomes = (route,) * attempt.recipients
                attempt.elsewhere = self._forbids(attempt, route)
                return None
            attempt.far_ends, attempt.sessions = list(route.far_ends), route.sessions
        attempt.outcomes = (_CLOSING,) * attempt.recipients
        while attempt.far_ends and attempt.sessions and not self._closing:
            far_end = attempt.far_ends.pop(0)
            if lane.direct:
                self._dismiss(lane.surplus())
            attempt.session = session = Session(
                lane.relay, far_end, self._outset, attempt.destination if lane.direct else ""
            )
            self._busy.add(session)
            began = self._clock.monotonic()
            refusal = await session.open()
            _CONNECT.observe(self._clock.monotonic() - began)
            attempt.timings.update(session.timings)
            if session.peer is not None:
                attempt.sessions -= 1
                attempt.met = True
            if refusal is None:
                _OPENED.add(1, lane.relay.name, "opened")
                if lane.direct:
                    self._router.reached(lane.relay, attempt.destination)
                    session.instead_of = attempt.passed
                return session
            self._busy.discard(session)
            _OPENED.add(1, lane.relay.name, refusal.phase.value)
            attempt.outcomes = (refusal,) * attempt.recipients
            if refusal.relay_fault:
                self._blame(attempt, refusal)
                attempt.elsewhere = True
                return None
            self._pass_on(attempt, session, refusal)
            if not (attempt.far_ends or attempt.met or self._reaches(attempt)):
                self._router.unreachable(lane.relay, attempt.destination, refusal)
        return None

    def _forbids(self, attempt: _Attempt, refusal: Bounced | Deferred) -> bool:
        """Whether only our own rules for this relay stand in the way, which bind no other one."""
        return (
            isinstance(refusal, Bounced)
            and refusal.speaker is Speaker.SELF
            and self._lanes.any_beyond(attempt.course.tried, attempt.destination)
        )

    @staticmethod
    def _pass_on(attempt: _Attempt, session: Session, refusal: Deferred) -> None:
        """This MX host takes no mail now: the next is its own next address, if it was a machine
        that answered (RFC 5321 §5.1), else another host."""
        attempt.passed = refusal
        far_end = session.far_end
        rest = tuple(a for a in far_end.addresses if shown(a, far_end.port) != session.peer)
        if session.peer is not None and rest and attempt.far_ends is not None:
            attempt.far_ends.insert(0, msgspec.structs.replace(far_end, addresses=rest))

    def _reaches(self, attempt: _Attempt) -> bool:
        """Whether a session to the destination is open: then its hosts live, and only want no more
        of them."""
        return any(
            s.destination == attempt.destination and s.relay.id == attempt.lane.id and s.peer
            for s in (*self._busy, *attempt.lane.idle)
        )

    def _blame(self, attempt: _Attempt, refusal: Deferred) -> None:
        attempt.lane.failed(refusal, now=self._clock.monotonic())
        attempt.course.at_fault(refusal)

    async def _prepared(
        self, attempt: _Attempt, transaction: HandOver, envelope: Envelope, render: Render
    ) -> bool:
        """Screen the envelope, render for this far end, build the commands; whether to go on."""
        session = attempt.session
        assert session is not None
        reaches = transaction.screen(envelope.sender, envelope.recipients)
        if self._left(attempt, transaction, partly=reaches) or not reaches:
            return False
        try:
            attempt.rendered = rendered = await render(session.extensions, session.relay)
        except CannotRender as error:
            transaction.outcomes[:] = [o or error.outcome for o in transaction.outcomes]
        else:
            if transaction.prepare(envelope.sender, envelope.recipients, rendered):
                return True
        self._left(attempt, transaction)
        return False

    def _left(self, attempt: _Attempt, transaction: HandOver, *, partly: bool = False) -> bool:
        """Whether the message goes to another relay, since this one lacks something for somebody;
        `partly`: not for all. When there is no other, whom it fails bounces; but if one that might
        have served them is at fault, they are deferred as it would have them."""
        course, outcomes = attempt.course, transaction.outcomes
        lacking = [i for i, outcome in enumerate(outcomes) if lacks(outcome)]
        if not lacking:
            return False
        if attempt.lane.direct:
            # The destination's own lack: nobody else makes up for it, but for a better host of its
            # own that was only not there.
            if attempt.passed is not None:
                for i in lacking:
                    outcomes[i] = attempt.passed
            return False
        if not course.back and self._lanes.any_beyond(course.tried, attempt.destination):
            if partly:
                course.could_partly(attempt.lane.id)
            attempt.outcomes = (_LACKING,) * attempt.recipients
            attempt.elsewhere = True
            return True
        if course.fault is not None:
            for i in lacking:
                outcomes[i] = course.fault
        return False

    def _note(self, attempt: _Attempt, transaction: HandOver) -> None:
        """What the transaction says of the relay and of our time."""
        timings = attempt.timings
        timings["envelope"] = round(transaction.envelope_ms, 3)
        if transaction.body_ms:
            timings["body"] = round(transaction.body_ms, 3)
        if transaction.marked:
            timings["dot"] = round(transaction.dot_ms, 3)
        lane = attempt.lane
        if lane.direct:  # how a destination fares says nothing of the relay
            if lane.faulted_at is not None:
                lane.worked()
            self._left(attempt, transaction)
            return
        refusal = transaction.fault
        if refusal is None and transaction.relay_failed:
            refusal = next(o for o in transaction.outcomes if isinstance(o, Deferred))
        if refusal is not None:
            self._blame(attempt, refusal)
        elif lane.faulted_at is not None and transaction.decided:
            lane.worked()
        attempt.elsewhere = transaction.relay_failed
        if transaction.lacking:
            self._left(attempt, transaction)

    def _report(self, envelope: Envelope, attempt: _Attempt | None, started: int) -> Report:
        if attempt is None:
            record = AttemptRecord(started_at=started, ended_at=self._clock.now())
            nowhere = _CLOSING if self._closing else _NO_RELAY
            return Report((nowhere,) * len(envelope.recipients), record)
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
            ),
        )

    # --- sessions at rest -------------------------------------------------------------------------

    def _put_back(self, attempt: _Attempt) -> None:
        """The attempt is over: its session waits for more, or ends; its place is free."""
        session = attempt.session
        if session is not None:
            self._busy.discard(session)
            if not self._closing and self._lanes.keep(attempt.lane, session):
                session.idle_since = self._clock.monotonic()
                if self._sweep is None:
                    self._sweep_in(self._timeouts.idle)
            elif session.usable:
                self._dismiss([session])
            else:
                session.abort()
        self._lanes.give_back(attempt.lane, attempt.destination)
        if self._closing and not self._busy:
            self._all_back.set()

    def _sweep_in(self, seconds: float) -> None:
        self._sweep = asyncio.get_running_loop().call_later(seconds, self._close_idle)

    def _close_idle(self) -> None:
        self._sweep = None
        now = self._clock.monotonic()
        stale, eldest = self._lanes.idle_before(now - self._timeouts.idle)
        self._dismiss(stale)
        if eldest is not None:
            self._sweep_in(max(eldest + self._timeouts.idle - now, 0.01))

    def _dismiss(self, sessions: Sequence[Session]) -> None:
        """QUIT and close, without anybody waiting for it."""
        for session in sessions:
            task = asyncio.get_running_loop().create_task(session.quit())
            self._farewells.add(task)
            task.add_done_callback(self._farewells.discard)

    async def close(self, *, deadline: float) -> None:
        """Take nothing more, QUIT idle sessions, wait up to `deadline` seconds for what is being
        carried, then hang up."""
        self._closing = True
        self._dismiss(self._lanes.use(()))
        if self._sweep is not None:
            self._sweep.cancel()
        if self._busy:
            try:
                async with asyncio.timeout(deadline):
                    await self._all_back.wait()
            except TimeoutError:
                for session in self._busy:
                    session.abort()
        try:
            async with asyncio.timeout(2 * self._timeouts.quit):
                await asyncio.gather(*self._farewells)
                await asyncio.gather(*(open_.gone() for open_ in self._outset.open))
        except TimeoutError:
            for conversation in self._outset.open:
                conversation.abort()
