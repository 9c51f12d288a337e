"""Request smuggling through HAProxy and nginx (S33): whatever they forward, our server and they see
the same requests."""

import asyncio
from pathlib import Path

import pytest

from everpost.api.asgi import Receive, Scope, Send
from tests.support.fronts import FRONTS, Front
from tests.support.hostile import SMUGGLED, WIRES
from tests.unit.api.test_http_strictness import echo, with_server

GOOD = b"GET /good HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class Seen:
    """Remembers the requests that reach the application, and echoes them."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[bytes, bytes]]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests.append((f"{scope['method']} {scope['path']}", dict(scope["headers"])))
        await echo(scope, receive, send)

    def judge(self) -> None:
        """Nothing came around the front, and nothing that it should have stopped."""
        for line, headers in self.requests:
            assert headers.get(b"x-front") == b"seen", f"smuggled: {line} {headers}"
            assert not any(c in value for value in headers.values() for c in b"\0\r\n"), headers


async def _exchange(path: str, data: bytes) -> bytes:
    """Send on a connection of its own, read until the front closes."""
    reader, writer = await asyncio.open_unix_connection(path)
    answer = b""
    try:
        writer.write(data)
        while piece := await reader.read(65_536):
            answer += piece
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    return answer


@pytest.mark.parametrize("kind", FRONTS)
def test_proxy_lets_a_second_request_through(kind: str, tmp_path: Path) -> None:
    """Every wire of the table, all at once, so that their connections to us are shared; between and
    after them other people's requests, which must get their own answers."""
    seen = Seen()

    async def talk(port: int) -> None:
        with Front(kind, tmp_path, port) as front:

            async def victim() -> None:
                answer = await _exchange(front.path, GOOD)
                assert answer.startswith(b"HTTP/1.1 200"), answer
                assert b"GET /good " in answer
                assert answer.count(b"HTTP/1.1 ") == 1

            await asyncio.gather(
                *(each for w in WIRES for each in (_exchange(front.path, w.data), victim()))
            )
            await victim()

    with_server(talk, app=seen)
    seen.judge()
    assert sum(line == "GET /good" for line, _ in seen.requests) == len(WIRES) + 1


@pytest.mark.parametrize("name", ["NUL in value", "control character in value"])
def test_octet_that_haproxy_forwards_is_taken_by_us(name: str, tmp_path: Path) -> None:
    """HAProxy 2.6 hands control characters in values on; the refusal is in our words."""
    (wire,) = (wire for wire in WIRES if wire.name == name)
    seen = Seen()

    async def talk(port: int) -> None:
        with Front("haproxy", tmp_path, port) as front:
            answer = await _exchange(front.path, wire.data)
            assert answer.startswith(b"HTTP/1.1 400 "), answer
            assert b'{"statusCode":400,' in answer

    with_server(talk, app=seen)
    seen.judge()
    assert not any(line == "POST /" for line, _ in seen.requests)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """RFC 9113 §4.1."""
    return (
        len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
    )


def _h2(*fields: tuple[bytes, bytes], body: bytes | None = None) -> bytes:
    """A connection's first bytes: preface, settings, one request, its fields as literals without
    Huffman code or index (RFC 7541 §6.2.2)."""
    head = b"".join(
        b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value for name, value in fields
    )
    data = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b"")
    data += _frame(1, 4 if body is not None else 5, 1, head)
    return data if body is None else data + _frame(0, 1, 1, body)


_POST = ((b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a"))
_AT = (*_POST, (b":path", b"/"))
DOWNGRADES = {
    "coding in a field": _h2(
        *_AT, (b"transfer-encoding", b"chunked"), body=b"0\r\n\r\n" + SMUGGLED
    ),
    "length too short": _h2(*_AT, (b"content-length", b"0"), body=SMUGGLED),
    "length too long": _h2(*_AT, (b"content-length", b"400"), body=SMUGGLED),
    "two lengths": _h2(
        *_AT, (b"content-length", b"0"), (b"content-length", b"37"), body=SMUGGLED
    ),
    "line break in a value": _h2(*_AT, (b"x", b"a\r\nTransfer-Encoding: chunked\r\n\r\n0")),
    "LF in a value": _h2(*_AT, (b"x", b"a\nx-front: forged")),
    "NUL in a value": _h2(*_AT, (b"x", b"a\0b")),
    "line break in a name": _h2(*_AT, (b"x: y\r\nz", b"a")),
    "colon in a name": _h2(*_AT, (b"content-length: 0", b"a")),
    "capitals in a name": _h2(*_AT, (b"Content-Length", b"0"), body=SMUGGLED),
    "request in the path": _h2(*_POST, (b":path", b"/ HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED)),
    "request in the method": _h2(
        (b":method", b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\nPOST"), *_AT[1:]
    ),
    "request in the authority": _h2(
        _AT[0], _AT[1], (b":authority", b"a\r\n\r\n" + SMUGGLED), _AT[3]
    ),
    "upgrade": _h2(*_AT, (b"connection", b"upgrade"), (b"upgrade", b"h2c"), body=SMUGGLED),
    "proper": _h2(*_AT, (b"content-length", b"%d" % len(SMUGGLED)), body=SMUGGLED),
}  # fmt: skip


@pytest.mark.long
def test_http2_front_smuggles_by_writing_http1(tmp_path: Path) -> None:
    """h2 downgrade: lengths and line breaks that mean nothing in HTTP/2 and much in HTTP/1.1."""
    seen = Seen()

    async def talk(port: int) -> None:
        with Front("haproxy", tmp_path, port) as front:
            for data in DOWNGRADES.values():
                await _exchange(f"{front.path}-h2", data)
                answer = await _exchange(front.path, GOOD)
                assert b"GET /good " in answer, answer

    with_server(talk, app=seen)
    seen.judge()
    assert [line for line, _ in seen.requests if "smuggled" in line] == []
    assert sum(line == "POST /" for line, _ in seen.requests) >= 1, (
        "the proper one came not through"
    )
