"""Bytes that two HTTP readers could read in two ways (S33)."""

from collections.abc import Sequence

from tests.support.hostile.row import HostileWire

__all__ = ["SMUGGLED", "WIRES"]

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
"""What must never be seen as a request of its own."""

_LONG = 300_000
_REFUSED: dict[str, bytes] = {
    "length and chunked": HEAD
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked and length": HEAD
    + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "space before colon": HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "tab before colon": HEAD + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "vertical tab before coding": HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "length with space before colon": HEAD + b"Content-Length : 4\r\n\r\nabcd" + SMUGGLED,
    "two lengths": HEAD + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde" + SMUGGLED,
    "two equal lengths": HEAD + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    "length list": HEAD + b"Content-Length: 4, 4\r\n\r\nabcd",
    "length +4": HEAD + b"Content-Length: +4\r\n\r\nabcd",
    "length -4": HEAD + b"Content-Length: -4\r\n\r\nabcd",
    "length 0x4": HEAD + b"Content-Length: 0x4\r\n\r\nabcd",
    "length 4_0": HEAD + b"Content-Length: 4_0\r\n\r\nabcd",
    "length 4 0": HEAD + b"Content-Length: 4 0\r\n\r\nabcd",
    "length empty": HEAD + b"Content-Length: \r\n\r\n",
    "length too long": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "LF only": b"GET / HTTP/1.1\nHost: a\n\n" + SMUGGLED,
    "LF after a header": HEAD + b"X: a\nY: b\r\n\r\n",
    "LF ends the head": b"GET / HTTP/1.1\r\nHost: a\r\n\n" + SMUGGLED,
    "CR ends a header": HEAD + b"X: a\rContent-Length: 0\r\n\r\n",
    "CR only": b"GET / HTTP/1.1\rHost: a\r\r",
    "LF in chunk head": CHUNKED + b"3\nabc\r\n0\r\n\r\n",
    "LF after chunk": CHUNKED + b"3\r\nabc\n0\r\n\r\n",
    "LF in chunk extension": CHUNKED + b"3;a\nb\r\nabc\r\n0\r\n\r\n" + SMUGGLED,
    "chunk size with space": CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n",
    "chunk size with sign": CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n",
    "chunk size 0x3": CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "chunk size empty": CHUNKED + b"\r\nabc\r\n0\r\n\r\n",
    "chunk size too long": CHUNKED + b"fffffffffffffffff\r\n",
    "chunk without end": CHUNKED + b"3\r\nabcX0\r\n\r\n",
    "NUL in value": HEAD + b"X: a\x00b\r\n\r\n" + SMUGGLED,
    "NUL in name": HEAD + b"X\x00: a\r\n\r\n",
    "CR in value": HEAD + b"X: a\rb\r\n\r\n",
    "CR before CRLF": HEAD + b"X: a\r\r\n\r\n",
    "control character in value": HEAD + b"X: a\x01b\r\n\r\n",
    "folded value": HEAD + b"X: a\r\n b\r\n\r\n",
    "first header indented": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "no colon": HEAD + b"X\r\n\r\n",
    "empty name": HEAD + b": a\r\n\r\n",
    "high byte in name": HEAD + b"X\xe9: a\r\n\r\n",
    "bracket in name": HEAD + b"X[: a\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/0.9 by name": b"POST / HTTP/0.9\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "lower-case protocol": b"GET / http/1.1\r\nHost: a\r\n\r\n",
    "CONNECT": b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "NUL in path": b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
    "high byte in path": b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "space in path": b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "unknown method": b"FOO / HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
    "SMTP": b"EHLO a\r\nMAIL FROM:<a@x.test>\r\n",
}  # fmt: skip

_NO_CODING: dict[str, bytes] = {
    "coding xchunked": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "coding chunked, identity": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "coding gzip, chunked": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "coding identity": HEAD + b"Transfer-Encoding: identity\r\n\r\n" + SMUGGLED,
    "coding quoted": HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "coding twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}

_TOO_MUCH: dict[str, bytes] = {
    "head too large": HEAD + b"X: " + b"a" * _LONG,
    "too many headers": HEAD + b"X: a\r\n" * 200 + b"\r\n",
    "endless trailer": CHUNKED + b"0\r\nX: " + b"a" * _LONG,
    "endless chunk extension": CHUNKED + b"3;" + b"a" * _LONG,
}

WIRES: Sequence[HostileWire] = (
    *(HostileWire("S33", name, data) for name, data in _REFUSED.items()),
    *(HostileWire("S33", name, data, (400, 501)) for name, data in _NO_CODING.items()),
    *(HostileWire("S33", name, data, (400, 431)) for name, data in _TOO_MUCH.items()),
)
