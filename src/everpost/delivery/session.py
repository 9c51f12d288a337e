"""One connection to one far end: connect, greet, secure, log in; then one transaction after
another, and QUIT. What is refused on the way is a value: the deferral that everybody gets.

The far end is a smart host, or one of a destination's MX hosts; the relay says by which rules.
"""

import asyncio
import errno
import ssl
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from msgspec.structs import replace

from everpost.clock import Clock
from everpost.delivery.classify import classify, rule
from everpost.delivery.handover import HandOver, said
from everpost.delivery.route import FarEnd
from everpost.delivery.timeouts import Timeouts
from everpost.model.outcome import Deferred, Phase, Speaker, TlsFacts, Via
from everpost.model.relay import Relay, TlsPolicy
from everpost.net.conversation import Conversation, Interrupted, Lost, Step, TimedOut
from everpost.net.streams import Misses, SourceUnusable, connect
from everpost.protocol.smtp import client
from everpost.protocol.smtp.extensions import Extensions, parse_ehlo
from everpost.protocol.smtp.replies import Reply

__all__ = ["Outset", "Session"]

_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
"""What keeps a connection from being made that is this machine's own lack."""

_OFFERED = 1024
"""Octets of the message that a probe announces: as small as real ones."""

Phased = Generator[Step, list[Reply], Deferred | None]


@dataclass(frozen=True, slots=True)
class Outset:
    """What all sessions of a carrier start from. `helo` is how we call ourselves unless the relay
    has its own; `timeouts` hold for smart hosts, `mx_timeouts` for MX hosts; `tls` makes the TLS
    context with or without verification; `misses` remembers addresses that could not be reached;
    `open` holds the connections that exist."""

    clock: Clock
    helo: str
    timeouts: Timeouts
    mx_timeouts: Timeouts
    tls: Callable[[bool], ssl.SSLContext]
    misses: Misses
    open: set[Conversation[Reply]] = field(default_factory=set)


