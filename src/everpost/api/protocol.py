"""HTTP/1.1 on one connection: uvicorn's llhttp protocol, and what an open port needs beside it.

llhttp refuses what request smuggling lives on: both lengths, spaces before a colon, bare LF,
control characters (tests/unit/api/test_http_strictness.py). This adds: one Host, only `chunked` as
transfer coding, trailers that never become headers, bodies of requests that ask for an upgrade,
bounds on heads, trailers and connections, deadlines and a least rate, JSON in every refusal. And an
email that is not admitted is refused here, where that costs a few microseconds.
"""

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Any

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from everpost import telemetry
from everpost.api.admission import WORDS, Admission, Reason
from everpost.api.answers import ADMITTED, ANSWER, problem

__all__ = ["Gate", "HttpLimits", "Protocol"]

REFUSED = telemetry.counter(
    "everpost_http_refused_total", "Requests refused before they reached a route", ("status",)
)


class HttpLimits(msgspec.Struct, frozen=True):
    """What one listener bears. Durations in seconds."""

    connections: int = 2000
    """Of each listener."""
    head_bytes: int = 32_768
    """Bytes that are neither body nor the end of a message: heads, trailers, chunk extensions."""
    headers: int = 100
    request_timeout: float = 60.0
    """A request's head and body must have arrived within this time."""
    head_timeout: float = 15.0
    """Its head within this."""
    min_rate: float = 500.0
    """Bytes a second in which a body must arrive, on average; 0 asks for none."""
    min_rate_grace: float = 10.0
    """The rate is not looked at before."""
    write_timeout: float = 60.0
    """Longest that a client may leave an answer unread."""
    keep_alive: float = 75.0
    """Above nginx's upstream default of 60 s, so that the proxy closes first and never writes into
    a connection that we are closing."""
    drain_bytes: int = 64 * 1024 * 1024
    """Body bytes read and dropped after an early answer, so that a client sees the answer and not
    a reset connection (RFC 9112 §9.6)."""


class Gate:
    """What all connections of one process share. `admission` None: everything is admitted."""

    __slots__ = ("admission", "connections", "leaving", "limits")

    def __init__(self, limits: HttpLimits, admission: Admission | None = None) -> None:
        self.limits = limits
        self.admission = admission
        self.connections = limits.connections
        """How many a listener takes now: fewer when descriptors run out."""
        self.leaving = False
        """The process ends: what is answered from now on is the last of its connection."""


