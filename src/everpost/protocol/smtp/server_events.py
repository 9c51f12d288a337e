"""What the server core tells its owner, and how an answer is written.

Every event but `Closed` waits for the owner's verdict: `Server.accept` or `Server.refuse`.
"""

import re

import msgspec

__all__ = [
    "Auth",
    "Closed",
    "Connect",
    "Data",
    "Event",
    "Hello",
    "Mail",
    "Message",
    "Rcpt",
    "StartTls",
    "answer",
]


class Connect(msgspec.Struct, frozen=True, gc=False):
    """Someone connected. Accepting sends the greeting; refusing sends the answer and closes."""


class Hello(msgspec.Struct, frozen=True, gc=False):
    """EHLO (`extended`) or HELO. `name` is what the client said: one printable word, no more."""

    name: str
    extended: bool


class StartTls(msgspec.Struct, frozen=True, gc=False):
    """STARTTLS. After accepting, the owner sends what was written, shakes hands and calls
    `Server.tls_started`."""


class Auth(msgspec.Struct, frozen=True, gc=False):
    """A complete AUTH exchange. `identity` is PLAIN's authorization identity, mostly empty."""

    mechanism: str
    identity: str
    username: str
    password: str

    def __repr__(self) -> str:
        return f"Auth(mechanism={self.mechanism!r}, username={self.username!r})"


class Mail(msgspec.Struct, frozen=True, gc=False):
    """MAIL FROM. `sender` is empty for `<>`. `size` is what the client declared (RFC 1870),
    `body` is 7BIT or 8BITMIME when given, `utf8` says SMTPUTF8."""

    sender: str
    size: int | None = None
    body: str | None = None
    utf8: bool = False


class Rcpt(msgspec.Struct, frozen=True, gc=False):
    """RCPT TO, within the transaction of the last accepted `Mail`."""

    recipient: str


class Data(msgspec.Struct, frozen=True, gc=False):
    """DATA, with at least one accepted recipient. Accepting sends 354."""

    mail: Mail
    recipients: tuple[str, ...]


class Message(msgspec.Struct, frozen=True, gc=False):
    """The whole content arrived, by DATA or by BDAT (`chunked`). `content` has CRLF line ends
    only, and is no longer dot-stuffed. Accepting is taking the responsibility for it."""

    mail: Mail
    recipients: tuple[str, ...]
    content: bytes
    chunked: bool = False


class Closed(msgspec.Struct, frozen=True, gc=False):
    """The core will take and say nothing more: send what it wrote, then close the connection.

    `reason`: quit · refused (the owner's own 421 or greeting) · early (spoke out of turn) · errors
    (too many) · confused (the stream can't be followed any more) · hung_up (the owner's wish).
    """

    reason: str


Event = Connect | Hello | StartTls | Auth | Mail | Rcpt | Data | Message | Closed


_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
_LINE = 500
"""Octets of text in one answer line; RFC 5321 §4.5.3.1.5 allows 512 with code and CRLF."""


def answer(code: int, text: str) -> bytes:
    """An answer's bytes; lines of `text` are divided by a newline, anything unprintable in it is
    written as a question mark, so that no text can add an answer of its own."""
    lines = [_UNPRINTABLE.sub("?", line)[:_LINE] for line in text.split("\n")]
    last = len(lines) - 1
    return "".join(
        f"{code}{' ' if at == last else '-'}{line}\r\n" for at, line in enumerate(lines)
    ).encode("ascii")
