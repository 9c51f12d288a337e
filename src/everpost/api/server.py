"""The one place that runs uvicorn: several listeners in one process and loop, no signal handlers,
a bounded graceful end. Why uvicorn: docs/decisions/0003-http-server.md."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any, cast

import uvicorn

from everpost import telemetry
from everpost.api.admission import Admission
from everpost.api.asgi import App
from everpost.api.protocol import Gate, HttpLimits, Protocol
from everpost.net.listener import close_empty

__all__ = ["HttpServer"]

_LAST_WORDS = 0.5
"""Seconds for cancelled requests to be answered, and again for the answers to be flushed."""
_FLUSHES = 10

_LINGER_S = 2.0
"""So long an idle connection stays after the last accept. A proxy may be sending on it at this very
moment, and cannot know whether a request was acted on that it gets no answer to. What comes is
answered with `Connection: close` (RFC 9112 §9.6)."""
_LOOK_S = 0.05


class HttpServer:
    """Serves applications on sockets that somebody else bound (the supervisor).

    `serve` runs until `shutdown`; call it once for each application, each in its own task.
    `admission`, shared with the applications, is asked about emails and counts body bytes.
    """

    def __init__(
        self, limits: HttpLimits | None = None, *, admission: Admission | None = None
    ) -> None:
        self._gate = Gate(limits or HttpLimits(), admission)
        self._listeners: list[_Listener] = []
        _log_as_events()

    async def serve(
        self,
        app: App,
        sockets: Sequence[Any],
        *,
        ready: asyncio.Event | None = None,
        mail: frozenset[bytes] = frozenset(),
    ) -> None:
        """Accept on `sockets` (listening stream sockets, TCP or unix; closed at the end).

        A POST to a path in `mail` is refused at the end of its head when it is not admitted.
        `ready` is set once they accept. Cancelling this task ends the listener
        at once; `shutdown` ends it gracefully.
        """
        listener = _Listener(_Config(app, self._gate, mail), ready)
        self._listeners.append(listener)
        try:
            await listener.serve(sockets=list(sockets))
            await listener.settle()
        finally:
            listener.abort()
            listener.finished.set()
            self._listeners.remove(listener)

    @property
    def connections(self) -> int:
        """Connections that are open now, of all listeners."""
        return sum(len(each.server_state.connections) for each in self._listeners)

    def most_connections(self, count: int) -> None:
        """From now on a listener takes so many and answers more with 503."""
        self._gate.connections = count

    def pause(self) -> None:
        """Accept nothing: what comes waits in the kernel's queue. Open connections are served."""
        for listener in self._listeners:
            listener.pause()

    async def resume(self) -> None:
        """Accept again. Raises OSError when there is no descriptor for it; call it again, then."""
        for listener in tuple(self._listeners):
            await listener.resume()

    def leave(self) -> None:
        """The end is near: what is answered from now on is the last of its connection. New ones
        are still taken."""
        self._gate.leaving = True

    async def shutdown(self, deadline: float) -> None:
        """Stop accepting, let running requests finish for up to `deadline` seconds, then cut. Idle
        connections may bring one more each, within two seconds of these."""
        self.leave()
        listeners = tuple(self._listeners)
        for listener in listeners:
            listener.stop(deadline)
        for listener in listeners:
            await listener.finished.wait()


class _Config(uvicorn.Config):
    def __init__(self, app: App, gate: Gate, mail: frozenset[bytes]) -> None:
        super().__init__(
            cast(Any, app),
            http=Protocol,
            ws="none",
            loop="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=cast(int, gate.limits.keep_alive),
        )
        self.gate = gate
        self.mail = mail


