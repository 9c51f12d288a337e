"""The far end: a fast SMTP server that only counts what it takes, or stores it, and misbehaves on
demand. A tool for users, and what tests and benchmarks deliver to.

    async with Sink(SinkOptions(behaviour=Behaviour(delay={"dot": 2.0}))) as sink:
        ...send to sink.host, sink.port...
        await sink.wait_for(1, timeout=5)
"""

import asyncio
import json
import random
import signal
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from everpost.clock import Clock, SystemClock
from everpost.loadtest.behaviour import Behaviour, Script
from everpost.loadtest.feed import FeedWriter, watch_end
from everpost.loadtest.maildir import Maildir
from everpost.loadtest.reception import Arrival, OnMessage, Reception
from everpost.loadtest.sink_session import Session, Terms
from everpost.net import listener
from everpost.protocol.smtp.server import Limits, Offer

__all__ = ["Arrival", "Sink", "SinkOptions", "run_sink"]

EXTENSIONS: Mapping[str, str] = {
    "PIPELINING": "pipelining", "SIZE": "size", "8BITMIME": "eight_bit", "SMTPUTF8": "utf8",
    "ENHANCEDSTATUSCODES": "enhanced", "CHUNKING": "chunking",
}  # fmt: skip
"""What `SinkOptions.hide` may name."""

_BACKLOG = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkOptions:
    """How a sink is set up.

    * `host`, `port`: where it listens; port 0 lets the kernel choose.
    * `hostname`: what the greeting says.
    * `maildir`: store every message there; None: only count. `envelope_headers` puts
      X-Envelope-From and X-Envelope-To in front of stored messages.
    * `behaviour`: delays, refusals and worse. `seed` makes its chances repeatable.
    * `hide`: extensions not offered. `size`: octets of the largest message.
      `recipients`: how many a transaction may have. `errors`: mistakes until 421.
    * `certificate`, `key`: PEM files; with them STARTTLS is offered, or with `implicit_tls` TLS
      spoken from the first octet.
    * `users`: names and passwords for AUTH PLAIN and LOGIN, offered in clear, too, unless
      `login_under_tls`; `login_required` refuses MAIL before.
    * `connections`: more than that many at once get 421. `idle`: seconds without a word until 421.
    * `keep_arrivals`: keep Message-ID and time of each message; `run_sink` writes them to
      `arrivals_file` (JSON lines) at the end.
    * `feed`: `run_sink` writes each arrival there as it comes (JSON lines; "-" is stdout), for
      `everpost loadtest`.
    """

    host: str = "127.0.0.1"
    port: int = 0
    hostname: str = "sink.test"
    maildir: Path | None = None
    envelope_headers: bool = False
    behaviour: Behaviour = field(default_factory=Behaviour)
    seed: int | None = None
    hide: frozenset[str] = frozenset()
    size: int = 50 * 1024 * 1024
    recipients: int = 1000
    errors: int = 20
    certificate: Path | None = None
    key: Path | None = None
    implicit_tls: bool = False
    users: Mapping[str, str] = field(default_factory=dict)
    login_required: bool = False
    login_under_tls: bool = False
    connections: int | None = None
    idle: float = 300.0
    keep_arrivals: bool = False
    arrivals_file: Path | None = None
    feed: Path | None = None

    def __post_init__(self) -> None:
        unknown = self.hide - EXTENSIONS.keys()
        if unknown:
            raise ValueError(f"cannot hide {', '.join(sorted(unknown))}: not in {list(EXTENSIONS)}")
        if self.implicit_tls and self.certificate is None:
            raise ValueError("implicit TLS needs a certificate")

    def terms(self) -> Terms:
        """What each connection is offered. Reads the certificate; raises OSError."""
        context: ssl.SSLContext | None = None
        if self.certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(self.certificate, self.key)
        offer = Offer(
            starttls=context is not None and not self.implicit_tls,
            auth=("PLAIN", "LOGIN") if self.users else (),
            auth_in_clear=not self.login_under_tls,
        )
        shown = {EXTENSIONS[name]: False for name in self.hide}
        return Terms(
            hostname=self.hostname,
            offer=msgspec.structs.replace(offer, **shown),
            limits=Limits(message=self.size, recipients=self.recipients, errors=self.errors),
            users=self.users,
            login_required=self.login_required,
            tls=context,
            implicit_tls=self.implicit_tls,
            connections=self.connections,
        )


