"""The listeners: inherited sockets, several in one loop, bounds, and an end that loses nothing."""

import asyncio
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import uvloop

from everpost.api import HttpLimits, HttpServer
from everpost.api.asgi import Receive, Scope, Send
from tests.unit.api.conftest import Door, email
from tests.unit.api.test_http_strictness import answers, echo, exchange, with_server

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def _say(text: bytes) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    return app


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_three_listeners_live_in_one_loop_and_leave_signals_alone(
    runner: Any, tmp_path: Path
) -> None:
    async def main() -> None:
        before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
        public = socket.create_server(("127.0.0.1", 0))
        admin = socket.create_server(("127.0.0.1", 0))
        path = str(tmp_path / "operator")
        local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        local.bind(path)
        os.chmod(path, 0o600)
        local.listen()
        inherited = socket.socket(fileno=os.dup(public.fileno()))  # as a child gets it
        ports = public.getsockname()[1], admin.getsockname()[1]
        public.close()
        server = HttpServer()
        events = [asyncio.Event() for _ in range(3)]
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            for text, sock, event in zip(
                (b"public", b"admin", b"operator"), (inherited, admin, local), events, strict=True
            ):
                group.create_task(server.serve(_say(text), [sock], ready=event))
            for event in events:
                await event.wait()
            assert {s: signal.getsignal(s) for s in before} == before
            for port, text in zip(ports, (b"public", b"admin"), strict=True):
                (answer,) = await answers(port, GET, 1)
                assert answer.endswith(text)
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(GET)
            assert (await reader.readuntil(b"operator")).startswith(b"HTTP/1.1 200")
            writer.close()
            await server.shutdown(1)

    runner(main())


async def _accepts(port: int) -> bool:
    with socket.socket() as sock:
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except ConnectionRefusedError:
            return False
        return True


def test_connections_wait_while_nothing_is_accepted() -> None:
    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        server, ready = HttpServer(), asyncio.Event()
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(server.serve(_say(b"done"), [listener], ready=ready))
            await ready.wait()
            port = listener.getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(2):
                server.pause()
                server.pause()
                waiting = group.create_task(answers(port, GET, 1))
                writer.write(GET)  # what is connected is served
                await reader.readuntil(b"done")
                assert server.connections == 1
                assert not waiting.done()
                await server.resume()
                await server.resume()
                (answer,) = await waiting
                assert answer.endswith(b"done")
                while server.connections > 1:
                    await asyncio.sleep(0)
            server.pause()
            writer.transport.abort()
            await server.shutdown(1)
            assert not await _accepts(port)

    uvloop.run(main())


def test_connection_waits_in_the_kernel_as_the_server_ends() -> None:
    """It would be reset with the listening socket, and nobody could tell whether its request was
    acted on."""

    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        server, ready = HttpServer(), asyncio.Event()
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(server.serve(_say(b"done"), [listener], ready=ready))
            await ready.wait()
            port = listener.getsockname()[1]
            server.pause()
            streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            for _, writer in streams:
                writer.write(GET)
            await server.shutdown(30)
            for reader, writer in streams:
                answer = await reader.read()
                assert answer.startswith(b"HTTP/1.1 200"), answer
                assert b"connection: close" in answer
                writer.close()
            assert not await _accepts(port)

    uvloop.run(main())


def test_node_that_leaves_keeps_its_connections() -> None:
    """It takes new ones and answers them; each answer is the last of its connection."""

    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        server, ready = HttpServer(), asyncio.Event()
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(server.serve(_say(b"done"), [listener], ready=ready))
            await ready.wait()
            port = listener.getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET)
            assert b"connection: close" not in await reader.readuntil(b"done")
            server.leave()
            for at in range(2):
                if at:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(GET)
                answer = await reader.read()
                assert answer.endswith(b"done"), answer
                assert b"connection: close" in answer
                writer.close()
            await server.shutdown(1)

    uvloop.run(main())


def test_request_in_hand_is_answered_before_the_end() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        entered.set()
        await leave.wait()
        await _say(b"done")(scope, receive, send)

    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        server, ready = HttpServer(), asyncio.Event()
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(server.serve(slow, [listener], ready=ready))
            await ready.wait()
            port = listener.getsockname()[1]
            asking = group.create_task(exchange(port, GET))
            await entered.wait()
            ending = group.create_task(server.shutdown(10))
            while await _accepts(port):
                pass
            leave.set()
            answer = await asking
            await ending
            assert answer.endswith(b"done")
            assert b"connection: close" in answer

    uvloop.run(main())


