"""One attempt: open, compose, sign, hand over, with every step on record in the dot log.

What may stop it at the last moment (the lease, the lifetime) is asked just before the dot.
"""

from collections.abc import Callable, Sequence

from everpost import telemetry
from everpost.clock import Clock
from everpost.delivery import CannotRender, Carrier, Envelope, Render, Report
from everpost.dispatch.composing import Composing
from everpost.dispatch.dots import Dot, DotLog, Step
from everpost.dispatch.hands import Hands
from everpost.dispatch.rendering import ContentDamaged, Renderer
from everpost.dispatch.waiting import Waiting
from everpost.dispatch.work import Work
from everpost.ids import Id
from everpost.model.message import Content, Rendered
from everpost.model.outcome import (
    AttemptRecord,
    Deferred,
    Delivered,
    InDoubt,
    Outcome,
    Phase,
    Reply,
    Speaker,
    Via,
)
from everpost.model.relay import Relay
from everpost.protocol.smtp.extensions import Extensions
from everpost.store.interface import Claimed

__all__ = ["Attempts", "LeaseLost", "LifetimeOver"]

_SANDBOX = Relay(id=b"", name="sandbox", host="sandbox")
_SANDBOX_EXTENSIONS = Extensions(smtputf8=True)
_MARGIN_MS = 5_000
"""Before a claim's deadline, the last moment to send its dot."""


class LeaseLost(Exception):
    """The claim's term may have ended: the dot must not be sent."""


class LifetimeOver(Exception):
    """The message expired while it waited for its turn: it must not be sent."""


class Attempts:
    """Makes the attempts of one process."""

    def __init__(
        self,
        *,
        carrier: Carrier,
        renderer: Renderer,
        dots: DotLog,
        hands: Hands,
        waiting: Waiting,
        clock: Clock,
        ids: Callable[[], Id],
    ) -> None:
        self._carrier = carrier
        self._renderer = renderer
        self._dots = dots
        self._hands = hands
        self._waiting = waiting
        self._clock = clock
        self._ids = ids
        self._gate = Composing()

    async def make(self, work: Work) -> tuple[Sequence[Outcome], AttemptRecord]:
        """One attempt at one message: an outcome for each of its claims, and the shared record.

        Raises LeaseLost, LifetimeOver or ContentDamaged when nothing may leave any more; any other
        fault of ours is an outcome.
        """
        claimed = work.claimed
        started = self._clock.now()
        dots: list[Dot] = [(c.message, c.n, c.term) for c in claimed.claims]
        try:
            self._check_lifetime(work)
            await self._begin_composing(claimed, dots)
            try:
                content = await self._renderer.open_claimed(claimed)
                render = self._renderer.for_message(claimed, content)
                if claimed.sandbox:  # composed like all mail: a crash of that counts (F36)
                    return await self._capture(claimed, render, started)
            finally:
                self._end_composing(dots)
            return await self._hand_over(work, content, render, dots)
        except CannotRender as error:
            record = AttemptRecord(started_at=started, ended_at=self._clock.now())
            return [error.outcome] * len(claimed.claims), record
        except (LeaseLost, LifetimeOver, ContentDamaged):
            raise
        except Exception as error:  # our own fault must not strand what is in hand
            telemetry.alarm("dispatch_fault").raise_(message=claimed.message, error=repr(error))
            record = AttemptRecord(started_at=started, ended_at=self._clock.now())
            return [_own_fault(error, dotted=work.dotted)] * len(claimed.claims), record

    async def _hand_over(
        self, work: Work, content: Content, render: Render, dots: Sequence[Dot]
    ) -> tuple[Sequence[Outcome], AttemptRecord]:
        claimed = work.claimed

        async def composed(extensions: Extensions, relay: Relay) -> Rendered:
            await self._begin_composing(claimed, dots)
            try:
                return await render(extensions, relay)
            finally:
                self._end_composing(dots)

        def before_dot() -> None:
            self._check_lifetime(work)
            self._dots.mark(Step.DOT, dots)
            # Last of all, after the mark: a process that was paused beyond its lease has lost its
            # claims to another (F35).
            if self._clock.steady() >= self._deadline(work):
                raise LeaseLost
            work.dotted = True

        self._waiting.arrives(work)
        report: Report = await self._carrier.carry(
            Envelope(
                sender=content.sender.address,
                recipients=tuple(c.address for c in claimed.claims),
                transaction=self._ids(),
                destination=work.destination,
                pool=work.pool,
                only=claimed.only,
            ),
            composed,
            before_dot=before_dot,
        )
        return report.outcomes, report.record

    async def _begin_composing(self, claimed: Claimed, dots: Sequence[Dot]) -> None:
        """From here to `_end_composing` a crash of the process counts against it, which is on
        record before."""
        alone = False
        for claim in claimed.claims:
            alone = alone or claim.crashes > 0
        if not self._gate.entered(alone=alone):
            await self._gate.turn(alone=alone)
        try:
            self._dots.mark(Step.COMPOSING, dots)
        except BaseException:
            self._gate.leave()
            raise

    def _end_composing(self, dots: Sequence[Dot]) -> None:
        try:
            self._dots.mark(Step.CARRYING, dots)
        finally:
            self._gate.leave()

    def _check_lifetime(self, work: Work) -> None:
        if self._clock.now() >= work.expires_at:
            raise LifetimeOver

    def _deadline(self, work: Work) -> int:
        """When the first of its claims ends, in steady time, less a margin for the way out."""
        held = [self._hands.holds(claim) for claim in work.claimed.claims]
        return min(c.deadline if c is not None else 0 for c in held) - _MARGIN_MS

    async def _capture(
        self, claimed: Claimed, render: Render, started: int
    ) -> tuple[Sequence[Outcome], AttemptRecord]:
        """The sandbox: composed like all mail, captured instead of sent."""
        rendered = await render(_SANDBOX_EXTENSIONS, _SANDBOX)
        reply = Reply(code=250, enhanced="2.0.0", text="captured in the sandbox, not sent")
        record = AttemptRecord(
            started_at=started,
            ended_at=self._clock.now(),
            form=rendered.form.value,
            body_hash=rendered.body_hash,
        )
        return [Delivered(reply=reply, via=Via.SANDBOX)] * len(claimed.claims), record


def _own_fault(error: Exception, *, dotted: bool) -> Outcome:
    """A fault of ours in the middle of an attempt: in doubt once the dot may have left."""
    if dotted:
        return InDoubt(reason=f"An internal fault after the final dot: {type(error).__name__}")
    return Deferred(
        reason=f"An internal fault before the final dot: {type(error).__name__}",
        phase=Phase.COMPOSE,
        speaker=Speaker.SELF,
    )
