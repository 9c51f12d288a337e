"""One SMTP transaction, from MAIL to the answer to the final dot, as a script without I/O.

Where a conversation is cut decides what its recipients get: before the final dot nothing was
delivered, so they are deferred; after it, whoever was accepted is in doubt. `before_dot` stands
exactly between the two.
"""

from collections.abc import Callable, Generator
from typing import TypeGuard

from everpost.delivery.classify import classify
from everpost.delivery.timeouts import Timeouts
from everpost.model.message import Form, Rendered
from everpost.model.outcome import (
    Bounced,
    Deferred,
    Delivered,
    Failed,
    InDoubt,
    Outcome,
    Phase,
    Reply,
    Speaker,
    Via,
)
from everpost.net.conversation import Garbled, Interrupted, Step
from everpost.protocol.smtp import client
from everpost.protocol.smtp.extensions import Extensions
from everpost.protocol.smtp.replies import Reply as WireReply

__all__ = ["HandOver", "lacks", "said"]

BLOCK = 64 * 1024
"""Octets of one write. What fits into one goes out in one, its final dot with it."""

CHUNKED_FROM = 128 * 1024
"""Octets from which BDAT is used where offered: it spares a copy for dot-stuffing. Below, DATA
costs the same round trips when pipelined, and is what every server is best tested with. BDAT is
never sent together with MAIL, though that would spare one more round trip: a session that had died
meanwhile would then leave the message in doubt, where now it is simply sent again."""

MAX_TEXT = 2000
"""Characters of an answer that are kept."""

Replies = Generator[Step, list[WireReply], None]


def said(reply: WireReply) -> Reply:
    """An answer from the wire in the model's words, bounded for storage."""
    return Reply(reply.code, reply.text[:MAX_TEXT], reply.enhanced)