class _Refused(Exception):
    """Raised inside a parser callback; llhttp stops and `data_received` answers."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Protocol(HttpToolsProtocol):
    """One client connection. `sweep` is called about once a second."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start, unless the listener is full."""
        super().connection_made(transport)
        self._gate: Gate = self.config.gate  # type: ignore[attr-defined]
        self._mail: frozenset[bytes] = self.config.mail  # type: ignore[attr-defined]
        self._admission = self._gate.admission
        self.limits = self._gate.limits
        self._seen = self._since = self._body_since = self.loop.time()
        self._began = self._in_body = False
        self._progress = self._dry = self._drained = self._arrived = 0
        self._refusing = self._closes = False
        self._closing_since: float | None = None
        self._framing: bytes | None = None
        self._muted = False
        self._write_paused_at: float | None = None
        if len(self.connections) > self._gate.connections:
            self._refuse(_Refused(503, "Too many connections."))

    def data_received(self, data: bytes) -> None:
        """Parse; answer what cannot be parsed and close."""
        self._unset_keepalive_if_required()
        self._seen = self.loop.time()
        if self.transport.is_closing():
            return
        before, size = self._progress, len(data)
        try:
            while data:
                data = self._feed(data)
        except httptools.HttpParserError as error:
            if self.transport.is_closing():
                return
            cause = error.__context__
            if not isinstance(cause, _Refused):
                cause = _Refused(400, "This is not a valid HTTP request.")
            self._refuse(cause)
            return
        self._await_next()
        if self._progress != before or not self._began:
            self._dry = 0
        else:
            self._dry += size
            if self._dry > self.limits.head_bytes:
                self._refuse(_Refused(431, "The request's header section is too large."))

    def _feed(self, data: bytes) -> bytes:
        """Give bytes to llhttp; what it left behind the head of a request for an upgrade.

        We may ignore an upgrade (RFC 9110 §7.8) and do, but llhttp hands its body back unparsed:
        read as the next request it would be a smuggled one, and Java's client asks for h2c with
        every first POST (uvicorn's issue 2722). So a new parser gets a head that asks for nothing,
        and then the body and what follows it.
        """
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._framing is not None:
                self.parser = httptools.HttpRequestParser(self)
                self._muted = True
                self.parser.feed_data(b"POST / HTTP/1.1\r\n" + self._framing + b"\r\n\r\n")
                self._muted, self._framing = False, None
            return data[upgrade.args[0] :]
        return b""

    # --- parser callbacks -------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._muted:
            return
        super().on_message_begin()
        if self._progress:  # the first head's time counts from the connection's start
            self._since = self._seen
        self._began, self._in_body, self._drained = True, False, 0

    def on_url(self, url: bytes) -> None:
        if not self._muted:
            self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header; drop a trailer, which must not merge (RFC 9110 §6.5.1).

        Does itself what uvicorn's does: it is called for every line of every request.
        """
        if self._in_body:
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._muted:
            return
        if self.transport.is_closing():  # RFC 9112 §9.6: nothing more is processed
            raise _Refused(400, "The connection is closed.")
        self._in_body = True
        self._body_since, self._arrived = self._seen, 0
        if len(self.headers) > self.limits.headers:
            raise _Refused(431, "The request has too many header fields.")
        hosts = 0
        coding = length = None
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding":
                coding = value
            elif name == b"content-length":
                length = value
        if self.parser.get_http_version() not in {"1.1", "1.0"}:  # llhttp takes 0.9 and 2.0 too
            raise _Refused(400, "Only versions 1.0 and 1.1 of HTTP are understood.")
        if hosts != 1 and (hosts > 1 or self.parser.get_http_version() == "1.1"):
            raise _Refused(400, "The request needs exactly one Host header.")  # RFC 9112 §3.2
        # A coding that we did not decode, or one that an HTTP/1.0 hop did not understand, means a
        # body whose end is in dispute (RFC 9112 §6.1).
        if coding is not None and (
            coding.lower() != b"chunked" or self.parser.get_http_version() == "1.0"
        ):
            raise _Refused(501, "Only the transfer coding `chunked` is understood.")
        if self.parser.should_upgrade():
            if coding is not None:
                self._framing = b"Transfer-Encoding: chunked"
            elif length is not None and int(length):
                self._framing = b"Content-Length: " + length
        admission = self._admission
        admitted: float | None = None
        if admission is not None and self.url in self._mail and self._asks():
            reason = admission.refusal(0 if length is None else int(length))
            if reason is not None:
                self._turn_away(admission, reason)
                return
            admitted = 0.0
        super().on_headers_complete()
        if self._gate.leaving:
            self.cycle.keep_alive = False
        whole: Any = partial(self._answer, self.cycle)
        extensions: dict[str, Any] = {ANSWER: whole}
        if admission is not None:
            extensions[ADMITTED] = admitted
        self.scope["extensions"] = extensions

    def on_body(self, body: bytes) -> None:
        self._progress += 1
        size = len(body)
        self._arrived += size
        if self._refusing or self.cycle.response_complete:
            self._drained += size
            if self._drained > self.limits.drain_bytes:
                self.transport.abort()
            return
        if self._admission is not None:
            self._admission.hold(size)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._framing is not None:  # llhttp ends an upgrade's message at its head
            return
        self._progress += 1
        self._began = False
        if self._refusing:
            self._refusing = False
            if self._closes:
                self.transport.close()
            return
        super().on_message_complete()
        if self.cycle.response_complete and not self.cycle.keep_alive:
            self.transport.close()
        if self._admission is not None and not self.cycle.response_complete:
            extensions: dict[str, Any] = self.scope["extensions"]
            if extensions[ADMITTED] == 0.0:
                extensions[ADMITTED] = self._admission.enter()

    # --- bounds in time ---------------------------------------------------------------------------

    def pause_writing(self) -> None:
        self._write_paused_at = self.loop.time()
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        self._write_paused_at = None
        super().resume_writing()
        if not self.pipeline:
            self.flow.resume_reading()

    def sweep(self, now: float) -> None:
        """End the connection when the client is too slow. `now` is the loop's time in seconds."""
        limits = self.limits
        if self.transport.is_closing():  # it waits for what was written to be read
            if self._closing_since is None:
                self._closing_since = now
            elif now - self._closing_since > limits.write_timeout:
                self.transport.abort()
        elif self._write_paused_at is not None:
            if now - self._write_paused_at > limits.write_timeout:
                self.transport.abort()
        elif not self._began:
            if not self._progress and now - self._since > limits.keep_alive:
                self.transport.close()  # connected and never spoke
        elif self.flow.read_paused:  # it is we who are slow
            self._body_since, self._arrived = now, 0
            if not self._in_body:
                self._since = now
        elif not self._in_body:
            if now - self._since > limits.head_timeout:
                self._refuse(_Refused(408, "The request's headers took too long."))
        elif now - self._since > limits.request_timeout:
            self._refuse(_Refused(408, "The request's body took too long."))
        elif (
            limits.min_rate
            and (passed := now - self._body_since) > limits.min_rate_grace
            and self._arrived < limits.min_rate * passed
        ):
            self._refuse(_Refused(408, "The request's body arrives too slowly."))

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back what nobody will fetch: bytes that no application has read, and requests that
        waited for an earlier one."""
        super().connection_lost(exc)
        admission = self._admission
        if admission is None:
            return
        waiting = [cycle for cycle, _ in self.pipeline]
        for cycle in waiting if self.cycle in waiting else [*waiting, self.cycle]:
            if cycle is not None:
                _forget_body(cycle, admission)
        for cycle in waiting:
            entered = cycle.scope["extensions"][ADMITTED]
            if entered:
                admission.leave(entered, accepted=None)
        self.pipeline.clear()

    def leave(self) -> None:
        """The gate is `leaving`: that goes for what is not answered yet, too (the newest of it, as
        the connection ends with it)."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.keep_alive = False

    # --- refusing ---------------------------------------------------------------------------------

    def _asks(self) -> bool:
        """Whether a request to a mail path may be refused here. Not while an earlier one is due an
        answer, which a refusal must not overtake: the application asks for those."""
        cycle: RequestResponseCycle | None = self.cycle
        return (
            self._framing is None
            and self.parser.get_method() == b"POST"
            and (cycle is None or cycle.response_complete)
        )

    def _turn_away(self, admission: Admission, reason: Reason) -> None:
        """503 at the end of the head: no task, no key looked up, no body kept. The connection
        stays, but for clients that wait to be asked for their body: whether it follows is open
        then (RFC 9110 §10.1.1)."""
        self._refusing = True
        self._closes = self._gate.leaving or not self.parser.should_keep_alive()
        stays = not self.expect_100_continue and not self._closes
        answer = _rendered(
            _Refused(503, WORDS[reason]),
            self.server_state.default_headers,
            retry_after=admission.refuse(reason),
            stays=stays,
        )
        self.transport.write(answer)
        if self.expect_100_continue:
            self.transport.close()

    def _await_next(self) -> None:
        """As uvicorn does after an answer: the connection may idle for so long. Also after bytes
        that begin nothing, or end a body whose answer was early: uvicorn then never ends it."""
        cycle: RequestResponseCycle | None = self.cycle
        if self._began or self.transport.is_closing() or not self._progress:
            return
        if cycle is not None and not cycle.response_complete:
            return
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def _refuse(self, refused: "_Refused") -> None:
        """Answer in JSON and close; never in place of an answer that an earlier request is due."""
        REFUSED.add(1, str(refused.status))
        cycle: RequestResponseCycle | None = self.cycle
        answered = cycle is not None and cycle.response_complete and self._in_body
        if self._refusing or (self._began and answered):  # it has its answer
            self.transport.close()
            return
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:  # a whole request came before the bad bytes: answer that one
                cycle.keep_alive = False
                self.flow.pause_reading()
                return
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started or self.pipeline:
                self.transport.abort()
                return
        self._began = False
        self.transport.write(_rendered(refused, self.server_state.default_headers))
        self.transport.close()

    # --- answering --------------------------------------------------------------------------------

    async def _answer(
        self,
        cycle: RequestResponseCycle,
        status: int,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes,
    ) -> None:
        """ASGI's two messages of an answer as one write: uvloop writes at once, so two writes are
        two system calls and two packets. `headers` are ours and hold no line breaks."""
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected:
            return
        # Whether its body follows is open (RFC 9110 §10.1.1).
        unasked = cycle.waiting_for_100_continue and cycle.more_body
        if unasked:
            cycle.keep_alive = False
        parts = [STATUS_LINE[status]]
        for name, value in cycle.default_headers:
            parts += (name, b": ", value, b"\r\n")
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
        parts.append(b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n")
        if cycle.scope["method"] != "HEAD":
            parts.append(body)
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.message_event.set()
        cycle.transport.write(b"".join(parts))
        if cycle.body and self._admission is not None:
            _forget_body(cycle, self._admission)
        if not cycle.keep_alive and (unasked or not cycle.more_body):  # else when it was read
            cycle.transport.close()
        cycle.on_response()


def _forget_body(cycle: RequestResponseCycle, admission: Admission) -> None:
    """Nobody will read what is left of it."""
    admission.release(len(cycle.body))
    cycle.body = bytearray()


_NAMES = {408: "request_timeout", 501: "not_implemented", 503: "service_unavailable"}


def _rendered(
    refused: _Refused,
    defaults: list[tuple[bytes, bytes]],
    *,
    retry_after: int = 1,
    stays: bool = False,
) -> bytes:
    answer = problem(
        refused.status, _NAMES.get(refused.status, "validation_error"), refused.message
    )
    lines = [STATUS_LINE[refused.status]]
    lines += [name + b": " + value + b"\r\n" for name, value in defaults]
    lines.append(b"content-type: application/json\r\ncache-control: no-store\r\n")
    if refused.status == 503:
        lines.append(b"retry-after: %d\r\n" % retry_after)
    if not stays:
        lines.append(b"connection: close\r\n")
    lines.append(b"content-length: %d\r\n\r\n" % len(answer.body))
    return b"".join(lines) + answer.body
