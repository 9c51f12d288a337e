"""One connection of a sink: carries bytes between a transport and the protocol core, and plays
the script."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

from everpost import telemetry
from everpost.loadtest.behaviour import Occasion, Rule
from everpost.loadtest.reception import Reception
from everpost.protocol.smtp.server import Limits, Offer, Server
from everpost.protocol.smtp.server_events import (
    Auth,
    Closed,
    Connect,
    Data,
    Event,
    Hello,
    Mail,
    Message,
    Rcpt,
    StartTls,
)

__all__ = ["Session", "Terms"]

_HANDSHAKE = 30.0
"""Seconds for a TLS handshake."""

_PHASES: Mapping[type, str] = {
    Connect: "connect", Hello: "ehlo", StartTls: "starttls", Auth: "auth", Mail: "mail",
    Rcpt: "rcpt", Data: "data", Message: "body",
}  # fmt: skip
_THEN = {"connect": "banner", "body": "dot"}
"""The second phase of one event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What every connection is offered. `users` maps names to passwords; None: none are known."""

    hostname: str
    offer: Offer
    limits: Limits
    users: Mapping[str, str] = field(default_factory=dict)
    login_required: bool = False
    tls: ssl.SSLContext | None = None
    implicit_tls: bool = False
    connections: int | None = None


class Session(asyncio.Protocol):
    """One client. `ended` is called when its connection is gone."""

    def __init__(
        self, terms: Terms, reception: Reception, ended: "Callable[[Session], None]"
    ) -> None:
        self._terms = terms
        self._reception = reception
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._server = Server(
            terms.hostname, offer=terms.offer, limits=terms.limits, tls=terms.implicit_tls
        )
        self._transport: asyncio.Transport | None = None
        self._number = 0
        self._sender = ""
        self._dropped = False  # a rule ended it without an answer
        self._handshake_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._upgrade: asyncio.Task[None] | None = None
        self._secured_early = b""
        self.silent = False  # a rule wants it never answered again
        self.last_seen = self._loop.time()

    # --- transport --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is no subclass
        stats = self._reception.stats
        stats.connections += 1
        stats.open += 1
        stats.peak = max(stats.peak, stats.open)
        stats.tls += self._terms.implicit_tls
        self._number = stats.connections
        self._go_on()

    def data_received(self, data: bytes) -> None:
        self.last_seen = self._loop.time()
        if self._upgrade is not None:
            # Of the TLS layer already: it may hand on what came together with the end of the
            # handshake before `start_tls` returns.
            self._secured_early += data
        elif not self.silent:
            self._server.receive(data)
            self._go_on()

    def eof_received(self) -> bool:
        return False  # close: nobody sends mail over half a connection

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._transport = None
        stats = self._reception.stats
        stats.open -= 1
        if not self._server.closed and not self._dropped:
            self._count_ending("lost")
        self._ended(self)

    def pause_writing(self) -> None:
        if self._transport is not None:  # who does not read our answers is not read from
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def hang_up(self, text: str) -> None:
        """Say 421 and go."""
        if self._server.closed or self._upgrade is not None:
            self.abort()
            return
        self._server.hang_up(text)
        self._go_on()

    def abort(self) -> None:
        """Go without a word."""
        if self._transport is not None:
            self._transport.abort()
        if self._upgrade is not None:
            self._upgrade.cancel()
            self.connection_lost(None)  # uvloop does not say so itself during a handshake

    def _count_ending(self, reason: str) -> None:
        endings = self._reception.stats.endings
        endings[reason] = endings.get(reason, 0) + 1

    # --- protocol ---------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Answer what can be answered now, and send it."""
        server, transport = self._server, self._transport
        if transport is None:
            return
        scripted = bool(self._reception.script.phases)
        while (event := server.next_event()) is not None:
            if type(event) is Closed:
                self._count_ending(event.reason)
            elif scripted:
                if not self._play(event, _PHASES[type(event)]):
                    break
            elif type(event) is not Message or self._take(event):
                self._usual(event)
        out = server.take_output()
        if out:
            transport.write(out)
        if server.closed or self._dropped:
            transport.close()
        elif self._handshake_due:
            self._handshake_due = False
            transport.pause_reading()  # what comes next is for TLS
            self._upgrade = self._loop.create_task(self._shake_hands(transport))

    def _play(self, event: Event, phase: str | None) -> bool:
        """Walk through an event's phases from this one on; False where the verdict has to wait, or
        never comes."""
        while phase is not None:
            rule = self._reception.script.decide(self._occasion(event, phase))
            kept = phase != "dot" or (rule is not None and rule.refuse is not None)
            if not kept and not self._take(event):
                return True
            if rule is not None:
                if rule.delay:
                    self._timer = self._loop.call_later(
                        rule.delay, self._after_delay, rule, event, phase
                    )
                    return False
                acted = self._act(rule)
                if acted is not None:
                    return acted
            phase = _THEN.get(phase)
        self._usual(event)
        return True

    def _after_delay(self, rule: Rule, event: Event, phase: str) -> None:
        self._timer = None
        self.last_seen = self._loop.time()
        if self._server.closed or self._transport is None:
            return
        if self._act(rule) is None:
            self._play(event, _THEN.get(phase))
        self._go_on()

    def _act(self, rule: Rule) -> bool | None:
        """Do what a rule says at once: True, a verdict was given; False, there will be none; None,
        the rule has nothing against the usual."""
        if rule.silent:
            self.silent = True
            return False
        if rule.close:
            self._dropped = True
            self._count_ending("dropped")
            return False
        reply = rule.reply
        if reply is None:
            return None
        self._refuse(*reply)
        return True

    def _occasion(self, event: Event, phase: str) -> Occasion:
        recipients: tuple[str, ...] = ()
        if isinstance(event, Mail):
            self._sender = event.sender
        elif isinstance(event, Rcpt):
            recipients = (event.recipient,)
        elif isinstance(event, Data | Message):
            recipients = event.recipients
        hello = self._server.hello.name if self._server.hello is not None else ""
        return Occasion(phase, self._number, hello, self._sender, recipients)

    def _take(self, event: Event) -> bool:
        """Store the message; where that fails, refuse it."""
        assert isinstance(event, Message)
        try:
            self._reception.take(event)
        except OSError as error:
            telemetry.event("sink.not_stored", why=error.strerror)
            self._refuse(452, "4.3.1 Cannot store the message")
            return False
        return True

    def _usual(self, event: Event) -> None:
        """What a sink without a script answers."""
        server, terms = self._server, self._terms
        if isinstance(event, Mail) and terms.login_required and server.username is None:
            self._refuse(530, "5.7.0 Log in first")
        elif isinstance(event, Auth):
            if terms.users.get(event.username) != event.password:
                self._refuse(535, "5.7.8 Credentials invalid")
            else:
                self._reception.stats.logins += 1
                server.accept()
        elif isinstance(event, Connect) and self._crowded():
            self._refuse(421, "4.7.0 Too many connections")
        else:
            server.accept()
            self._handshake_due = isinstance(event, StartTls)

    def _crowded(self) -> bool:
        cap = self._terms.connections
        return cap is not None and self._reception.stats.open > cap

    def _refuse(self, code: int, text: str) -> None:
        self._reception.stats.refusals += 1
        self._server.refuse(code, text)

    async def _shake_hands(self, transport: asyncio.Transport) -> None:
        assert self._terms.tls is not None
        secured: asyncio.Transport | None = None
        try:
            secured = await self._loop.start_tls(
                transport,
                self,
                self._terms.tls,
                server_side=True,
                ssl_handshake_timeout=_HANDSHAKE,
            )
        except (OSError, EOFError):  # ssl.SSLError is an OSError
            return
        finally:
            if secured is None:
                transport.abort()
                self.connection_lost(None)
        if self._transport is None:  # the connection went meanwhile
            return
        self._transport = secured
        self._reception.stats.tls += 1
        self._server.tls_started()
        self._upgrade = None
        early, self._secured_early = self._secured_early, b""
        if early:
            self.data_received(early)
