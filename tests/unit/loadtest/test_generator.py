"""The open loop against servers that stall, refuse, vanish or talk nonsense."""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from everpost.clock import SystemClock
from everpost.loadtest.generator import Generator, Target
from everpost.loadtest.measure import Measure
from everpost.loadtest.mix import Kind, Mix
from everpost.loadtest.plan import Step
from everpost.net.streams import tls_context
from tests.support.certificates import make

Answer = bytes | None
"""What the server says to a request; None: nothing, ever; b"": it hangs up."""

OK = b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"id": "abc-1"}'
REFUSED = b"HTTP/1.1 503 No\r\nRetry-After: 2\r\nContent-Length: 2\r\n\r\n{}"


class Server(asyncio.Protocol):
    """`answer` says what the n-th request of all gets, at once or when it is resolved."""

    def __init__(self, owner: "Owner") -> None:
        self.owner = owner
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.owner.connections += 1

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, sep, rest = self.buffer.partition(b"\r\n\r\n")
        length = int(head.lower().rpartition(b"content-length:")[2].split(b"\r\n")[0] or 0)
        if sep and len(rest) >= length:
            self.buffer = b""
            self.owner.requests.append((head, rest))
            self.owner.respond(len(self.owner.requests) - 1, self)

    def say(self, answer: Answer) -> None:
        if answer == b"":
            self.transport.abort()
        elif answer is not None:
            self.transport.write(answer)


class Owner:
    def __init__(self, answer: Callable[[int], Answer]) -> None:
        self.answer = answer
        self.requests: list[tuple[bytes, bytes]] = []
        self.connections = 0
        self.stall_at: int | None = None
        self.stalled: list[Server] | None = None

    def respond(self, n: int, server: Server) -> None:
        if n == self.stall_at:
            self.stalled = []
            asyncio.get_running_loop().call_later(1.0, self.go_on)
        if self.stalled is not None:
            self.stalled.append(server)
        else:
            server.say(self.answer(n))

    def go_on(self) -> None:
        stalled, self.stalled = self.stalled or [], None
        for server in stalled:
            server.say(self.answer(0))


@asynccontextmanager
async def serving(owner: Owner, *, tls: Any = None) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Server(owner), "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def play(
    port: int, step: Step, *, kind: Kind | None = None, **options: Any
) -> tuple[Measure, Generator]:
    clock = SystemClock()
    chance = random.Random(1)
    chosen: dict[str, Any] = {"host": "localhost", "timeout": 5.0, **options}
    target = Target(addresses=["127.0.0.1"], port=port, authority="localhost", **chosen)
    measure = Measure("r1", began=clock.monotonic(), arrivals=False)
    mix = Mix([kind or Kind()], run="r1", chance=chance)
    generator = Generator(target, mix, measure, clock=clock, chance=chance)
    await generator.open()
    try:
        await generator.play(step, clock.monotonic())
        async with asyncio.timeout(10):
            while not generator.quiet:
                await asyncio.sleep(0)
    finally:
        await generator.close()
    return measure, generator


def run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(main, 20))


def test_a_stall_is_seen_by_the_few_requests_in_flight_only() -> None:
    """Coordinated omission: a server that stops for a second while four connections wait. A closed
    loop would see four slow answers in three hundred, and call p98 fast."""

    async def main() -> None:
        owner = Owner(lambda _: OK)
        owner.stall_at = 100
        async with serving(owner) as port:
            measure, _ = await play(port, Step.steady(100, 3), connections=4)
        tally = measure.steps[0]
        assert (tally.accepted, tally.failed) == (300, 0)
        p99, p80, p50 = (tally.latency.at(share) for share in (0.99, 0.8, 0.5))
        assert p99 is not None
        assert p80 is not None
        assert p50 is not None
        assert 0.85 < p99 < 1.5
        assert p80 > 0.1  # a hundred were due while it lasted
        assert p50 < 0.1
        assert tally.queued.at(0.99) is not None

    run(main())


def test_a_slow_server_slows_the_arrivals_down() -> None:
    """Nothing is ever answered, and all requests start at their time nevertheless."""

    async def main() -> None:
        owner = Owner(lambda _: None)
        async with serving(owner) as port:
            measure, _ = await play(port, Step.steady(100, 1), timeout=1.5)
        tally = measure.steps[0]
        assert (tally.sent, tally.errors) == (100, {"timeout": 100})
        assert (measure.accepted, owner.connections) == (0, 100)
        lag, latency = tally.lag.at(0.99), tally.latency.at(0.5)
        assert lag is not None
        assert latency is not None
        assert lag < 0.5
        assert latency >= 1.5

    run(main())


def test_requests_without_a_connection_are_forgotten() -> None:
    async def main() -> None:
        owner = Owner(lambda _: None)
        async with serving(owner) as port:
            measure, generator = await play(port, Step.steady(50, 1), connections=3, timeout=1.2)
        tally = measure.steps[0]
        assert tally.failed == 50
        assert set(tally.errors) == {"timeout", "unsent"}
        assert tally.errors["unsent"] > 3
        assert tally.latency.count == 50
        assert generator.most_connections == 3

    run(main())


