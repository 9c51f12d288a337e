"""Connections and TLS contexts."""

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from everpost.net.streams import at_loopback, connect, peer_name, tls_context, tls_facts
from tests.support.carrying import LOOPS, run
from tests.support.certificates import make


@pytest.mark.parametrize("loop", LOOPS)
def test_host_that_never_answers_is_left_in_time(loop: str) -> None:
    # A listener whose queue is full lets connections wait for ever.
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
            waiting.append(client)

        async def main() -> None:
            with pytest.raises(TimeoutError):
                await connect(asyncio.Protocol, "127.0.0.1", port, within=0.1)

        run(loop, main())
        for client in waiting:
            client.close()


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
        await connect(asyncio.Protocol, "127.0.0.1", port, within=5, source="127.0.0.9")
        await met.wait()
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


def test_black_hole_among_the_addresses_does_not_hide_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        theirs = Fleeting()  # one connection will come, no more
        listener = await loop.create_server(lambda: theirs, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        tried: list[str] = []
        real = loop.create_connection

        async def lookup(*_: object, **__: object) -> list[tuple[object, ...]]:
            six, four = socket.AF_INET6, socket.AF_INET
            names = [
                (six, "::2"),
                (six, "::3"),
                (six, "::2"),
                (four, "127.0.0.1"),
                (four, "127.9.9.9"),
            ]
            return [(family, 1, 6, "", (name, port)) for family, name in names]

        async def connecting(factory: object, host: str, *args: object, **more: object) -> object:
            tried.append(host)
            if host == "::2":
                await loop.create_future()
            return await real(factory, host, *args, **more)  # type: ignore[call-overload]

        monkeypatch.setattr(loop, "getaddrinfo", lookup)
        monkeypatch.setattr(loop, "create_connection", connecting)
        ours = await connect(Fleeting, "many.test", port, within=0.4)
        await ours.ended.wait()
        await theirs.ended.wait()
        assert tried == ["::2", "127.0.0.1"]
        listener.close()

        async def nothing(*_: object, **__: object) -> list[object]:
            return []

        monkeypatch.setattr(loop, "getaddrinfo", nothing)
        with pytest.raises(OSError, match="no address"):
            await connect(asyncio.Protocol, "none.test", port, within=1)

    run("asyncio", main())


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
