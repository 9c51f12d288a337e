"""The open loop: requests start when they are due, whether earlier ones were answered or not."""

import asyncio
import re
import ssl
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import msgspec

from everpost.clock import Clock
from everpost.loadtest.measure import Measure, StepTally
from everpost.loadtest.mix import Mix
from everpost.loadtest.plan import MOST_MESSAGES, Arrivals, Step, offsets
from everpost.net.keepalive import KeepAlive, connect

__all__ = ["Generator", "Target"]

_SWEEP_S = 0.1
_AT_FIRST = 8
"""Connections that are opened before the first request."""
_ID = re.compile(rb'"id" ?: ?"([^"]{1,128})"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where requests go, and how. `addresses` are those that were looked at and found allowed;
    `authority` is what Host says. `timeout`: seconds from the intended start."""

    addresses: Sequence[str]
    port: int
    host: str
    authority: str
    prefix: str = ""
    key: str | None = None
    tls: ssl.SSLContext | None = None
    batch: int = 1
    idempotency: bool = False
    connections: int = 256
    timeout: float = 30.0

    def head(self) -> bytes:
        """A request's head up to its last two fields."""
        path = "/emails/batch" if self.batch > 1 else "/emails"
        lines = [
            f"POST {self.prefix}{path} HTTP/1.1",
            f"Host: {self.authority}",
            "User-Agent: everpost-loadtest",
            "Content-Type: application/json",
        ]
        if self.key:
            lines.append(f"Authorization: Bearer {self.key}")
        return "\r\n".join(lines).encode()


@dataclass(slots=True, eq=False)
class _Request:
    """One request: messages `first` and following, due at `intended`."""

    tally: StepTally
    intended: float
    first: int
    kinds: list[int] = field(default_factory=list)


class _Answer(msgspec.Struct):
    """What is read of an answer: an id, or those of a batch."""

    id: str = ""
    data: list["_Answer"] = []


class Generator:
    """Plays steps against a target. `stop` lets no further request start."""

    def __init__(
        self,
        target: Target,
        mix: Mix,
        measure: Measure,
        *,
        clock: Clock,
        chance: Random,
        arrivals: Arrivals = Arrivals.UNIFORM,
        most: int = MOST_MESSAGES,
    ) -> None:
        """`most`: messages in all, whatever the steps come to."""
        self._target = target
        self._mix = mix
        self._measure = measure
        self._now = clock.monotonic
        self._chance = chance
        self._arrivals = arrivals
        self._most = most
        self._head = target.head()
        self._read = msgspec.json.Decoder(_Answer).decode
        self._idle: deque[KeepAlive] = deque()
        self._out: dict[KeepAlive, _Request] = {}
        self._waiting: deque[_Request] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._stopped = asyncio.Event()
        self.most_connections = 0
        self.most_waiting = 0

    async def open(self) -> None:
        """Make the first connections. Raises OSError when there is nobody."""
        for _ in range(min(_AT_FIRST, self._target.connections)):
            self._idle.append(await self._connect())
        self.most_connections = len(self._idle)
        self._sweep()

    def stop(self) -> None:
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    async def play(self, step: Step, at: float) -> StepTally:
        """Start the step's requests, the step beginning at `at`; return at its end, when some may
        still be unanswered. A step that is stopped ends when it is."""
        tally = self._measure.begin(step, at)
        due = offsets(step, self._arrivals, self._chance, batch=self._target.batch)
        # Independent arrivals may be more than were expected, and no more than were allowed.
        del due[max(self._most - self._measure.planned, 0) // self._target.batch :]
        next_, count = 0, len(due)
        while next_ < count and not self.stopped:
            now = self._now()
            while next_ < count and at + due[next_] <= now:
                self._start(tally, at + due[next_], self._now())
                next_ += 1
            if next_ < count:
                await self._until(at + due[next_])
        await self._until(tally.ended)
        if self.stopped:
            tally.ended = min(tally.ended, self._now())
        return tally

    @property
    def quiet(self) -> bool:
        """Whether each request that was due has its answer."""
        return not self._out and not self._waiting

    async def close(self) -> None:
        """Cut all connections; what is unanswered by now counts as unfinished."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        while self._out:
            connection, request = self._out.popitem()
            connection.abort()
            self._fail(request, "unfinished")
        while self._waiting:
            self._fail(self._waiting.popleft(), "unsent")
        while self._idle:
            self._idle.pop().abort()

    # -- starting ----------------------------------------------------------------------------------

    async def _until(self, moment: float) -> None:
        """Wait until then, or until stopped."""
        wait = moment - self._now()
        if self.stopped:
            return
        if wait < 0.25:  # the usual: the cheap wait
            await asyncio.sleep(max(wait, 0))
            return
        try:
            async with asyncio.timeout(wait):
                await self._stopped.wait()
        except TimeoutError:
            pass

    def _start(self, tally: StepTally, intended: float, now: float) -> None:
        tally.lag.add(now - intended)
        mix, measure = self._mix, self._measure
        kinds = [mix.pick() for _ in range(self._target.batch)]
        numbers = [measure.number(tally, intended, mix.recipients(kind)) for kind in kinds]
        request = _Request(tally, intended, numbers[0], kinds)
        if self._idle:
            self._send(self._idle.popleft(), request)
            return
        self._waiting.append(request)
        self.most_waiting = max(self.most_waiting, len(self._waiting))
        self._open_one()

    def _send(self, connection: KeepAlive, request: _Request) -> None:
        now = self._now()
        request.tally.queued.add(now - request.intended)
        self._measure.was_sent(request.tally, len(request.kinds), now)
        self._out[connection] = request
        connection.send(self._bytes(request))

    def _bytes(self, request: _Request) -> bytes:
        bodies = [self._mix.body(kind, n) for n, kind in enumerate(request.kinds, request.first)]
        body = bodies[0] if self._target.batch == 1 else b"[" + b",".join(bodies) + b"]"
        key = b""
        if self._target.idempotency:
            key = b"\r\nIdempotency-Key: %b-%d" % (self._measure.run.encode(), request.first)
        return b"%b%b\r\nContent-Length: %d\r\n\r\n%b" % (self._head, key, len(body), body)

    # -- connections -------------------------------------------------------------------------------

    async def _connect(self) -> KeepAlive:
        target = self._target
        return await connect(
            lambda: KeepAlive(self._answered, self._lost),
            target.addresses,
            target.port,
            within=target.timeout,
            tls=target.tls,
            host=target.host,
        )

    def _open_one(self) -> None:
        """One more connection, if there may be one."""
        open_ = len(self._idle) + len(self._out) + len(self._opening)
        if open_ >= self._target.connections:
            return
        self.most_connections = max(self.most_connections, open_ + 1)
        task = asyncio.get_running_loop().create_task(self._open_for_waiting())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open_for_waiting(self) -> None:
        try:
            connection = await self._connect()
        except OSError:
            # No connection, no request: the one that has waited longest has failed.
            if self._waiting:
                self._fail(self._waiting.popleft(), "connect")
            return
        self._free(connection)

    def _free(self, connection: KeepAlive) -> None:
        """The connection may carry the next request."""
        if not connection.usable:
            if self._waiting:
                self._open_one()
        elif self._waiting:
            self._send(connection, self._waiting.popleft())
        else:
            self._idle.append(connection)

    def _answered(
        self, connection: KeepAlive, status: int, body: bytes, retry_after: str | None
    ) -> None:
        request = self._out.pop(connection)
        if retry_after is not None:  # reported, not obeyed: the rate is ours to choose
            self._measure.retry_after[retry_after[:40]] += 1
        ids = self._ids(body, len(request.kinds)) if 200 <= status < 300 else None
        if ids is None:
            self._fail(request, f"status {status}" if status >= 300 else "not understood")
        else:
            self._measure.was_accepted(
                request.tally, request.first, ids, intended=request.intended, now=self._now()
            )
        self._free(connection)

    def _ids(self, body: bytes, count: int) -> list[str] | None:
        """The ids that the answer gives, or None when it is not what it should be."""
        if count == 1 and (found := _ID.search(body)) is not None:
            return [found[1].decode("utf-8", "replace")]
        try:
            answer = self._read(body)
        except msgspec.DecodeError:
            return None
        ids = [each.id for each in answer.data]
        return ids if len(ids) == count else None

    def _lost(self, connection: KeepAlive, why: str) -> None:
        request = self._out.pop(connection, None)
        if request is not None:
            self._fail(request, why)
        elif connection in self._idle:
            self._idle.remove(connection)
        if self._waiting:
            self._open_one()

    def _fail(self, request: _Request, kind: str) -> None:
        self._measure.has_failed(
            request.tally,
            request.first,
            len(request.kinds),
            kind,
            intended=request.intended,
            now=self._now(),
        )

    def _sweep(self) -> None:
        """Fail what has had its time."""
        limit = self._now() - self._target.timeout
        for connection in [c for c, request in self._out.items() if request.intended < limit]:
            request = self._out.pop(connection)
            connection.abort()
            self._fail(request, "timeout")
        while self._waiting and self._waiting[0].intended < limit:
            self._fail(self._waiting.popleft(), "unsent")
        for _ in range(min(len(self._waiting), self._target.connections)):
            self._open_one()
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)
