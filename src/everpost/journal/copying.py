"""Leaving copies with peers: one connection to each, what waits for it in one request."""

import asyncio
import hashlib
import ssl
from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from everpost import telemetry
from everpost.clock import Clock
from everpost.journal import signing
from everpost.net.http import Origin
from everpost.net.keepalive import KeepAlive, addresses_of, connect
from everpost.store.cluster import NodeRow

__all__ = ["Peers"]

_COPIES = telemetry.counter(
    "everpost_journal_copies_total", "Requests to peers to keep copies", ("outcome",)
)

_STEP = 1 / 3
"""Part of the time there is after which a peer that is silent gets help of the next one."""
_ANSWER_S = 5.0
"""Nobody who accepts waits so long; the connection is given up then."""
_CONNECT_S = 2.0
_SICK_S = 5.0
_BATCH_OCTETS = 16 << 20
_WAITING_OCTETS = 64 << 20
_MOST_WAITING = 2_000

_encode = msgspec.msgpack.Encoder().encode


class Peers:
    """`copy` asks one peer after the other until one has it. `nodes` names them now; `within_s` is
    how long an answer waits for a copy, in seconds; `name` is this node's."""

    def __init__(
        self,
        nodes: Callable[[], Mapping[str, NodeRow]],
        *,
        secret: bytes,
        name: str,
        clock: Clock,
        within_s: float,
    ) -> None:
        self._nodes = nodes
        self._secret = secret
        self._name = name
        self._clock = clock
        self._within_s = within_s
        self._turn = 0
        self._lines: dict[str, _Line] = {}
        self._asked: set[asyncio.Task[bool]] = set()

    async def copy(self, body: bytes) -> bool:
        """Whether a peer has it, flushed. One that answers too late has it all the same."""
        lines = self._in_order()
        if not lines:
            return False
        until = self._clock.monotonic() + self._within_s
        asked: set[asyncio.Task[bool]] = set()
        while lines or asked:
            left = until - self._clock.monotonic()
            if lines:
                asked.add(self._ask(lines.pop(0), body))
                left = min(left, self._within_s * _STEP) if lines else left
            done, asked = await asyncio.wait(
                asked, timeout=max(left, 0.0), return_when=asyncio.FIRST_COMPLETED
            )
            if any(task.result() for task in done):
                return True
            if self._clock.monotonic() >= until:
                return False
        return False

    def _ask(self, line: "_Line", body: bytes) -> "asyncio.Task[bool]":
        task = asyncio.ensure_future(line.send(body))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)
        return task

    def _in_order(self) -> "list[_Line]":
        """In turns, so that the copies spread; who was silent lately comes last."""
        nodes = self._nodes()
        for name in [name for name in self._lines if name not in nodes]:
            self._lines.pop(name).close()
        for name, node in nodes.items():
            line = self._lines.get(name)
            if line is None or line.address != node.address:
                if line is not None:
                    line.close()
                self._lines[name] = _Line(
                    node.address, secret=self._secret, name=self._name, clock=self._clock
                )
        lines = [self._lines[name] for name in sorted(nodes)]
        if lines:
            self._turn = (self._turn + 1) % len(lines)
            lines = lines[self._turn :] + lines[: self._turn]
        return sorted(lines, key=lambda line: line.is_sick(self._within_s))

    def close(self) -> None:
        """End all connections; what is asked has no answer."""
        for line in self._lines.values():
            line.close()
        self._lines.clear()