class Session:
    """Use: `open` once, `hand_over` as often as `usable`, `quit`.

    `peer`, `tls` and `extensions` are facts of the open session; `timings`, milliseconds per phase
    of opening, are there for the first transaction's record; `transactions` counts. `destination`
    is whose mail it carries (a destination, or the group of a site whose hosts it is one of), empty
    where that is everybody's, `site` where it counts; `instead_of`, why a better host of its own
    does not.
    """

    def __init__(
        self,
        relay: Relay,
        far_end: FarEnd,
        outset: Outset,
        destination: str = "",
        *,
        site: str = "",
    ) -> None:
        self.relay = relay
        self.far_end = far_end
        self.destination = destination
        self.site = site
        self.extensions = Extensions()
        self.peer: str | None = None
        self.tls: TlsFacts | None = None
        self.timings: dict[str, float] = {}
        self.transactions = 0
        self.idle_since = 0.0
        self.instead_of: Deferred | None = None
        self._outset = outset
        direct = far_end.via is Via.MX
        self._timeouts = outset.mx_timeouts if direct else outset.timeouts
        self._speaker = Speaker.DESTINATION if direct else Speaker.RELAY
        self._they = "the mail host" if direct else "the relay"
        self._conversation: Conversation[Reply] | None = None
        self._dirty = False
        self._phase = Phase.CONNECT
        self._fall_back = False

    @property
    def usable(self) -> bool:
        """Whether another transaction may start."""
        return self._conversation is not None and self._conversation.usable

    # --- opening ----------------------------------------------------------------------------------

    async def open(self) -> Deferred | None:
        """None when the relay is ready for mail, else the reason why it is not."""
        refusal = await self._open(in_clear=self.relay.tls is TlsPolicy.NONE)
        if refusal is not None and self._fall_back:
            # Opportunistic TLS that fails is no worse than none (RFC 7435 §3); the record says
            # that this one was in clear.
            self.abort()
            refusal = await self._open(in_clear=True)
        if refusal is not None:
            self.abort()
            refusal = self._unsaid(refusal)
        return refusal

    async def _open(self, *, in_clear: bool) -> Deferred | None:
        try:
            return (
                await self._connect()
                or (await self._secure_at_once() if self.relay.implicit_tls else None)
                or await self._timed(Phase.GREET, self._greet())
                or (None if in_clear or self.tls is not None else await self._secure())
                or (await self._log_in() if self.relay.username is not None else None)
            )
        except Interrupted as cut:
            return self._deferred(cut.reason)
        except client.Unsafe as error:  # our name or login, as configured
            return self._deferred(str(error), speaker=Speaker.SELF)

    async def _connect(self) -> Deferred | None:
        self._enter(Phase.CONNECT)
        outset, far_end, within = self._outset, self.far_end, self._timeouts.connect
        started = outset.clock.monotonic()
        try:
            self._conversation = await connect(
                lambda: Conversation(client.Client()),
                far_end.name,
                far_end.port,
                within=within,
                source=self.relay.source,
                addresses=far_end.addresses,
                misses=outset.misses,
            )
        except TimeoutError:
            return self._deferred(f"no connection in {within:g} s")
        except SourceUnusable as error:
            return self._deferred(str(error.strerror), speaker=Speaker.SELF)
        except OSError as error:
            ours = Speaker.SELF if error.errno in _OURS else None
            return self._deferred(f"no connection: {error.strerror or error}", speaker=ours)
        finally:
            self._took(started)
        self._conversation.stand_among(outset.open)
        self.peer = self._conversation.peer
        return None

    def _greet(self) -> Phased:
        (banner,) = yield Step(b"", asks=0, within=self._timeouts.greet)
        if banner.code != 220:
            return self._refused(banner)
        return (yield from self._hello())

    def _hello(self) -> Phased:
        """EHLO, or HELO where that is refused. RFC 5321 §3.2."""
        name = self.relay.helo or self._outset.helo
        within = self._timeouts.greet
        (reply,) = yield Step(client.ehlo(name), asks=1, within=within)
        if reply.code == 250:
            self.extensions = parse_ehlo(reply)
            return None
        if reply.code // 100 == 5:
            (reply,) = yield Step(client.helo(name), asks=1, within=within)
            if reply.code == 250:
                self.extensions = Extensions(name=reply.text.split(" ", 1)[0])
                return None
        return self._refused(reply)

    # --- TLS --------------------------------------------------------------------------------------

    async def _secure_at_once(self) -> Deferred | None:
        """TLS before the first word (RFC 8314 §3.3)."""
        self._enter(Phase.SECURE)
        started = self._outset.clock.monotonic()
        failure = await self._handshake()
        self._took(started)
        return None if failure is None else self._deferred(failure.reason)

    async def _secure(self) -> Deferred | None:
        """STARTTLS (RFC 3207). Without it only an opportunistic session goes on (S16)."""
        opportunistic = self.relay.tls is TlsPolicy.OPPORTUNISTIC
        if not self.extensions.starttls:
            self._enter(Phase.SECURE)
            return None if opportunistic else self._deferred(f"{self._they} offers no STARTTLS")
        started = self._outset.clock.monotonic()
        try:
            refusal = await self._timed(Phase.SECURE, self._starttls())
        except (Lost, TimedOut):
            self._fall_back = opportunistic
            raise
        if refusal is not None:
            if opportunistic and self.usable:
                return None
            self._fall_back = opportunistic  # 421, or closed behind its answer
            return refusal
        failure = await self._handshake()
        if failure is not None:
            self._took(started)
            self._fall_back = opportunistic
            return self._deferred(failure.reason)
        # RFC 3207 §4.2: what was learned before TLS is forgotten.
        self.extensions = Extensions()
        refusal = await self._talk(self._hello())
        self._took(started)
        return refusal

    def _starttls(self) -> Phased:
        (reply,) = yield Step(client.STARTTLS, asks=1, within=self._timeouts.greet)
        return None if reply.code == 220 else self._refused(reply)

    async def _handshake(self) -> Interrupted | None:
        assert self._conversation is not None
        verify = self.relay.tls is TlsPolicy.VERIFY
        outset = self._outset
        failure = await self._conversation.start_tls(
            outset.tls(verify),
            server_name=self.far_end.name,
            within=self._timeouts.greet,
        )
        if failure is None:
            version, cipher, peer = self._conversation.tls_facts()
            self.tls = TlsFacts(version, cipher, verify, peer)
        return failure

    # --- login ------------------------------------------------------------------------------------

    async def _log_in(self) -> Deferred | None:
        relay = self.relay
        self._enter(Phase.LOGIN)
        if self.tls is None and not self._may_be_seen():
            return self._deferred("the login is not sent without TLS", speaker=Speaker.SELF)
        mechanism = client.mechanism(relay.auth, self.extensions.auth)
        if mechanism is None:
            return self._deferred(f"the relay offers no {relay.auth or 'PLAIN or LOGIN'} login")
        login = client.Login(mechanism, relay.username or "", relay.password or "")
        return await self._timed(Phase.LOGIN, self._authenticate(login))

    def _may_be_seen(self) -> bool:
        """Whether the password may go in clear. Whoever strips STARTTLS is after it, so only where
        `tls: none` says so; or on this machine, where nobody is in between. Where STARTTLS is
        offered and fails, not even there."""
        policy, conversation = self.relay.tls, self._conversation
        return policy is TlsPolicy.NONE or (
            policy is TlsPolicy.OPPORTUNISTIC
            and not self.extensions.starttls
            and conversation is not None
            and conversation.at_loopback
        )

    def _authenticate(self, login: client.Login) -> Phased:
        """RFC 4954 §4: AUTH, an answer to each challenge, 235."""
        within = self._timeouts.greet
        (reply,) = yield Step(login.command(), asks=1, within=within)
        for _ in range(4):  # no mechanism of ours takes more
            if reply.code != 334:
                break
            (reply,) = yield Step(login.answer(), asks=1, within=within)
        return None if reply.code == 235 else self._refused(reply)

    # --- probing ----------------------------------------------------------------------------------

    async def try_sender(self, sender: str) -> Deferred | None:
        """MAIL, then RSET: None when mail from `sender` would be taken now."""
        try:
            refusal = await self._timed(Phase.MAIL, self._offer(sender))
        except Interrupted as cut:
            refusal = self._deferred(cut.reason)
        except client.Unsafe as error:
            refusal = self._deferred(str(error), speaker=Speaker.SELF)
        return None if refusal is None else self._unsaid(refusal)

    def _offer(self, sender: str) -> Phased:
        within = self._timeouts.mail
        mail = client.mail(sender, self.extensions, size=_OFFERED)
        (reply,) = yield Step(mail, asks=1, within=within)
        if reply.code // 100 != 2:
            # Nobody but the relay can have said this: no recipient was named, no content sent.
            reason = rule(said(reply), Phase.MAIL).reason
            return Deferred(reason, Phase.MAIL, Speaker.RELAY, said(reply), relay_fault=True)
        yield Step(client.RSET, asks=1, within=within)
        return None

    # --- small things of opening ------------------------------------------------------------------

    def _enter(self, phase: Phase) -> None:
        self._phase = phase

    def _took(self, started: float) -> None:
        took = (self._outset.clock.monotonic() - started) * 1000
        self.timings[self._phase.value] = round(took, 3)

    async def _talk(self, script: Phased) -> Deferred | None:
        assert self._conversation is not None
        return await self._conversation.run(script)

    async def _timed(self, phase: Phase, script: Phased) -> Deferred | None:
        self._enter(phase)
        started = self._outset.clock.monotonic()
        try:
            return await self._talk(script)
        finally:
            self._took(started)

    def _refused(self, reply: Reply) -> Deferred:
        """A refusal of the session, whatever its code; an MX host that greets with 554 is passed
        over, as in Postfix."""
        outcome = classify(said(reply), self._phase, via=self.far_end.via)
        assert isinstance(outcome, Deferred)  # no rule bounces before a recipient was named
        return outcome

    def _unsaid(self, refusal: Deferred) -> Deferred:
        """Without our password, where the far end repeats it: all of this goes on record."""
        user, secret, reply = self.relay.username, self.relay.password, refusal.reply
        if user is None or secret is None:
            return refusal
        if reply is None:  # then its words, if any, are in the reason
            reason = client.without_login(refusal.reason, user=user, secret=secret)
            return replace(refusal, reason=reason)
        text = client.without_login(reply.text, user=user, secret=secret)
        return replace(refusal, reply=replace(reply, text=text))

    def _deferred(self, reason: str, *, speaker: Speaker | None = None) -> Deferred:
        """By default it was they who failed us; that is the relay's fault unless they are a
        destination's host."""
        speaker = speaker or self._speaker
        fault = speaker is not Speaker.DESTINATION
        return Deferred(reason, self._phase, speaker, relay_fault=fault)

    # --- transactions -----------------------------------------------------------------------------

    def transaction(self, recipients: int, before_dot: Callable[[], None]) -> HandOver:
        """The next transaction, to be prepared and handed to `hand_over`."""
        return HandOver(
            self.extensions,
            recipients,
            timeouts=self._timeouts,
            now=self._outset.clock.monotonic,
            before_dot=before_dot,
            reset=self._dirty,
            via=self.far_end.via,
        )

    async def hand_over(self, transaction: HandOver) -> None:
        """Carry out a prepared transaction. Raises only what its `before_dot` raises."""
        assert self._conversation is not None
        self.transactions += 1
        await self._conversation.run(transaction.script())
        self._dirty = transaction.dirty
        if transaction.cut is not None:
            self._conversation.abort()

    async def quit(self) -> None:
        """Say goodbye, wait a moment for the answer, hang up. RFC 5321 §4.1.1.10."""
        conversation = self._conversation
        if conversation is None:
            return
        if conversation.usable:
            try:
                await conversation.run(_quit(self._timeouts.quit))
            except Interrupted:
                pass
        conversation.close()

    async def leave(self) -> None:
        """As `quit`, and return when the connection does not exist any more."""
        await self.quit()
        if self._conversation is None:
            return
        try:
            async with asyncio.timeout(self._timeouts.quit):
                await self._conversation.gone()
        except TimeoutError:
            self._conversation.abort()
            await self._conversation.gone()

    def abort(self) -> None:
        """Hang up at once."""
        if self._conversation is not None:
            self._conversation.abort()


def _quit(within: float) -> Generator[Step, list[Reply], None]:
    yield Step(client.QUIT, asks=1, within=within)