class _Listener(uvicorn.Server):
    """uvicorn's server, told to leave signals alone and to look after slow clients."""

    def __init__(self, config: _Config, ready: asyncio.Event | None) -> None:
        super().__init__(config)
        self.finished = asyncio.Event()
        self._ready = ready
        self._stop = asyncio.Event()
        self._spares: list[Any] = []
        self._paused = False
        self._deadline = 0.0

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's business, not a listener's."""
        yield

    async def main_loop(self) -> None:
        """Once a second: the Date header, and clients that are too slow."""
        loop = asyncio.get_running_loop()
        if self._ready is not None:
            self._ready.set()
        while not self._stop.is_set():
            await self.on_tick(0)
            now = loop.time()
            for connection in tuple(self.server_state.connections):
                cast(Protocol, connection).sweep(now)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._stop.wait()

    async def startup(self, sockets: list[Any] | None = None) -> None:
        """Keeps a second handle on each listening socket, so that it outlives a pause."""
        self._spares = [sock.dup() for sock in sockets or ()]
        await super().startup(sockets=sockets)

    def pause(self) -> None:
        if self._paused or not self._spares:
            return
        self._paused = True
        for server in self.servers:
            server.close()

    async def resume(self) -> None:
        if not self._paused:
            return
        loop = asyncio.get_running_loop()
        backlog = self.config.backlog
        fresh: list[asyncio.base_events.Server] = []
        try:
            for spare in self._spares:
                server = await loop.create_server(self._protocol, sock=spare.dup(), backlog=backlog)
                fresh.append(server)
        except OSError:
            for server in fresh:
                server.close()
            raise
        self.servers[:] = fresh
        self._paused = False

    def _protocol(self) -> Protocol:
        return Protocol(self.config, self.server_state, self.lifespan.state)

    def stop(self, deadline: float) -> None:
        self._deadline = deadline
        self.should_exit = True
        self._stop.set()

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
        """Accept nothing from now on, linger, then end as uvicorn does."""
        for server in self.servers:
            server.close()
        for sock in sockets or ():
            sock.close()
        await self._take_the_last()
        for connection in tuple(self.server_state.connections):
            cast(Protocol, connection).leave()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._deadline
        for _ in range(int(min(_LINGER_S, self._deadline) / _LOOK_S)):
            if self.server_state.connections:
                await asyncio.sleep(_LOOK_S)
        self.config.timeout_graceful_shutdown = cast(int, max(deadline - loop.time(), 0))
        await super().shutdown()

    async def _take_the_last(self) -> None:
        """Let in who waits in the kernel's queue as the sockets close."""
        last = [each for spare in self._spares for each in close_empty(spare)]
        self._spares = []
        loop = asyncio.get_running_loop()
        for connection in last:
            with contextlib.suppress(OSError):
                await loop.connect_accepted_socket(self._protocol, connection)

    async def settle(self) -> None:
        """Let requests that the deadline cancelled send their last words."""
        if tasks := set(self.server_state.tasks):
            await asyncio.wait(tasks, timeout=_LAST_WORDS)
        connections = self.server_state.connections
        for connection in tuple(connections):
            connection.transport.close()
        for _ in range(_FLUSHES):
            if connections:
                await asyncio.sleep(_LAST_WORDS / _FLUSHES)

    def _let_spares_go(self) -> None:
        for spare in self._spares:
            spare.close()
        self._spares = []

    def abort(self) -> None:
        """Cut what is still connected."""
        self._let_spares_go()
        for server in getattr(self, "servers", ()):
            server.close()
        for connection in tuple(self.server_state.connections):
            connection.transport.abort()


class _Events(logging.Handler):
    """uvicorn's own log lines, as events."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, asyncio.CancelledError):  # by the shutdown's deadline
            return
        telemetry.event(
            "http.server",
            level=record.levelname.lower(),
            text=record.getMessage(),
            error=None if error is None else repr(error),
        )


def _log_as_events() -> None:
    logger = logging.getLogger("uvicorn.error")
    if not any(isinstance(handler, _Events) for handler in logger.handlers):
        logger.addHandler(_Events(level=logging.WARNING))
        logger.setLevel(logging.WARNING)
        logger.propagate = False
