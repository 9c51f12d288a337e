"""HTTP/1.1 connections that are kept and carry one request at a time, for who makes many requests
and must spend little on each. The caller hands in the whole request as bytes."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import cast

import httptools

__all__ = ["KeepAlive", "addresses_of", "connect"]

MOST_BYTES = 16 * 1024 * 1024
"""Longest answer that is read."""

Answered = Callable[["KeepAlive", int, bytes, str | None], None]
"""Connection, status, body and Retry-After of an answer (RFC 9110 §10.2.3)."""
Lost = Callable[["KeepAlive", str], None]
"""Connection and why it ended: `reset`, `closed` or `garbled`."""


class KeepAlive(asyncio.Protocol):
    """One connection. `answered` is called when a request was answered and the next may follow if
    `usable`; `lost` once, when the connection ended without our doing."""

    def __init__(self, answered: Answered, lost: Lost) -> None:
        self._answered = answered
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._size = 0
        self._retry_after: str | None = None
        self.busy = False
        """A request is out and not answered."""
        self.usable = False

    def send(self, request: bytes) -> None:
        """Send one request; only while `usable` and not `busy`."""
        assert self._transport is not None
        self.busy = True
        self._transport.write(request)

    def abort(self) -> None:
        """End it at once, telling nobody."""
        transport, self._transport = self._transport, None
        self.usable = False
        if transport is not None:
            transport.abort()

    # --- transport --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is no subclass
        self.usable = True

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._end("garbled")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._end("closed" if exc is None else "reset")

    def _end(self, why: str) -> None:
        self.abort()
        self._lost(self, why)

    # --- the parser's callbacks -------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) == 11 and name.lower() == b"retry-after":
            self._retry_after = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > MOST_BYTES:
            self._end("garbled")
        elif self._transport is not None:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._transport is None:
            return
        status = self._parser.get_status_code()
        if status < 200:  # an interim answer (RFC 9110 §15.2); the real one follows
            return
        if not self.busy:
            self._end("garbled")
            return
        body = b"".join(self._body)
        retry_after, self._retry_after = self._retry_after, None
        self._body, self._size = [], 0
        self.busy = False
        if not self._parser.should_keep_alive():
            transport, self._transport = self._transport, None
            self.usable = False
            transport.close()
        self._answered(self, status, body, retry_after)


async def addresses_of(host: str, port: int) -> list[str]:
    """The addresses of a host, as the system orders them. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def connect(
    make: Callable[[], KeepAlive],
    addresses: Sequence[str],
    port: int,
    *,
    within: float,
    tls: ssl.SSLContext | None = None,
    host: str | None = None,
) -> KeepAlive:
    """Connect to the first address that answers, within so many seconds in all; with `tls`, `host`
    is the name that the certificate must bear. Raises OSError."""
    loop = asyncio.get_running_loop()
    failure: OSError = ConnectionError("no address")
    async with asyncio.timeout(within):
        for address in addresses:
            try:
                _, connection = await loop.create_connection(
                    make, address, port, ssl=tls, server_hostname=host if tls else None
                )
                return connection
            except OSError as error:
                failure = error
    raise failure