@pytest.mark.parametrize("spoke", [False, True], ids=["fresh", "used"])
def test_request_on_an_idle_connection_meets_the_end(spoke: bool) -> None:
    """A proxy that sends just as the server ends gets its answer; the end does not wait longer."""

    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        server, ready = HttpServer(), asyncio.Event()
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(server.serve(_say(b"done"), [listener], ready=ready))
            await ready.wait()
            port = listener.getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            if spoke:
                writer.write(GET)
                assert b"connection: close" not in await reader.readuntil(b"done")
            while not server.connections:
                await asyncio.sleep(0)
            began = asyncio.get_running_loop().time()
            ending = group.create_task(server.shutdown(30))
            while await _accepts(port):
                await asyncio.sleep(0)
            writer.write(GET)
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200"), answer
            assert answer.endswith(b"done")
            assert b"connection: close" in answer
            await ending
            assert asyncio.get_running_loop().time() - began < 1.5
            writer.close()

    uvloop.run(main())


def test_idle_connection_holds_up_the_end() -> None:
    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        server, ready = HttpServer(), asyncio.Event()
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(server.serve(_say(b"done"), [listener], ready=ready))
            await ready.wait()
            port = listener.getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            began = asyncio.get_running_loop().time()
            await server.shutdown(30)
            assert 1.9 < asyncio.get_running_loop().time() - began < 8
            assert await reader.read() == b""
            writer.close()

    uvloop.run(main())


def test_request_past_the_deadline_gets_503_and_its_key_is_good_again(door: Door) -> None:
    async def main() -> None:
        door.store.hold_accepts = held = asyncio.Event()
        entered = door.store.entered = asyncio.Event()
        listener = socket.create_server(("127.0.0.1", 0))
        server, ready = HttpServer(), asyncio.Event()
        body = json.dumps(email()).encode()
        head = (
            f"POST /emails HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {door.tokens['full']}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode()
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(server.serve(door.api, [listener], ready=ready))
            await ready.wait()
            asking = group.create_task(exchange(listener.getsockname()[1], head + body))
            await entered.wait()
            await server.shutdown(0)
            answer = await asking
        assert not held.is_set()
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1" in answer
        assert b'"name":"service_unavailable"' in answer

    uvloop.run(main())
    assert not door.store.messages_


def test_one_connection_too_many_is_told_so() -> None:
    async def talk(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        answer = await exchange(port)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b'"statusCode":503' in answer
        writer.transport.abort()

    with_server(talk, limits=HttpLimits(connections=1))


@pytest.mark.parametrize(
    "start",
    [b"GET / HT", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"],
    ids=["head", "body"],
)
def test_request_that_never_ends_is_ended(start: bytes) -> None:
    async def talk(port: int) -> None:
        answer = await exchange(port, start)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b'"name":"request_timeout"' in answer

    with_server(talk, limits=HttpLimits(head_timeout=0.0, request_timeout=0.0))


def test_connection_that_never_speaks_is_closed_in_silence() -> None:
    async def talk(port: int) -> None:
        assert await exchange(port) == b""

    with_server(talk, limits=HttpLimits(keep_alive=0.0))


def test_early_answer_reaches_a_client_that_is_still_sending(door: Door) -> None:
    """A reset would hide the 413 from the client (COMPAT §16: JSON also on 413)."""

    async def talk(port: int) -> None:
        size = 60 * 1024 * 1024
        head = (
            f"POST /emails HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {door.tokens['full']}\r\n"
            f"Content-Length: {size}\r\n\r\n"
        ).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        piece = bytes(1 << 20)
        for _ in range(60):
            writer.write(piece)
            await writer.drain()
        answer = await reader.readuntil(b"}")
        assert answer.startswith(b"HTTP/1.1 413")
        writer.write(GET)
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        writer.transport.abort()

    with_server(talk, app=door.api)


def test_endless_body_after_an_answer_is_cut() -> None:
    async def talk(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n")
        await reader.readuntil(b"early")
        while not reader.at_eof():
            try:
                writer.write(bytes(1 << 16))
                await writer.drain()
            except ConnectionError:
                break
        writer.transport.abort()

    with_server(talk, app=_say(b"early"), limits=HttpLimits(drain_bytes=1 << 18))


def test_client_that_goes_away_while_sending_is_nobodys_error(door: Door) -> None:
    async def talk(port: int) -> None:
        head = (
            f"POST /emails HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {door.tokens['full']}\r\n"
            "Content-Length: 1000\r\n\r\n{"
        ).encode()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        await writer.drain()
        writer.transport.abort()
        (answer,) = await answers(port, b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n", 1)
        assert b"200 OK" in answer

    with_server(talk, app=door.api)
    assert not door.store.messages_


def test_application_that_fails_ends_its_own_request_only() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/broken":
            raise RuntimeError("broken")
        await echo(scope, receive, send)

    async def talk(port: int) -> None:
        bad = await exchange(port, b"GET /broken HTTP/1.1\r\nHost: a\r\n\r\n")
        assert bad.startswith(b"HTTP/1.1 500")
        (good,) = await answers(port, GET, 1)
        assert good.startswith(b"HTTP/1.1 200")

    with_server(talk, app=broken)