class HandOver:
    """The transaction of one message with some recipients in one session.

    Use: `prepare` once the bytes are known, run `script` if it says so, read `outcomes`.
    `outcomes` has one entry per recipient, none is None at the end. `cut` is what interrupted the
    script, if anything did; `fault`, that or a 421, as a deferral; `marked`, whether the final dot
    may have left; `dirty`, whether the next transaction of the session has to begin with RSET.
    `envelope_ms`, `body_ms` and `dot_ms` are milliseconds.
    """

    __slots__ = (
        "_accepted", "_asked", "_before_dot", "_chunked", "_content", "_ends", "_extensions",
        "_go", "_group", "_head", "_left", "_mail_code", "_now", "_rcpts", "_reset", "_since",
        "_timeouts", "_via",
        "body_ms", "cut", "dirty", "dot_ms", "envelope_ms", "fault", "marked", "outcomes",
    )  # fmt: skip

    def __init__(
        self,
        extensions: Extensions,
        recipients: int,
        *,
        timeouts: Timeouts,
        now: Callable[[], float],
        before_dot: Callable[[], None],
        reset: bool = False,
        via: Via = Via.RELAY,
    ) -> None:
        self._via = via
        self._extensions = extensions
        self._timeouts = timeouts
        self._now = now
        self._before_dot = before_dot
        self._reset = reset
        self._left: list[int] = []
        self._accepted: list[int] = []
        self._asked = 0
        self._mail_code = 0
        self._go = False
        self._group = 0
        self._ends = False
        self.outcomes: list[Outcome | None] = [None] * recipients
        self.cut: Interrupted | None = None
        self.fault: Deferred | None = None
        self.marked = False
        self.dirty = reset
        self.envelope_ms = self.body_ms = self.dot_ms = 0.0

    # --- before the first byte --------------------------------------------------------------------

    def screen(self, sender: str, recipients: tuple[str, ...]) -> bool:
        """Give their outcome to those who cannot be reached through this far end; whether anybody
        is left. RFC 6531 §3.7.4.2: 5.6.7 where SMTPUTF8 is needed and not offered."""
        if self._extensions.smtputf8:
            return True
        if sender.isascii():
            unreachable = [i for i, r in enumerate(recipients) if not r.isascii()]
        else:
            unreachable = list(range(len(recipients)))
        for i in unreachable:
            text = f"{self._they} does not offer SMTPUTF8, which the address needs"
            reply = Reply(553, text, "5.6.7")
            self.outcomes[i] = Bounced(reply, Phase.MAIL, Speaker.SELF)
        return len(unreachable) < len(recipients)

    def prepare(self, sender: str, recipients: tuple[str, ...], rendered: Rendered) -> bool:
        """Build all that will be sent; whether anything is left to send. What is not fit for the
        wire fails here, before any byte has left."""
        extensions, data = self._extensions, rendered.data
        outcomes = self.outcomes
        if extensions.size is not None and len(data) > extensions.size:
            return self._none(self._too_large(len(data), extensions.size))
        utf8 = rendered.form is Form.UTF8 or (
            extensions.smtputf8 and not (sender.isascii() and "".join(recipients).isascii())
        )
        try:
            self._head = client.mail(
                sender, extensions, size=len(data), eight_bit=not data.isascii(), utf8=utf8
            )
        except client.Unsafe as error:
            return self._none(Failed(str(error), Phase.MAIL, "5.5.4"))
        self._chunked = extensions.chunking and (
            not extensions.pipelining or len(data) >= CHUNKED_FROM
        )
        try:
            self._content = client.bdat(data) if self._chunked else client.content(data)
        except client.Unsafe as error:
            return self._none(Failed(str(error), Phase.COMPOSE, "5.6.0"))
        rcpts: list[bytes] = []
        self._rcpts = rcpts
        for i, recipient in enumerate(recipients):
            if outcomes[i] is None:
                try:
                    rcpts.append(client.rcpt(recipient))
                    self._left.append(i)
                except client.Unsafe as error:
                    outcomes[i] = Failed(str(error), Phase.RCPT, "5.1.3")
        return bool(rcpts)

    @property
    def _they(self) -> str:
        return "the mail host" if self._via is Via.MX else "the relay"

    def _too_large(self, size: int, limit: int) -> Bounced:
        """RFC 1870 §6.1 would have them say it; the message need not travel for that."""
        text = f"the message has {size} bytes, {self._they} takes {limit}"
        return Bounced(Reply(552, text, "5.3.4"), Phase.MAIL, Speaker.SELF)

    def _none(self, outcome: Outcome) -> bool:
        self._rest(outcome)
        return False

    def _rest(self, outcome: Outcome) -> None:
        """Whoever has no outcome yet gets this one."""
        outcomes = self.outcomes
        for i, present in enumerate(outcomes):
            if present is None:
                outcomes[i] = outcome

    @property
    def untouched(self) -> bool:
        """Whether the session ended before MAIL was answered, or by 421 in its place: as when a
        kept session was closed on the other side. Nothing was accepted then."""
        return not self.marked and (
            (self.cut is not None and not self._mail_code) or self._mail_code == 421
        )

    @property
    def relay_failed(self) -> bool:
        """Whether nothing can have been delivered and the relay is to blame for all of it: another
        relay may be tried at once."""
        return not self.marked and all(
            isinstance(o, Deferred) and o.relay_fault for o in self.outcomes
        )

    @property
    def host_failed(self) -> bool:
        """Whether nothing can have been delivered, and this MX host is to blame rather than the
        destination: it hung up, said 421, or would not take any mail now. Another host may do."""
        return not self.marked and all(
            isinstance(o, Deferred) and (o.phase is Phase.MAIL or self.fault is not None)
            for o in self.outcomes
        )

    @property
    def lacking(self) -> bool:
        """Whether all that stands in the way is something that this relay does not offer, which
        another one may. Nothing was sent then."""
        return not self.marked and all(lacks(o) for o in self.outcomes)

    @property
    def decided(self) -> bool:
        """Whether the relay did its work for somebody: the dot was answered 2xx, or a destination
        was heard through it."""
        for o in self.outcomes:
            if type(o) is Delivered:
                return True
            if isinstance(o, Bounced | Deferred) and o.speaker is Speaker.DESTINATION:
                return True
        return False

    # --- the conversation -------------------------------------------------------------------------

    def script(self) -> Replies:
        """The whole transaction."""
        self._since = started = self._now()
        try:
            if self._extensions.pipelining:
                yield from self._envelope_at_once()
            else:
                yield from self._envelope_in_steps()
            self._since = done = self._now()
            self.envelope_ms = (done - started) * 1000
            if self._ends or not self._go:
                return
            if self._accepted:
                yield from self._send()
            elif not self._chunked:
                yield from self._take_back()
        except Interrupted as cut:
            self._interrupted(cut)

    def _envelope_at_once(self) -> Replies:
        """RFC 2920: all commands in one write. DATA comes last, since it needs to be answered."""
        head = client.RSET + self._head if self._reset else self._head
        tail = b"" if self._chunked else client.DATA
        group = head + b"".join(self._rcpts) + tail
        asks = self._reset + 1 + len(self._rcpts) + (not self._chunked)
        t = self._timeouts
        self.dirty = True
        self._group = asks
        answers = yield Step(group, asks=asks, within=max(t.mail, t.rcpt, t.data))
        self._judge(answers)
        if self._chunked:
            self._go = True

    def _envelope_in_steps(self) -> Replies:
        """One command, one answer; nothing is sent that an earlier answer made pointless."""
        t = self._timeouts
        if self._reset:
            self._judge((yield Step(client.RSET, asks=1, within=t.mail)))
        self._judge((yield Step(self._head, asks=1, within=t.mail)))
        if self._mail_code // 100 != 2:
            return
        self.dirty = True
        for command in self._rcpts:
            self._judge((yield Step(command, asks=1, within=t.rcpt)))
            if self._ends:
                return
        if self._chunked:
            self._go = True
        elif self._accepted:
            self._judge((yield Step(client.DATA, asks=1, within=t.data)))

    def _judge(self, answers: list[WireReply]) -> None:
        """Match answers to RSET, MAIL, each RCPT and DATA, which were asked in this order."""
        for reply in answers:
            place = self._asked
            self._asked += 1
            if self._reset:
                place -= 1
            if place > 0 and place <= len(self._left):
                self._judge_rcpt(self._left[place - 1], reply)
            elif place == 0:
                self._judge_mail(reply)
            elif place > 0:
                self._judge_data(reply)
            elif reply.code // 100 != 2 and reply.code != 421:
                raise Garbled(f"RSET was refused: {reply}"[:MAX_TEXT])
            if reply.code == 421:
                self._ends = True
                if place < 0:
                    self._mail_code = 421
                self._closed_by(reply, self._phase(place))

    def _closed_by(self, reply: WireReply, phase: Phase) -> None:
        outcome = self._classify(reply, phase)
        assert isinstance(outcome, Deferred)  # 421 bounces nobody: a row of the table, and a test
        self.fault = outcome
        self._rest(outcome)

    def _phase(self, place: int) -> Phase:
        if place <= 0:
            return Phase.MAIL
        return Phase.RCPT if place <= len(self._left) else Phase.DATA

    def _judge_mail(self, reply: WireReply) -> None:
        self._mail_code = reply.code
        if reply.code // 100 != 2:
            self.dirty = False
            self._rest(self._classify(reply, Phase.MAIL))

    def _judge_rcpt(self, recipient: int, reply: WireReply) -> None:
        if self.outcomes[recipient] is not None:
            return  # MAIL was refused; this only says so again
        if reply.code // 100 == 2:
            self._accepted.append(recipient)
        else:
            self.outcomes[recipient] = self._classify(reply, Phase.RCPT)

    def _judge_data(self, reply: WireReply) -> None:
        if reply.code == 354:
            self._go = True
        elif reply.code < 400:
            # Whatever they wait for now, we cannot know: the session is out of step.
            raise Garbled(f"DATA was answered: {reply}"[:MAX_TEXT])
        elif self._accepted:
            self._rest(self._classify(reply, Phase.DATA))

    # --- the content ------------------------------------------------------------------------------

    def _send(self) -> Replies:
        content = self._content
        if len(content) > BLOCK:
            last = (len(content) - 1) // BLOCK * BLOCK
            for at in range(0, last, BLOCK):
                yield Step(
                    content[at : at + BLOCK], asks=0, within=self._timeouts.block, flush=True
                )
            content = content[last:]
            done = self._now()
            self.body_ms = (done - self._since) * 1000
            self._since = done
        (reply,) = yield Step(content, asks=1, within=self._timeouts.dot, before=self._mark)
        self.dot_ms = (self._now() - self._since) * 1000
        self.dirty = False
        if reply.code // 100 == 2:
            self._rest(Delivered(said(reply), self._via))
        elif reply.code // 100 == 3:
            raise Garbled(f"an answer that decides nothing: {reply}"[:MAX_TEXT])
        elif reply.code == 421:
            self._closed_by(reply, Phase.DOT)
        else:
            self._rest(self._classify(reply, Phase.DOT))

    def _mark(self) -> None:
        self._before_dot()
        self.marked = True

    def _take_back(self) -> Replies:
        """DATA was answered 354 though nobody was accepted: a lone dot, whose answer concerns
        nobody. RFC 2920 §3.1."""
        yield Step(client.LONE_DOT, asks=1, within=self._timeouts.data)
        self.dirty = False

    def _interrupted(self, cut: Interrupted) -> None:
        self.cut = cut
        took = (self._now() - self._since) * 1000
        if self.marked:
            self.dot_ms = took
        elif self._go:
            self.body_ms = took
        else:
            self.envelope_ms = took
        if not self._go:
            try:
                self._judge(self._in_step(cut))
            except Garbled as worse:
                self.cut = worse
        if self.marked:
            self.fault = self._lost(Phase.DOT)
            self._rest(InDoubt(f"after the final dot: {cut.reason}"))
        elif self._go and _refuses(cut.unasked):
            self._refused_body(cut.unasked)
        else:
            self.fault = self._lost(
                Phase.BODY if self._go else self._phase(self._asked - self._reset)
            )
            self._rest(self.fault)

    def _in_step(self, cut: Interrupted) -> list[WireReply]:
        """The answers that surely belong to the commands they are matched with. All of a group's
        and one more: nobody knows which is too many, so none counts; unless DATA's 354 came in its
        place, which proves the order, and what follows it refuses the content."""
        answers: list[WireReply] = cut.answers
        if not self._group or len(answers) < self._group:
            return answers
        if not self._chunked and answers[-1].code == 354 and _refuses(cut.unasked):
            return answers
        return []

    def _refused_body(self, reply: WireReply) -> None:
        """They refused in the middle of the content: that is heard, and no dot was sent."""
        outcome = self._classify(reply, Phase.BODY)
        if isinstance(outcome, Deferred) and outcome.relay_fault:
            self.fault = outcome
        self._rest(outcome)

    def _lost(self, phase: Phase) -> Deferred:
        assert self.cut is not None
        return self._theirs(self.cut.reason, phase)

    def _theirs(self, reason: str, phase: Phase) -> Deferred:
        """The far end failed us: a fault of the relay, unless it is the destination's own host."""
        direct = self._via is Via.MX
        speaker = Speaker.DESTINATION if direct else Speaker.RELAY
        return Deferred(reason, phase, speaker, relay_fault=not direct)

    def _classify(self, reply: WireReply, phase: Phase) -> Outcome:
        return classify(said(reply), phase, via=self._via, alone=len(self._accepted) == 1)


def lacks(outcome: Outcome | None) -> bool:
    """Whether this is a relay's lack of something (size, SMTPUTF8), found before anything of the
    message was sent: our own bounce, or a 5.3.4 in answer to MAIL."""
    return isinstance(outcome, Bounced) and (
        outcome.speaker is Speaker.SELF
        or (outcome.phase is Phase.MAIL and outcome.reply.enhanced == "5.3.4")
    )


def _refuses(reply: WireReply | None) -> TypeGuard[WireReply]:
    return reply is not None and reply.code >= 400
