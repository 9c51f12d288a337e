"""Emails that are not admitted: refused at the end of their head, in order, on a connection that
stays; and every byte and place that a request held is given back, however it ends."""

import asyncio
import json
import random
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from everpost.api import Admission, AdmissionLimits, HttpLimits
from everpost.api.asgi import Receive, Scope, Send
from everpost.monitoring.room import Room
from tests.unit.api.conftest import Door, email, new_door
from tests.unit.api.test_http_strictness import answers, exchange, with_server

Talk = Callable[[int], Awaitable[None]]


def _admission(**limits: int) -> Admission:
    rng = random.Random(3)
    return Admission(AdmissionLimits(**limits), now=lambda: 7.0, chance=rng.random, room=Room(10))


def _post(door: Door, body: bytes, *, extra: str = "", key: str = "full") -> bytes:
    return (
        f"POST /emails HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {door.tokens[key]}\r\n"
        f"Content-Length: {len(body)}\r\n{extra}\r\n"
    ).encode() + body


def _email(**fields: Any) -> bytes:
    return json.dumps(email(**fields)).encode()


def _talk(door: Door, admission: Admission, talk: Talk, limits: HttpLimits | None = None) -> None:
    """Serve the door; afterwards nothing may be in hand or held."""
    with_server(talk, app=door.api, limits=limits, admission=admission)
    assert (admission.in_hand, admission.held) == (0, 0)


