"""Connections and TLS contexts."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from everpost.net import streams
from everpost.net.streams import (
    Misses,
    SourceUnusable,
    at_loopback,
    connect,
    peer_name,
    tls_context,
    tls_facts,
)
from tests.support.carrying import LOOPS, run
from tests.support.certificates import make


@contextmanager
def black_hole(host: str, port: int = 0) -> Iterator[int]:
    """The port of a listener whose queue is full, so that connections to it wait for ever."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket(family))
        full.bind((host, port))
        full.listen(0)
        name = full.getsockname()
        for _ in range(4):
            client = stack.enter_context(socket.socket(family))
            client.setblocking(False)
            client.connect_ex(name)
        yield name[1]


@pytest.mark.parametrize("loop", LOOPS)
def test_host_that_never_answers_is_left_in_time(loop: str) -> None:
    async def main() -> None:
        misses = Misses(lambda: 0.0)
        with black_hole("127.0.0.1") as port, pytest.raises(TimeoutError):
            await connect(asyncio.Protocol, "127.0.0.1", port, within=0.1, misses=misses)
        assert misses.order(["127.0.0.1", "127.0.0.2"]) == ["127.0.0.2", "127.0.0.1"]

    run(loop, main())


@pytest.mark.parametrize("loop", LOOPS)
def test_refusal_and_source_address(loop: str) -> None:
    async def main() -> None:
        seen: list[str | None] = []
        met = asyncio.Event()

        class Server(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                seen.append(peer_name(transport))
                transport.close()
                met.set()

        listener = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        ours = await connect(Fleeting, "127.0.0.1", port, within=5, source=["127.0.0.9"])
        await met.wait()
        await ours.ended.wait()
        assert str(seen[0]).startswith("127.0.0.9:")
        listener.close()
        with pytest.raises(OSError, match=r".+"):
            await connect(asyncio.Protocol, "127.0.0.1", port, within=5)

    run(loop, main())


class Fleeting(asyncio.Protocol):
    """Hangs up as soon as it is connected."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()


@pytest.mark.parametrize("loop", LOOPS)
def test_black_hole_among_the_addresses_hides_the_others(loop: str) -> None:
    """IPv6 leads nowhere (F64): IPv4 overtakes it, and goes first the next time."""

    async def main() -> None:
        theirs = Fleeting()  # one connection will come, no more
        here = asyncio.get_running_loop()
        listener = await here.create_server(lambda: theirs, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        addresses = ["::1", "127.0.0.1"]
        misses = Misses(lambda: 0.0)
        with black_hole("::1", port):
            ours = await connect(
                Fleeting, "many.test", port, within=5, addresses=addresses, misses=misses
            )
        await ours.ended.wait()
        await theirs.ended.wait()
        listener.close()
        assert misses.order(addresses) == ["127.0.0.1", "::1"]

    run(loop, main())


@pytest.mark.parametrize("loop", LOOPS)
def test_refusal_of_the_first_address_ends_the_search(loop: str) -> None:
    async def main() -> None:
        theirs = Fleeting()
        here = asyncio.get_running_loop()
        listener = await here.create_server(lambda: theirs, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        ours = await connect(Fleeting, "many.test", port, within=5, addresses=["::1", "127.0.0.1"])
        await ours.ended.wait()
        await theirs.ended.wait()
        listener.close()

    run(loop, main())


@pytest.mark.parametrize("loop", LOOPS)
def test_address_that_is_not_ours_is_taken_for_a_fault_of_theirs(loop: str) -> None:
    async def main() -> None:
        misses = Misses(lambda: 0.0)
        with pytest.raises(SourceUnusable, match=r"192\.0\.2\.1 is no address of ours"):
            await connect(
                asyncio.Protocol, "127.0.0.1", 1, within=5, source=["192.0.2.1"], misses=misses
            )
        assert misses.order(["127.0.0.1", "127.0.0.2"]) == ["127.0.0.1", "127.0.0.2"]

    run(loop, main())


@pytest.mark.parametrize("loop", LOOPS)
def test_family_without_a_source_address_is_used_all_the_same(loop: str) -> None:
    async def main() -> None:
        with pytest.raises(OSError, match="no address of our family"):
            await connect(asyncio.Protocol, "::1", 1, within=5, source=["127.0.0.1"])

    run(loop, main())


def test_host_without_an_address_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async def nothing(*_: object, **__: object) -> list[object]:
            return []

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", nothing)
        with pytest.raises(OSError, match="no address"):
            await connect(asyncio.Protocol, "none.test", 25, within=1)

    run("asyncio", main())


def test_second_at_the_line_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both connections are made before anyone looks: one is used, the other one ended."""

    async def main() -> None:
        here = asyncio.get_running_loop()
        both = asyncio.Event()
        real = here.create_connection

        class Lasting(Fleeting):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                self.transport = transport

        made: list[Lasting] = []

        async def together(
            factory: Callable[[], Lasting], host: str, *args: object, **more: object
        ) -> tuple[object, Lasting]:
            transport, protocol = await real(factory, "127.0.0.1", *args, **more)  # type: ignore[call-overload]
            made.append(protocol)
            if len(made) == 2:
                both.set()
            await both.wait()
            return transport, protocol

        monkeypatch.setattr(here, "create_connection", together)
        listener = await here.create_server(asyncio.Protocol, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        ours = await connect(
            Lasting, "two.test", port, within=5, addresses=["127.0.0.1", "127.0.0.2"]
        )
        (other,) = (one for one in made if one is not ours)
        await other.ended.wait()
        assert not ours.ended.is_set()
        ours.transport.close()
        await ours.ended.wait()
        listener.close()

    run("asyncio", main())


class Hours:
    """A clock that the test moves."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_dead_address_is_tried_first_for_ever() -> None:
    time = Hours()
    misses = Misses(time)
    addresses = ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"]
    assert misses.order(addresses) == addresses
    misses.missed("2001:db8::1")
    assert misses.order(addresses) == ["192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::1"]
    time.seconds = 601
    assert misses.order(addresses) == addresses
    misses.missed("2001:db8::1")
    misses.reached("2001:db8::1")
    assert misses.order(addresses) == addresses


def test_family_that_leads_nowhere_is_tried_first_at_every_new_host() -> None:
    time = Hours()
    misses = Misses(time)
    for n in range(3):
        assert misses.order(["2001:db8::f", "192.0.2.9"])[0] == "2001:db8::f"
        misses.missed(f"2001:db8::{n}")
    new = ["2001:db8::f", "2001:db8::e", "192.0.2.9"]
    assert misses.order(new) == ["192.0.2.9", "2001:db8::f", "2001:db8::e"]
    misses.reached("2001:db8::a")  # it works again
    assert misses.order(new) == ["2001:db8::f", "192.0.2.9", "2001:db8::e"]


def test_memory_of_misses_grows_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_MISSES", 2)
    misses = Misses(lambda: 0.0)
    for n in range(4):
        misses.missed(f"192.0.2.{n}")
        misses.reached("203.0.113.1")
    order = misses.order([f"192.0.2.{n}" for n in range(4)])
    assert order == ["192.0.2.0", "192.0.2.1", "192.0.2.2", "192.0.2.3"]
    assert misses.order(["192.0.2.3", "192.0.2.0"]) == ["192.0.2.0", "192.0.2.3"]


class Named(asyncio.BaseTransport):
    def __init__(self, name: object) -> None:
        super().__init__({"peername": name})


def test_peer_names() -> None:
    assert peer_name(Named(("192.0.2.1", 25))) == "192.0.2.1:25"
    assert peer_name(Named(("2001:db8::1", 25, 0, 0))) == "[2001:db8::1]:25"
    assert peer_name(Named("/run/socket")) is None
    assert peer_name(asyncio.BaseTransport()) is None


def test_contexts_verify_or_do_not(tmp_path: Path) -> None:
    lax = tls_context(verify=False)
    assert (lax.verify_mode, lax.check_hostname) == (ssl.CERT_NONE, False)
    strict = tls_context(verify=True, ca_file=make(tmp_path, "x.test").ca_file)
    assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert any(
        ("commonName", "test authority") in part
        for ca in strict.get_ca_certs()
        for part in ca["subject"]
    )
    for context in (lax, strict, tls_context(verify=True)):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_clear_transport_has_no_tls_facts() -> None:
    with pytest.raises(ValueError, match="not a TLS"):
        tls_facts(asyncio.BaseTransport())


@pytest.mark.parametrize(
    ("name", "here"),
    [
        (("127.0.0.1", 25), True),
        (("127.9.9.9", 25), True),
        (("::1", 25, 0, 0), True),
        (("::ffff:127.0.0.1", 25, 0, 0), True),
        (("::ffff:192.0.2.1", 25, 0, 0), False),
        (("192.0.2.1", 25), False),
        (("10.0.0.1", 25), False),
        (("fe80::1%eth0", 25, 0, 2), False),
        (("localhost", 25), False),
        ("/run/socket", False),
        (None, False),
    ],
)
def test_only_this_machines_own_addresses_count_as_loopback(name: object, here: bool) -> None:
    transport = asyncio.BaseTransport({"peername": name})
    assert at_loopback(transport) is here