def test_refusals_are_obeyed_or_not_counted() -> None:
    async def main() -> None:
        owner = Owner(lambda n: REFUSED if n % 2 else OK)
        async with serving(owner) as port:
            measure, _ = await play(port, Step.steady(100, 1))
        assert measure.steps[0].errors == {"status 503": 50}
        assert measure.retry_after == {"2": 50}
        assert (measure.accepted, measure.steps[0].error_share) == (50, 0.5)

    run(main())


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", {"reset", "closed"}),
        (b"nonsense\r\n\r\n", {"garbled"}),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", {"not understood"}),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nx{}", {"not understood"}),
        (b"HTTP/1.1 404 Gone\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", {"status 404"}),
    ],
)
def test_a_server_that_breaks_off_stops_the_test(answer: bytes, kind: set[str]) -> None:
    async def main() -> None:
        owner = Owner(lambda n: answer if n < 10 else OK)
        async with serving(owner) as port:
            measure, _ = await play(port, Step.steady(50, 1))
        tally = measure.steps[0]
        assert tally.failed == 10
        assert tally.errors.keys() <= kind
        assert tally.accepted == 40

    run(main())


def test_an_answer_in_pieces_is_not_understood() -> None:
    chunked = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'6\r\n{"id":\r\n7\r\n "abc"}\r\n0\r\n\r\n'
    )

    async def main() -> None:
        owner = Owner(lambda _: b"HTTP/1.1 103 Early\r\n\r\n" + chunked)
        async with serving(owner) as port:
            measure, _ = await play(port, Step.steady(50, 1))
        assert (measure.accepted, measure.failed) == (50, 0)

    run(main())


def test_a_batch_counts_once() -> None:
    two = b'HTTP/1.1 200 OK\r\nContent-Length: 36\r\n\r\n{"data": [{"id": "a"}, {"id": "b"}]}'

    async def main() -> None:
        owner = Owner(lambda _: two)
        async with serving(owner) as port:
            measure, _ = await play(
                port, Step.steady(100, 1), batch=2, idempotency=True, key="secret", prefix="/x"
            )
        assert (measure.accepted, len(owner.requests)) == (100, 50)
        head, body = owner.requests[3]
        assert head.startswith(b"POST /x/emails/batch HTTP/1.1\r\nHost: localhost\r\n")
        assert b"Authorization: Bearer secret\r\n" in head
        assert b"Idempotency-Key: r1-6\r\n" in head
        assert b'"r1.6"' in body
        assert b'"r1.7"' in body

    run(main())


def test_a_certificate_of_somebody_else_is_accepted(tmp_path: Path) -> None:
    made = make(tmp_path, "localhost")

    async def main() -> None:
        owner = Owner(lambda _: OK)
        async with serving(owner, tls=made.server) as port:
            trusted = tls_context(verify=True, ca_file=made.ca_file)
            measure, _ = await play(port, Step.steady(50, 1), tls=trusted)
            assert (measure.accepted, measure.failed) == (50, 0)
            for name, context in (("other.test", trusted), ("localhost", tls_context(verify=True))):
                with pytest.raises(ssl.SSLCertVerificationError):
                    await play(port, Step.steady(50, 1), tls=context, host=name)
        assert len(owner.requests) == 50

    run(main())


def test_nobody_there_is_an_endless_wait() -> None:
    async def main() -> None:
        async with serving(Owner(lambda _: OK)) as port:
            pass
        with pytest.raises(OSError, match=r".*"):
            await play(port, Step.steady(10, 1))

    run(main())


def test_a_server_that_goes_away_hides_its_failures() -> None:
    async def main() -> None:
        owner = Owner(lambda _: OK)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Server(owner), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        def answer(n: int) -> Answer:
            server.close()
            return b""

        owner.answer = answer
        measure, _ = await play(port, Step.steady(50, 1))
        tally = measure.steps[0]
        assert tally.failed == 50
        assert "connect" in tally.errors

    run(main())


def test_stopping_waits_for_the_end_of_the_plan() -> None:
    async def main() -> None:
        clock = SystemClock()
        owner = Owner(lambda _: OK)
        async with serving(owner) as port:
            measure = Measure("r1", began=clock.monotonic(), arrivals=False)
            chance = random.Random(1)
            target = Target(addresses=["127.0.0.1"], port=port, host="x", authority="x")
            mix = Mix([Kind()], run="r1", chance=chance)
            generator = Generator(target, mix, measure, clock=clock, chance=chance)
            await generator.open()
            asyncio.get_running_loop().call_later(0.3, generator.stop)
            tally = await generator.play(Step.steady(2, 3600), clock.monotonic())
            await generator.close()
        assert generator.stopped
        assert tally.sent <= 2
        assert tally.ended - tally.began < 10

    run(main())
