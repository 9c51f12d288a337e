"""A carrier and a relay for tests of delivery: relays that point at a scripted far end, messages
that need no composing, and a before_dot that counts."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import uvloop

from everpost.clock import SystemClock
from everpost.delivery import Carrier, Envelope, Extensions, Render, Report, Timeouts
from everpost.model.message import Form, Rendered
from everpost.model.outcome import Outcome
from everpost.model.pool import DEFAULT_POOL
from everpost.model.relay import Relay, RelayKind, TlsPolicy
from everpost.net.resolver import Absent, Answer, Found, Resolver

__all__ = [
    "LOOPS",
    "MESSAGE",
    "Dots",
    "Names",
    "carrier",
    "carry",
    "direct",
    "only",
    "relay",
    "render",
    "run",
]

MESSAGE = b"Subject: hello\r\n\r\n.leading dot\r\nbye\r\n"

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def run(loop: str, main: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine on the named loop, within 20 seconds."""

    async def bounded() -> None:
        async with asyncio.timeout(20):
            await main

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(bounded())


class Dots:
    """A before_dot that counts, and raises if told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.count = 0
        self._error = error

    def __call__(self) -> None:
        self.count += 1
        if self._error is not None:
            raise self._error


def relay(port: int, *, name: str = "r1", tls: TlsPolicy = TlsPolicy.NONE, **other: Any) -> Relay:
    settings: dict[str, Any] = {"host": "127.0.0.1", "connections": 2, **other}
    return Relay(id=name.encode(), name=name, port=port, tls=tls, **settings)


def direct(port: int, *, name: str = "mx", **other: Any) -> Relay:
    """A relay that delivers to MX hosts on this port, loopback included."""
    settings: dict[str, Any] = {"tls": TlsPolicy.NONE, "allow_private": True, **other}
    return Relay(id=name.encode(), name=name, host="mx", kind=RelayKind.MX, port=port, **settings)


class Names(Resolver):
    """A resolver that knows what it is told: `("there.test", "MX"): ["10 a.test."]`, or an answer;
    all else does not exist. `asked` holds the questions that reached it past the cache."""

    def __init__(self, records: Mapping[tuple[str, str], Sequence[str] | Answer]) -> None:
        super().__init__(["127.0.0.1"], 1)
        self.records = dict(records)
        self.asked: list[tuple[str, str]] = []

    async def _ask(self, name: str, rdtype: str) -> Answer:
        self.asked.append((name, rdtype))
        known = self.records.get((name, rdtype))
        if known is None:
            exists = any(name == there for there, _ in self.records)
            return Absent("nodata" if exists else "nxdomain", 60)
        return Found(tuple(known), 60) if isinstance(known, Sequence) else known


def carrier(*relays: Relay, timeouts: Timeouts | None = None, **other: Any) -> Carrier:
    other.setdefault("resolver", Resolver(["127.0.0.1"], 1))
    other.setdefault("clock", SystemClock())
    made = Carrier(
        helo="me.test",
        rng=random.Random(1),
        timeouts=timeouts or Timeouts(),
        **other,
    )
    made.use(relays)
    return made


def render(data: bytes = MESSAGE, form: Form = Form.SEVEN_BIT) -> Render:
    async def rendered(_: Extensions, __: Relay) -> Rendered:
        return Rendered(data, form, b"h" * 32)

    return rendered


async def carry(
    carrier: Carrier,
    *recipients: str,
    sender: str = "me@sender.test",
    rendering: Render | None = None,
    dots: Callable[[], None] | None = None,
    destination: str = "",
    pool: str = DEFAULT_POOL,
    pinned: bytes | None = None,
    **fields: Any,
) -> Report:
    """`fields`: further ones of the envelope."""
    to = recipients or ("you@there.test",)
    fields.setdefault("only", pinned)
    return await carrier.carry(
        Envelope(sender, to, b"t" * 16, destination, pool, **fields),
        rendering or render(),
        before_dot=dots or Dots(),
    )


def only(report: Report) -> Outcome:
    (outcome,) = report.outcomes
    return outcome