def test_refused_email_leaves_the_connection_usable() -> None:
    admission = _admission()
    door = new_door(admission=admission)

    async def talk(port: int) -> None:
        admission.room.look(0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(_post(door, _email()))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503")
            assert b"connection: close" not in head
            assert b"retry-after: " in head
            body = await reader.readuntil(b"}")
            assert json.loads(body)["name"] == "service_unavailable"
        admission.room.look(1000)
        writer.write(_post(door, _email()))
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        writer.transport.abort()

    _talk(door, admission, talk)
    assert len(door.store.messages_) == 1


def test_refusal_comes_before_the_body_is_sent() -> None:
    admission = _admission(body_bytes=10_000_000)
    door = new_door(admission=admission)

    async def talk(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = _post(door, b"").replace(b"Length: 0", b"Length: 10000001")
        writer.write(head)
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 503")
        piece = bytes(1 << 16)
        for _ in range(10_000_001 // len(piece)):
            writer.write(piece)
            await writer.drain()
        writer.write(bytes(10_000_001 % len(piece)))
        assert admission.held == 0
        writer.write(_post(door, _email()))
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        writer.transport.abort()

    _talk(door, admission, talk)


def test_client_that_waits_to_be_asked_for_its_body_is_refused_and_closed() -> None:
    """Whether the body follows is open, so what comes next could be read in two ways."""
    admission = _admission(requests=0)
    door = new_door(admission=admission)

    async def talk(port: int) -> None:
        head = _post(door, b"", extra="Expect: 100-continue\r\n")
        answer = await exchange(port, head.replace(b"Length: 0", b"Length: 5"))
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"connection: close" in answer

    _talk(door, admission, talk)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_client_that_wants_the_connection_closed(version: bytes) -> None:
    admission = _admission(requests=0)
    door = new_door(admission=admission)

    async def talk(port: int) -> None:
        sent = _post(door, _email(), extra="Connection: close\r\n").replace(b"1.1", version)
        answer = await exchange(port, sent)
        assert answer.startswith(b"HTTP/1.1 503")
        assert answer.count(b"HTTP/1.1") == 1

    _talk(door, admission, talk)


@pytest.mark.parametrize("key", ["full", "none"])
def test_client_that_wants_the_connection_closed_sees_why_its_large_email_is_refused(
    key: str,
) -> None:
    """The connection ends behind the body, or a reset would take the answer away."""
    admission = _admission(requests=0 if key == "full" else 512)
    door = new_door(admission=admission)

    async def talk(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = bytes(5_000_000)
        head = _post(door, body, extra="Connection: close\r\n")
        if key == "none":
            head = head.replace(door.tokens["full"].encode(), b"nobody")
        writer.write(head)
        await writer.drain()
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 503" if key == "full" else b"HTTP/1.1 4")
        assert b"connection: close" in answer
        writer.transport.abort()

    _talk(door, admission, talk)


def test_refusals_that_nobody_reads_pile_up_in_memory() -> None:
    """Who does not read answers is not read from either."""
    admission = _admission(requests=0)
    door = new_door(admission=admission)

    async def talk(port: int) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", port))
            many = b"POST /emails HTTP/1.1\r\nHost: a\r\n\r\n" * 1000
            sent = 0
            try:
                while sent < 2000:
                    async with asyncio.timeout(2):
                        await loop.sock_sendall(sock, many)
                    sent += 1
            except TimeoutError:  # the far end takes no more
                pass
            assert sent < 2000

    _talk(door, admission, talk)


@pytest.mark.parametrize("then", [b"\r\n", b"1"], ids=["empty-line", "end-of-body"])
def test_connection_idles_for_ever_after_bytes_that_begin_nothing(then: bytes) -> None:
    door = new_door()

    async def talk(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if then == b"1":  # the answer is early, the last byte of the body late
            writer.write(b"POST /domains HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n0")
        else:
            writer.write(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"}")
        writer.write(then)
        assert await reader.read() == b""  # within the test's time
        writer.transport.abort()

    with_server(talk, app=door.api, limits=HttpLimits(keep_alive=0.2))


def test_next_request_is_swallowed_as_the_body_that_was_never_asked_for() -> None:
    door = new_door()

    async def talk(port: int) -> None:
        head = b"POST /domains HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n"
        answer = await exchange(port, head + b"Expect: 100-continue\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 401")
        assert b"connection: close" in answer
        assert answer.count(b"HTTP/1.1") == 1

    with_server(talk, app=door.api)


def test_refusal_does_not_overtake_an_earlier_answer() -> None:
    admission = _admission(requests=1)
    door = new_door(admission=admission)
    one = _post(door, _email())

    async def talk(port: int) -> None:
        door.store.hold_accepts = held = asyncio.Event()
        entered = door.store.entered = asyncio.Event()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(one + one + b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        await entered.wait()
        assert admission.in_hand >= 1
        held.set()
        statuses = [(await reader.readuntil(b"}"))[9:12] for _ in range(3)]
        assert statuses == [b"200", b"200", b"200"]
        writer.transport.abort()

    _talk(door, admission, talk)


@pytest.mark.parametrize(
    "sent",
    [
        lambda door: _post(door, _email()),
        lambda door: _post(door, b"{"),
        lambda door: _post(door, _email(), extra="Idempotency-Key: a\r\nIdempotency-Key: b\r\n"),
        lambda door: _post(door, _email()).replace(b"Bearer ep", b"Bearer xx"),
        lambda door: _post(door, _email()).replace(b"/emails", b"/emails/"),
        lambda door: _post(door, _email()).replace(b"POST", b"PUT"),
        lambda door: _post(door, b"{" + b" " * 200_000 + b"}").replace(b"Bearer ep", b"Bearer xx"),
        lambda door: _post(door, _email(), extra="Upgrade: h2c\r\nConnection: Upgrade\r\n"),
        lambda door: (
            b"POST /emails HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
            + f"Authorization: Bearer {door.tokens['full']}\r\n\r\n".encode()
            + b"2\r\n{}\r\n0\r\n\r\n"
        ),
    ],
    ids=[
        "accepted",
        "broken",
        "twins",
        "unknown-key",
        "slash",
        "method",
        "large",
        "h2c",
        "chunked",
    ],
)
def test_what_a_request_held_is_given_back(sent: Callable[[Door], bytes]) -> None:
    admission = _admission()
    door = new_door(admission=admission)

    async def talk(port: int) -> None:
        one = sent(door)
        for answer in await answers(port, one * 3, 3):
            assert answer[9:12] in {b"200", b"400", b"403", b"405", b"422"}, answer

    _talk(door, admission, talk)


@pytest.mark.parametrize("sent", [0, 3, 100_000, 400_000])
def test_client_that_goes_away_gives_back_what_it_held(sent: int) -> None:
    admission = _admission()
    door = new_door(admission=admission)

    async def talk(port: int) -> None:
        one = _post(door, b" " * 500_000)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(one[: len(one) - 500_000 + sent])
        await writer.drain()
        while sent and not admission.held:
            await asyncio.sleep(0)
        writer.transport.abort()
        while admission.held:
            await asyncio.sleep(0)

    _talk(door, admission, talk)


def test_client_that_goes_away_with_requests_in_the_queue() -> None:
    admission = _admission()
    door = new_door(admission=admission)

    async def talk(port: int) -> None:
        door.store.hold_accepts = held = asyncio.Event()
        entered = door.store.entered = asyncio.Event()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(_post(door, _email()) * 5)
        await entered.wait()
        writer.transport.abort()
        while admission.in_hand > 1:
            await asyncio.sleep(0)
        held.set()
        while admission.in_hand:
            await asyncio.sleep(0)

    _talk(door, admission, talk)


def test_body_that_trickles_in_is_ended_and_one_that_stops_for_a_moment_is_not() -> None:
    async def read_all(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]}
        )
        await send({"type": "http.response.body", "body": b"}"})

    async def talk(port: int) -> None:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000001\r\n\r\n"
        answer, quick = await asyncio.open_connection("127.0.0.1", port)
        quick.write(head + bytes(2_000_000))  # one byte is left, the average is high
        slow = await exchange(port, head + bytes(400))
        assert slow.startswith(b"HTTP/1.1 408")
        assert b"too slowly" in slow
        quick.write(b"x")
        assert (await answer.readline()).startswith(b"HTTP/1.1 200")
        quick.transport.abort()

    with_server(
        talk, app=read_all, limits=HttpLimits(min_rate=500.0, min_rate_grace=0.0, head_timeout=0.0)
    )


async def _send_for_ever(sock: socket.socket) -> None:
    while True:
        await asyncio.get_running_loop().sock_sendall(sock, b"x")
        await asyncio.sleep(0)


@pytest.mark.parametrize("size", [40_000, 40_000_000], ids=["below-high-water", "above"])
def test_client_that_never_reads_holds_no_connection_for_ever(size: int) -> None:
    """The end of a connection waits until its answer is read; not without end."""

    async def talk(port: int) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", port))
            await loop.sock_sendall(sock, b"GET / HTTP/1.0\r\n\r\n")
            with pytest.raises(ConnectionError):
                await _send_for_ever(sock)  # nothing is read, so only a reset tells

    async def much(scope: Scope, receive: Receive, send: Send) -> None:
        body = bytes(size)
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    with_server(talk, app=much, limits=HttpLimits(write_timeout=0.1), send_buffer=4096)


def test_listener_that_does_not_ask_is_no_way_around() -> None:
    """On the operator's, the application asks."""
    admission = _admission()
    door = new_door(admission=admission)
    admission.room.look(0)
    refused = door.ask("POST", "/emails", email())
    assert refused.status == 503
    assert 10 <= int(refused.headers["retry-after"]) <= 30
    assert door.ask("GET", "/emails").status == 200
    admission.room.look(1000)
    assert door.ask("POST", "/emails", email()).status == 200
    assert admission.held == admission.in_hand == 0
