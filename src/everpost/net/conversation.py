"""One pump for any question-and-answer protocol without I/O.

A *script* is a generator: it yields a `Step` (bytes to send, how many answers they ask for, how
long to wait), gets the list of answers back, and so reads from top to bottom like the conversation
itself. The pump drives it from inside the transport's callbacks, so that a whole conversation costs
one future, however many steps it has; the deadline of all steps is one timer, moved lazily.

What goes wrong is thrown into the script at the step where it went wrong:

Interrupted   `answers`: what had come of this step; `written`: whether its bytes had left;
│             `unasked`: an answer that came though none was due, or None
├── Lost      the connection ended
├── TimedOut  no answer in time
└── Garbled   the far end broke the protocol

A step that asks for several answers and gets more is cut as Garbled, though none of its answers is
missing: one was too many, and only the script can know whether it matters which.
"""

import asyncio
import ssl
from collections.abc import Callable, Generator
from typing import Any, Generic, Protocol, TypeVar, cast

from everpost.net.streams import at_loopback, peer_name, tls_facts

__all__ = [
    "Conversation",
    "Core",
    "Garbled",
    "Interrupted",
    "Lost",
    "Script",
    "Step",
    "TimedOut",
]

A = TypeVar("A")
T = TypeVar("T")


class Interrupted(Exception):
    """The conversation cannot go on."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.answers: list[Any] = []
        self.written = False
        self.unasked: Any | None = None


class Lost(Interrupted):
    """The connection ended, by them or by the network."""


class TimedOut(Interrupted):
    """The far end did not answer, or did not take our bytes, within the step's time."""


class Garbled(Interrupted):
    """The far end said what the protocol does not allow."""


class Core(Protocol[A]):
    """A protocol without I/O, as the pump sees it."""

    due: int
    """Answers still to come."""
    broken: str | None
    closing: bool
    unasked: A | None
    """The answer that came though none was due, and broke the protocol by that."""

    @property
    def clean(self) -> bool: ...

    def ask(self, replies: int) -> None: ...

    def feed(self, received: bytes) -> None: ...

    def take(self) -> list[A]: ...


class Step:
    """One move of a script: send `data`, then wait up to `within` seconds for each of `asks`
    answers; or, with `flush`, until the transport has taken the bytes.

    `before` is called when nothing stands between it and the write; what it raises ends the script
    and is raised by `run`, and nothing is sent.
    """

    __slots__ = ("asks", "before", "data", "flush", "within")

    def __init__(
        self,
        data: bytes,
        *,
        asks: int,
        within: float,
        flush: bool = False,
        before: Callable[[], None] | None = None,
    ) -> None:
        self.data = data
        self.asks = asks
        self.within = within
        self.flush = flush
        self.before = before


Script = Generator[Step, list[A], T]