class _Line:
    """One peer. Requests go out one after the other, each with all that waits."""

    def __init__(self, address: str, *, secret: bytes, name: str, clock: Clock) -> None:
        self.address = address
        self._secret = secret
        self._name = name
        self._clock = clock
        self._waiting: list[tuple[bytes, asyncio.Future[bool]]] = []
        self._octets = 0
        self._sending: asyncio.Task[None] | None = None
        self._connection: KeepAlive | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._failed_at: float | None = None
        self._asked_at: float | None = None

    def is_sick(self, patience_s: float) -> bool:
        """Whether it has failed lately, or has been silent for longer than anybody waits."""
        now = self._clock.monotonic()
        failed = self._failed_at is not None and now - self._failed_at < _SICK_S
        return failed or (self._asked_at is not None and now - self._asked_at > patience_s)

    async def send(self, body: bytes) -> bool:
        """Whether the peer has it."""
        full = self._octets + len(body) > _WAITING_OCTETS or len(self._waiting) >= _MOST_WAITING
        if self._waiting and full:
            return False
        stored: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((body, stored))
        self._octets += len(body)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.ensure_future(self._send_all())
        return await stored

    def close(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
        self._hang_up()
        for _, stored in self._waiting:
            if not stored.done():
                stored.set_result(False)
        self._waiting.clear()

    async def _send_all(self) -> None:
        while self._waiting:
            batch = self._batch()
            kept = False
            try:
                self._asked_at = self._clock.monotonic()
                kept = await self._exchange([body for body, _ in batch])
            finally:
                self._asked_at = None
                self._failed_at = None if kept else self._clock.monotonic()
                _COPIES.add(1, "kept" if kept else "failed")
                for _, stored in batch:
                    if not stored.done():
                        stored.set_result(kept)

    def _batch(self) -> list[tuple[bytes, "asyncio.Future[bool]"]]:
        taken: list[tuple[bytes, asyncio.Future[bool]]] = []
        octets = 0
        for body, stored in self._waiting:
            octets += len(body)
            if taken and octets > _BATCH_OCTETS:
                break
            taken.append((body, stored))
        del self._waiting[: len(taken)]
        self._octets -= sum(len(body) for body, _ in taken)
        return taken

    async def _exchange(self, bodies: list[bytes]) -> bool:
        """Whether the peer says, and proves, that it has these on its disk."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                origin = Origin.from_url(self.address)
                connection = await self._connected(origin)
                request, signature = self._request(origin, _encode(bodies))
                self._answer = asyncio.get_running_loop().create_future()
                connection.send(request)
                status, answer = await self._answer
        except (OSError, TimeoutError, ValueError) as error:
            telemetry.event("journal.peer_failed", peer=self.address, error=repr(error))
            self._hang_up()
            return False
        except asyncio.CancelledError:
            self._hang_up()
            raise
        if not connection.usable:
            self._connection = None
        kept = status == 200 and signing.is_stored_by(
            self._secret, answer, signature, but=self._name
        )
        if not kept:
            telemetry.event("journal.peer_refused", peer=self.address, status=status)
        return kept

    def _request(self, origin: Origin, body: bytes) -> tuple[bytes, bytes]:
        """The whole request, and its signature."""
        time = b"%d" % self._clock.now()
        digest = hashlib.sha256(body).hexdigest().encode()
        signature = signing.sign(self._secret, time, digest)
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        head = b"\r\n".join(
            (
                b"PUT " + origin.prefix.encode() + signing.PATH + b" HTTP/1.1",
                b"host: " + f"{host}:{origin.port}".encode(),
                b"content-type: application/msgpack",
                b"content-length: %d" % len(body),
                signing.TIME + b": " + time,
                signing.DIGEST + b": " + digest,
                signing.SIGNATURE + b": " + signature,
                b"",
                b"",
            )
        )
        return head + body, signature

    async def _connected(self, origin: Origin) -> KeepAlive:
        if self._connection is not None and self._connection.usable:
            return self._connection
        addresses = await addresses_of(origin.host, origin.port)
        self._connection = await connect(
            partial(KeepAlive, self._answered, self._lost),
            addresses,
            origin.port,
            within=_CONNECT_S,
            tls=ssl.create_default_context() if origin.tls else None,
            host=origin.host,
        )
        return self._connection

    def _answered(self, connection: KeepAlive, status: int, body: bytes, later: str | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((status, body))

    def _lost(self, connection: KeepAlive, why: str) -> None:
        if connection is self._connection:
            self._connection = None
            if self._answer is not None and not self._answer.done():
                self._answer.set_exception(ConnectionError(why))

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
