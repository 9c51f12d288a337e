"""What peers reach of this node: `PUT /journal/entries`, and nothing else.

An ASGI application; the server around it bears what an open port must. In its answer everybody
without the secret is alike, and nothing of theirs is read."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from everpost import telemetry
from everpost.clock import Clock
from everpost.journal import signing
from everpost.journal.book import Journal
from everpost.journal.entry import Entry, decode
from everpost.store.interface import StoreError

__all__ = ["BODY_BYTES", "PeerDoor"]

_ASKED = telemetry.counter(
    "everpost_journal_peer_requests_total", "Requests of peers to keep copies", ("status",)
)

BODY_BYTES = 96 << 20
"""Largest request: the largest batch that a node accepts, sealed, and some."""
_HELD_BYTES = 2 * BODY_BYTES
"""Bodies in memory at once, of all peers."""

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_bodies = msgspec.msgpack.Decoder(list[bytes]).decode


class _Refused(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class PeerDoor:
    """`name`: this node's."""

    def __init__(self, *, journal: Journal, secret: bytes, name: str, clock: Clock) -> None:
        self._journal = journal
        self._secret = secret
        self._name = name
        self._clock = clock
        self._held = 0

    async def __call__(self, scope: _Scope, receive: _Receive, sender: _Send) -> None:
        """Answer one request. Never raises but for cancellation."""
        try:
            status, body = 200, await self._keep(scope, receive)
        except _Refused as refused:
            status, body = refused.status, b""
        except StoreError as error:
            telemetry.event("journal.copy_refused", error=str(error))
            status, body = 503, b""
        except Exception as error:
            telemetry.event("journal.peer_fault", error=repr(error))
            status, body = 500, b""
        _ASKED.add(1, str(status))
        headers = [
            (b"content-length", b"%d" % len(body)),
            (b"content-type", b"text/plain"),
            (b"cache-control", b"no-store"),
        ]
        await sender({"type": "http.response.start", "status": status, "headers": headers})
        await sender({"type": "http.response.body", "body": body})

    async def _keep(self, scope: _Scope, receive: _Receive) -> bytes:
        if scope["raw_path"] != signing.PATH:
            raise _Refused(404)
        if scope["method"] != "PUT":
            raise _Refused(405)
        digest, signature, length = self._known(scope)
        if self._held + length > _HELD_BYTES:
            raise _Refused(503)
        self._held += length
        try:
            body = await _read(receive, length)
            # Hashing 96 MiB takes 60 ms: beside the loop.
            found = await asyncio.to_thread(hashlib.sha256, body)
            if not signing.same(found.hexdigest().encode(), digest):
                raise _Refused(403)
            await self._journal.hold(_entries(body))
        finally:
            self._held -= length
        return signing.signed_answer(self._secret, self._name, signature)

    def _known(self, scope: _Scope) -> tuple[bytes, bytes, int]:
        """Digest, signature and length of a request that a node has signed just now."""
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in headers:  # two answers to one question are an attempt at confusion
                raise _Refused(403)
            headers[name] = value
        time, digest, signature = (
            headers.get(name, b"") for name in (signing.TIME, signing.DIGEST, signing.SIGNATURE)
        )
        wanted = signing.sign(self._secret, time, digest)
        if not (signing.same(wanted, signature) & signing.is_fresh(time, self._clock.now())):
            raise _Refused(403)
        length = headers.get(b"content-length", b"")
        if not length.isdigit():
            raise _Refused(411)
        if len(length) > 12 or int(length) > BODY_BYTES:
            raise _Refused(413)
        return digest, signature, int(length)


async def _read(receive: _Receive, length: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise _Refused(400)
        body += message.get("body", b"")
        if len(body) > length:
            raise _Refused(413)
        if not message.get("more_body"):
            return bytes(body)


def _entries(body: bytes) -> list[tuple[Entry, bytes]]:
    try:
        return [(decode(each), each) for each in _bodies(body)]
    except (ValueError, msgspec.DecodeError):
        raise _Refused(422) from None
