"""Outgoing HTTP for commands: one request at a time, over TCP, TLS or a Unix socket.

HttpError
├── Unreachable   no connection could be made; nothing was sent
└── Broken        the connection ended or stalled, or what came is not a usable answer; the request
                  may have been carried out
"""

import http.client
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Answer", "Broken", "HttpError", "Origin", "Unreachable", "request"]

ANSWER_BYTES = 128 * 1024 * 1024
"""Longest answer that is read: a message of the largest size, twice."""

SUN_PATH = 107
"""Longest path in bytes that fits a Unix socket's address (unix(7): `sun_path` is 108 bytes)."""


class HttpError(Exception):
    """A request had no answer. The text says why, for people."""


class Unreachable(HttpError):
    """No connection: nothing was sent. `errno` as the system gave it, or None."""

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno


class Broken(HttpError):
    """No usable answer came; whether the request was carried out is not known."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where requests go (RFC 9110 §4.3.1): a Unix socket, or host and port with TLS or without.
    `prefix` stands before every path."""

    host: str
    port: int
    tls: bool = False
    prefix: str = ""
    unix: Path | None = None

    @classmethod
    def from_url(cls, url: str) -> "Self":
        """`http://host:port/prefix` or `https://…`. Raises ValueError saying what is wrong."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("expected http://HOST[:PORT] or https://HOST[:PORT]")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("a name, password, query or fragment does not belong here")
        tls = parts.scheme == "https"
        port = parts.port if parts.port is not None else (443 if tls else 80)
        return cls(parts.hostname, port, tls=tls, prefix=parts.path.rstrip("/"))

    @classmethod
    def from_socket(cls, path: Path) -> "Self":
        """A Unix socket in the file system."""
        return cls("localhost", 0, unix=path)

    def __str__(self) -> str:
        if self.unix is not None:
            return str(self.unix)
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{self.prefix}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Header names in lower case; of repeated ones the last."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, *, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        if len(os.fsencode(self._path)) <= SUN_PATH:
            self.sock.connect(str(self._path))
            return
        # A deep data directory: reach the socket through its directory's descriptor.
        directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock.connect(f"/proc/self/fd/{directory}/{self._path.name}")
        finally:
            os.close(directory)


def request(
    origin: Origin,
    method: str,
    *,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    timeout_s: float = 30.0,
) -> Answer:
    """Send one request and read its answer; redirects are not followed (they would carry the key
    along). `timeout_s` bounds each wait. Raises Unreachable, Broken."""
    connection = _connection(origin, timeout_s)
    try:
        try:
            connection.connect()
        except OSError as error:
            raise Unreachable(_why(error), error.errno) from error
        try:
            connection.request(method, origin.prefix + path, body=body, headers=headers or {})
            response = connection.getresponse()
            content = response.read(ANSWER_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise Broken(_why(error)) from error
        if len(content) > ANSWER_BYTES:
            raise Broken(f"the answer is longer than {ANSWER_BYTES} bytes")
        named = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, named, content)
    finally:
        connection.close()


def _connection(origin: Origin, timeout_s: float) -> http.client.HTTPConnection:
    if origin.unix is not None:
        return _UnixConnection(origin.unix, timeout=timeout_s)
    if origin.tls:
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(
            origin.host, origin.port, timeout=timeout_s, context=context
        )
    return http.client.HTTPConnection(origin.host, origin.port, timeout=timeout_s)


def _why(error: OSError | http.client.HTTPException) -> str:
    """One line for people."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
