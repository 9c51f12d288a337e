"""Request smuggling at our own port (S33), with raw sockets: what two readers could read in two
ways is refused by us, whatever a proxy before us let through."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from everpost.api import MAIL, Admission, HttpLimits, HttpServer
from everpost.api.asgi import Receive, Scope, Send
from tests.support.hostile import SMUGGLED, WIRES, HostileWire

Talk = Callable[[int], Awaitable[None]]

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the request as the application saw it."""
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    text = f"{scope['method']} {scope['path']} {scope['headers']} ".encode() + body
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


def with_server(
    talk: Talk,
    *,
    app: Any = echo,
    limits: HttpLimits | None = None,
    admission: Admission | None = None,
    send_buffer: int | None = None,
) -> None:
    """Run `talk(port)` against a server of the test's own."""

    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        if send_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        server, ready = HttpServer(limits, admission=admission), asyncio.Event()
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            serving = group.create_task(server.serve(app, [listener], ready=ready, mail=MAIL))
            await ready.wait()
            port = listener.getsockname()[1]
            try:
                await talk(port)
            finally:
                await server.shutdown(0)
            await serving

    uvloop.run(main())


async def exchange(port: int, *pieces: bytes) -> bytes:
    """Send the pieces, read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        return await reader.read()
    except ConnectionError:  # it may close before it has read all
        return b""
    finally:
        writer.transport.abort()


async def answers(port: int, data: bytes, count: int) -> list[bytes]:
    """The bodies of `count` answers on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    found = [await _one_answer(reader, with_head=True) for _ in range(count)]
    writer.transport.abort()
    return found


async def _one_answer(reader: asyncio.StreamReader, *, with_head: bool = False) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    body = await reader.readexactly(int(length or 0))
    return head + body if with_head else body


@pytest.mark.parametrize("wire", WIRES, ids=str)
def test_ambiguous_request_is_refused_and_the_connection_ends(wire: HostileWire) -> None:
    async def talk(port: int) -> None:
        answer = await exchange(port, wire.data)
        if len(wire.data) > 100_000 and not answer:
            return  # reset while it was still sending
        status = answer[9:12]
        assert int(status) in wire.statuses, answer[:200]
        assert b"content-type: application/json\r\n" in answer
        assert b'{"statusCode":' + status in answer
        assert b"connection: close\r\n" in answer
        assert answer.count(b"HTTP/1.1 ") == 1
        assert b"/smuggled" not in answer

    with_server(talk)


@pytest.mark.parametrize("at", range(1, 60, 7))
def test_refusal_does_not_depend_on_how_bytes_arrive(at: int) -> None:
    async def talk(port: int) -> None:
        data = WIRES[0].data
        answer = await exchange(port, data[:at], data[at:])
        assert answer[9:12] == b"400"
        assert answer.count(b"HTTP/1.1 ") == 1

    with_server(talk)


def test_trailer_never_becomes_a_header() -> None:
    """RFC 9110 §6.5.1; else a trailer could carry a key past a proxy's rules."""

    async def talk(port: int) -> None:
        data = HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nAuthorization: x\r\n\r\n"
        (answer,) = await answers(port, data, 1)
        assert b"200 OK" in answer
        assert answer.endswith(b" abc")
        assert b"authorization" not in answer

    with_server(talk)


UPGRADE = b"POST /1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
SIZE = b"%d" % len(SMUGGLED)
FRAMED = {
    "length": b"Content-Length: " + SIZE + b"\r\n\r\n" + SMUGGLED,
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(SMUGGLED)
    + SMUGGLED + b"\r\n0\r\nTrailer: x\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("framing", FRAMED)
@pytest.mark.parametrize("step", [1, 7, 64, 10_000])
def test_body_of_an_upgrade_request_is_a_body_and_not_a_request(framing: str, step: int) -> None:
    """Java's HTTP client asks for h2c with each first POST; llhttp hands the body back unread."""

    async def talk(port: int) -> None:
        one = UPGRADE + FRAMED[framing]
        data = one + b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n" + one
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for start in range(0, len(data), step):
            writer.write(data[start : start + step])
            await asyncio.sleep(0)
        for path in (b"POST /1 ", b"GET /2 ", b"POST /1 "):
            answer = await _one_answer(reader)
            assert answer.startswith(path), answer
            assert (SMUGGLED in answer) is (path == b"POST /1 ")
        writer.transport.abort()

    with_server(talk)


def test_garbage_after_the_body_of_an_upgrade_request_ends_the_connection() -> None:
    async def talk(port: int) -> None:
        answer = await exchange(port, UPGRADE + FRAMED["length"] + b"broken\r\n\r\n")
        assert answer.count(b"HTTP/1.1 ") == 1
        assert answer.endswith(SMUGGLED)
        for bad in (b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", b"X : y\r\n\r\n"):
            assert (await exchange(port, UPGRADE + bad))[9:12] == b"400"
        bad = UPGRADE + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"
        assert (await exchange(port, bad))[9:12] == b"400"

    with_server(talk)


def test_upgrade_to_websocket_is_ignored() -> None:
    async def talk(port: int) -> None:
        data = b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        (answer,) = await answers(port, data, 1)
        assert b"GET /1 " in answer

    with_server(talk)


def test_expect_continue_is_answered_once() -> None:
    async def talk(port: int) -> None:
        data = HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nab"
        first, second = await answers(port, data, 2)
        assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert second.endswith(b" ab")

    with_server(talk)


def test_pipelined_requests_are_answered_in_order() -> None:
    async def talk(port: int) -> None:
        data = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(20))
        found = await answers(port, data, 20)
        assert [b"GET /%d " % n in answer for n, answer in enumerate(found)] == [True] * 20

    with_server(talk)


def test_garbage_after_a_whole_request_does_not_take_its_answer() -> None:
    async def talk(port: int) -> None:
        answer = await exchange(port, b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\x00garbage\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b"GET /1 " in answer
        assert answer.count(b"HTTP/1.1 ") == 1

    with_server(talk)


def test_answer_does_not_name_the_server() -> None:
    async def talk(port: int) -> None:
        (answer,) = await answers(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1)
        assert b"\r\nserver:" not in answer.lower()
        assert b"\r\ndate: " in answer.lower()

    with_server(talk)