class Sink:
    """A sink in this event loop. `clock` defaults to the machine's."""

    def __init__(
        self,
        options: SinkOptions | None = None,
        *,
        on_message: OnMessage | None = None,
        on_arrival: Callable[[Arrival], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.options = options or SinkOptions()
        self.host = self.options.host
        self.port = self.options.port
        clock = clock or SystemClock()
        self._chance = random.Random(self.options.seed).random  # noqa: S311  no secret hangs on it
        maildir = None
        if self.options.maildir is not None:
            headers = self.options.envelope_headers
            maildir = Maildir(self.options.maildir, clock, envelope_headers=headers)
        self._reception = Reception(
            Script(self.options.behaviour, self._chance),
            clock,
            maildir=maildir,
            keep_arrivals=self.options.keep_arrivals or self.options.arrivals_file is not None,
            on_arrival=on_arrival,
            on_message=on_message,
        )
        self._sessions: set[Session] = set()
        self._server: asyncio.Server | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()

    async def start(self, sock: socket.socket | None = None) -> None:
        """Listen, on `sock` where one is given. Then `host` and `port` are the true ones.
        Raises everpost.net.listener.ListenError."""
        loop = asyncio.get_running_loop()
        terms = self.options.terms()
        if sock is None:
            sock = listener.bind(self.options.host, self.options.port, backlog=_BACKLOG)
        self.host, self.port = sock.getsockname()[:2]

        def welcome() -> Session:
            session = Session(terms, self._reception, self._sessions_end)
            self._sessions.add(session)
            return session

        context = terms.tls if terms.implicit_tls else None
        self._server = await loop.create_server(welcome, sock=sock, ssl=context, backlog=_BACKLOG)
        self._sweep = loop.call_later(self.options.idle / 4, self._sweep_idle)

    async def close(self) -> None:
        """Stop listening and cut every connection. Harmless when repeated."""
        if self._sweep is not None:
            self._sweep.cancel()
        if self._server is None:
            return
        self._server.close()
        self._server = None
        self._empty.clear()
        for session in tuple(self._sessions):
            session.abort()
        if self._sessions:
            async with asyncio.timeout(10):
                await self._empty.wait()

    async def __aenter__(self) -> "Sink":
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def behave(self, behaviour: Behaviour) -> None:
        """Play this behaviour from now on, its counts at zero; open connections included."""
        self._reception.script = Script(behaviour, self._chance)

    async def wait_for(self, messages: int, timeout: float | None) -> None:
        """Return once that many messages were taken since the start; TimeoutError after `timeout`
        seconds, where given."""
        await self._reception.wait_for(messages, timeout)

    @property
    def messages(self) -> int:
        """Messages taken since the start."""
        return self._reception.stats.messages

    @property
    def arrivals(self) -> list[Arrival]:
        """What was taken, in order; empty unless `keep_arrivals`."""
        return self._reception.arrivals

    def stats(self) -> dict[str, Any]:
        """All counts as builtins, ready for JSON; see `everpost.loadtest.reception.Stats`."""
        return self._reception.stats.as_json()

    def _sessions_end(self, session: Session) -> None:
        self._sessions.discard(session)
        if not self._sessions:
            self._empty.set()

    def _sweep_idle(self) -> None:
        """One timer for all connections: an idle one is told within a quarter of the time more."""
        loop = asyncio.get_running_loop()
        limit = loop.time() - self.options.idle
        for session in tuple(self._sessions):
            if session.last_seen < limit and not session.silent:
                session.hang_up("4.4.2 Idle too long")
        self._sweep = loop.call_later(self.options.idle / 4, self._sweep_idle)


async def run_sink(
    options: SinkOptions,
    *,
    on_ready: Callable[[str, int], None] | None = None,
    on_stats: Callable[[dict[str, Any]], None] | None = None,
    every: float = 10.0,
    stop_after: int | None = None,
    until_eof: int | None = None,
) -> dict[str, Any]:
    """Run a sink until SIGINT or SIGTERM, until `stop_after` messages, or until the descriptor
    `until_eof` ends; its final stats.

    `on_ready` gets host and port once it listens, `on_stats` the stats every `every` seconds.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if until_eof is not None:
        watch_end(until_eof, stop.set)
    feed = None if options.feed is None else FeedWriter(options.feed, ended=stop.set)
    sink = Sink(options, on_arrival=None if feed is None else feed.add)
    try:
        async with sink:
            if feed is not None:
                feed.open(sink.host, sink.port)
            if on_ready is not None:
                on_ready(sink.host, sink.port)
            await _until_done(sink, stop, on_stats=on_stats, every=every, stop_after=stop_after)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        if feed is not None:
            feed.close()
        if options.arrivals_file is not None:
            _write_arrivals(options.arrivals_file, sink.arrivals)
    return sink.stats()


async def _until_done(
    sink: Sink,
    stop: asyncio.Event,
    *,
    on_stats: Callable[[dict[str, Any]], None] | None,
    every: float,
    stop_after: int | None,
) -> None:
    """Return at the signal or at the message that comes last, reporting meanwhile."""
    waits: set[asyncio.Task[Any]] = {asyncio.create_task(stop.wait())}
    if stop_after is not None:
        waits.add(asyncio.create_task(sink.wait_for(stop_after, None)))
    try:
        while True:
            done, _ = await asyncio.wait(waits, timeout=every, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return
            if on_stats is not None:
                on_stats(sink.stats())
    finally:
        for wait in waits:
            wait.cancel()


def _write_arrivals(path: Path, arrivals: list[Arrival]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for arrival in arrivals:
            file.write(json.dumps(msgspec.structs.asdict(arrival)) + "\n")