class Conversation(asyncio.Protocol, Generic[A]):
    """One connection and the core that understands it. One script runs at a time."""

    def __init__(self, core: Core[A]) -> None:
        self._core = core
        self._among: set[Conversation[A]] | None = None
        self._gone: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._peer: str | None = None
        self._end: type[Interrupted] | None = None
        self._end_reason = ""
        self._paused = False
        self._script: Generator[Step, list[A], Any] | None = None
        self._step: Step | None = None
        self._done: asyncio.Future[Any] | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    # --- what the room above calls ----------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether another script may start: open, in step, nothing under way."""
        core = self._core
        return (
            self._end is None
            and core.broken is None
            and not core.closing
            and self._script is None
            and self._transport is not None
            and not self._transport.is_closing()
        )

    @property
    def peer(self) -> str | None:
        """Who is at the other end, also when the connection is over by now."""
        return self._peer

    @property
    def at_loopback(self) -> bool:
        """Whether the far end is on this machine; see `streams.at_loopback`."""
        return self._transport is not None and at_loopback(self._transport)

    def tls_facts(self) -> tuple[str, str, str | None]:
        """Version, cipher, peer; see `streams.tls_facts`."""
        assert self._transport is not None
        return tls_facts(self._transport)

    async def run(self, script: Generator[Step, list[A], T]) -> T:
        """Drive a script to its end and return its result. Raises what the script raises; the
        connection is then closed at once, since nobody knows where in it we stand. The same when
        the caller is cancelled."""
        if self._script is not None:
            raise RuntimeError("a script is running already")
        self._script = script
        self._done = done = self._loop.create_future()
        self._drive(begin=True)
        try:
            result: T = await done
        except BaseException:
            self._script = self._step = None
            script.close()
            self.abort()
            raise
        return result

    async def start_tls(
        self, context: ssl.SSLContext, *, server_name: str, within: float
    ) -> Interrupted | None:
        """Speak TLS from here on. None when it worked; else why not, and the connection is closed.

        Raises Interrupted when it must not even begin: the connection is lost, or anything at all
        has come beyond the answers that were taken. Text that was sent in clear must not be read
        as if it came through TLS (S17, CVE-2011-0411).
        """
        transport = self._transport
        if transport is None or self._end is not None:
            raise self._interrupted()
        if not self._core.clean:
            self.abort()
            raise Garbled("the far end went on speaking in clear where TLS was to begin")
        try:
            async with asyncio.timeout(within):
                secured = await self._loop.start_tls(
                    transport, self, context, server_hostname=server_name,
                    ssl_handshake_timeout=within,
                )  # fmt: skip
        except BaseException as error:
            transport.abort()
            # In mid-handshake the loop does not always tell the protocol that all is over.
            self.connection_lost(None)
            if not isinstance(error, OSError | ssl.CertificateError):  # TimeoutError is an OSError
                raise
            return _handshake_failure(error)
        assert secured is not None
        self._transport = secured
        return None

    def close(self) -> None:
        """End the connection after what was written has left."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def stand_among(self, open_: "set[Conversation[A]]") -> None:
        """Be in this set for as long as the connection exists."""
        if self._transport is not None:
            open_.add(self)
            self._among = open_

    async def gone(self) -> None:
        """Return when the connection does not exist any more."""
        if self._transport is None:
            return
        if self._gone is None:
            self._gone = self._loop.create_future()
        await asyncio.shield(self._gone)

    # --- the script -------------------------------------------------------------------------------

    def _drive(self, cut: Interrupted | None = None, *, begin: bool = False) -> None:
        """Move the script on, over as many steps as need no waiting."""
        script, core = self._script, self._core
        assert script is not None
        self._step = None
        try:
            if begin:
                step = next(script)
            else:
                step = script.send(core.take()) if cut is None else script.throw(cut)
            while True:
                if not (self._fit() or self._has_come(step)):
                    step = script.throw(self._interrupted())
                    continue
                if step.before is not None:
                    step.before()
                core.ask(step.asks)
                if step.data:
                    assert self._transport is not None
                    self._transport.write(step.data)
                if core.due or (step.flush and self._paused):
                    break
                step = script.send(core.take())
        except StopIteration as end:
            self._finish(end.value, None)
        except Exception as error:
            self._finish(None, error)
        else:
            self._step = step
            self._wait(step.within)

    def _fit(self) -> bool:
        return (
            self._end is None
            and self._core.broken is None
            and not self._core.closing
            and self._transport is not None
            and not self._transport.is_closing()
        )

    def _has_come(self, step: Step) -> bool:
        """Whether the step only takes what is here already: a greeting that came with the
        connection is heard, even one that ends it."""
        core = self._core
        return not (step.data or step.asks or core.due) and core.broken is None

    def _interrupted(self) -> Interrupted:
        """Why no further step can be taken."""
        if self._core.broken is not None:
            cut = Garbled(self._core.broken)
            cut.unasked = self._core.unasked
            return cut
        if self._end is not None:
            return self._end(self._end_reason)
        return Lost("the connection is closing")

    def _cut(self, cut: Interrupted) -> None:
        """The step under way will not be answered in full."""
        if self._end is None:
            self._end, self._end_reason = type(cut), cut.reason
        cut.answers = self._core.take()
        cut.written = True
        cut.unasked = self._core.unasked
        self._drive(cut)
        self.abort()

    def _finish(self, result: Any, error: BaseException | None) -> None:
        done = self._done
        self._script = self._done = None
        assert done is not None
        if done.done():  # the caller was cancelled
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    # --- the deadline -----------------------------------------------------------------------------

    def _wait(self, within: float) -> None:
        """Move the deadline. The timer is moved only when it would fire too late; when it fires too
        early it looks at the deadline and goes back to sleep."""
        self._deadline = deadline = self._loop.time() + within
        timer = self._timer
        if timer is not None:
            if timer.when() <= deadline:
                return
            timer.cancel()
        self._timer = self._loop.call_at(deadline, self._look_at_deadline)

    def _look_at_deadline(self) -> None:
        self._timer = None
        step = self._step
        if step is None:
            return
        if self._loop.time() >= self._deadline:
            self._cut(TimedOut(f"no answer in {step.within:g} s"))
        else:
            self._timer = self._loop.call_at(self._deadline, self._look_at_deadline)

    # --- asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio's; they only behave alike.
        self._transport = cast(asyncio.Transport, transport)
        self._peer = peer_name(transport)

    def data_received(self, data: bytes) -> None:
        core = self._core
        due = core.due
        core.feed(data)
        step = self._step
        if step is None:
            if core.broken is not None or core.closing:
                self.abort()  # an idle session that speaks is over
        elif core.broken is not None and (core.due or step.asks != 1):
            self._cut(Garbled(core.broken))
        elif not core.due:
            if not step.flush:
                self._drive()
        elif core.due < due:
            self._deadline = self._loop.time() + step.within

    def eof_received(self) -> None:
        """The far end will not speak again: let the transport close."""

    def connection_lost(self, exc: Exception | None) -> None:
        if self._end is None:
            self._end = Lost
            self._end_reason = f"the connection was lost: {exc}" if exc else "they hung up"
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._among is not None:
            self._among.discard(self)
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)
        if self._step is not None:
            self._cut(Lost(self._end_reason))

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._step is not None and self._step.flush:
            self._drive()


def _handshake_failure(error: Exception) -> Interrupted:
    if isinstance(error, TimeoutError | ConnectionAbortedError):
        return TimedOut("no TLS in time")
    if isinstance(error, ssl.SSLCertVerificationError):
        return Garbled(f"the certificate does not match: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return Garbled(f"TLS failed: {error.reason or error}")
    return Lost(f"the connection was lost in the TLS handshake: {error}")
