"""The sending end of SMTP, without I/O: commands as bytes, and replies matched to them.

A command is asked (`Client.ask`) when its bytes leave; replies are matched first in, first out. A
reply that nobody asked for, or before its time, breaks the session: it is never taken for another
command's answer (S3, S17). Every argument of a command is checked here, whoever checked it before
(S7), and content that holds a bare CR or LF is refused before any byte of it leaves (S2).

Unsafe   our own fault: an argument or content that must not reach the wire
"""

import base64
import re

from everpost.protocol.smtp.extensions import Extensions
from everpost.protocol.smtp.grammar import frame, has_bare_line_ends, wire_safe
from everpost.protocol.smtp.replies import Reply, ReplyParser

__all__ = [
    "DATA",
    "LONE_DOT",
    "MECHANISMS",
    "QUIT",
    "RSET",
    "STARTTLS",
    "Client",
    "Login",
    "Unsafe",
    "bdat",
    "content",
    "ehlo",
    "helo",
    "mail",
    "mechanism",
    "rcpt",
    "without_login",
]

STARTTLS = b"STARTTLS\r\n"
RSET = b"RSET\r\n"
QUIT = b"QUIT\r\n"
DATA = b"DATA\r\n"

LONE_DOT = b".\r\n"
"""Ends content that never began: when DATA was answered 354 though no recipient was accepted.
RFC 2920 §3.1."""

COMMAND_LINE = 512
"""Octets of a command with its CRLF. RFC 5321 §4.5.3.1.4."""

MECHANISMS = ("PLAIN", "LOGIN")
"""Ways to log in that are chosen from the far end's offer, best first. XOAUTH2 (its secret is a
token, not a password) must be named."""

_TELLTALE = 8
"""So many characters of a quoted login are enough to know it by."""

_HIDDEN = "[hidden]"


class Unsafe(ValueError):
    """What was to be sent must not be."""


class Client:
    """Matches replies to commands. The server speaks first, so one reply is due from the start.

    `broken` says why the session is beyond use, or is None. `closing`: the far end answered 421 and
    is about to close; whatever else was due will never come (RFC 5321 §3.8). `unasked` is the reply
    that came though none was due: it breaks the session, yet may be worth hearing.
    """

    __slots__ = ("_answers", "_parser", "broken", "closing", "due", "unasked")

    def __init__(self) -> None:
        self.due = 1
        self.broken: str | None = None
        self.closing = False
        self.unasked: Reply | None = None
        self._answers: list[Reply] = []
        self._parser = ReplyParser()

    @property
    def clean(self) -> bool:
        """Whether nothing at all was read beyond what was taken: true before a switch to TLS, or
        somebody spoke into it (S17)."""
        return self.broken is None and not self.closing and self._parser.empty and not self._answers

    def ask(self, replies: int) -> None:
        """So many commands leave now, each to be answered once."""
        self.due += replies

    def feed(self, received: bytes) -> None:
        """Take bytes from the far end."""
        if self.broken is not None or self.closing:
            return
        for reply in self._parser.feed(received):
            if not self.due:
                self.unasked = reply
                self.broken = f"a reply that nobody asked for: {reply}"[:300]
                return
            self.due -= 1
            self._answers.append(reply)
            if reply.code == 421:
                self.closing = True
                self.due = 0
                return
        if self._parser.broken is not None:
            self.broken = self._parser.broken
        elif not self.due and not self._parser.empty:
            self.broken = "bytes that nobody asked for"

    def take(self) -> list[Reply]:
        """The answers since the last take, in the order of their commands. Fewer than were asked
        for when the session is closing, broken or lost."""
        answers = self._answers
        self._answers = []
        return answers


# --- commands -------------------------------------------------------------------------------------


def _safe(value: str, what: str) -> str:
    if not wire_safe(value):
        raise Unsafe(f"{what} cannot be sent: it holds a space, a control or an angle bracket")
    return value


def _name(name: str) -> bytes:
    """Our name: a domain in A-labels or an address literal. RFC 5321 §4.1.1.1."""
    if not name or not name.isascii():
        raise Unsafe("our name cannot be sent: it is empty or not ASCII")
    return _safe(name, "our name").encode("ascii")


def ehlo(name: str) -> bytes:
    return b"EHLO " + _name(name) + b"\r\n"


def helo(name: str) -> bytes:
    return b"HELO " + _name(name) + b"\r\n"


def mail(
    sender: str, extensions: Extensions, *, size: int, eight_bit: bool = False, utf8: bool = False
) -> bytes:
    """MAIL with the parameters that the far end understands. `size` in octets before dot-stuffing
    (RFC 1870 §5). Raises Unsafe, also when it lacks what the message needs."""
    parameters = f" SIZE={size}" if extensions.sizes else ""
    if eight_bit or utf8:
        if not extensions.eight_bit:
            raise Unsafe("8-bit content cannot be sent: 8BITMIME is not offered")
        parameters += " BODY=8BITMIME"
    if utf8:
        if not extensions.smtputf8:
            raise Unsafe("internationalised mail cannot be sent: SMTPUTF8 is not offered")
        parameters += " SMTPUTF8"
    return f"MAIL FROM:<{_safe(sender, 'the return path')}>{parameters}\r\n".encode()


def rcpt(recipient: str) -> bytes:
    if not recipient:
        raise Unsafe("an empty recipient cannot be sent")
    return f"RCPT TO:<{_safe(recipient, 'a recipient')}>\r\n".encode()


def content(message: bytes) -> bytes:
    """The message as it follows 354, with the final dot: every leading dot stuffed. Raises Unsafe
    for a bare CR or LF, at which some servers would end it."""
    _without_bare_line_ends(message)
    return frame(message)


def bdat(message: bytes) -> bytes:
    """The message as one last chunk: no dots, no 354. RFC 3030 §2. Raises Unsafe as `content`:
    the next server on the way may not know BDAT."""
    _without_bare_line_ends(message)
    if not message.endswith(b"\r\n"):
        message += b"\r\n"
    return b"BDAT %d LAST\r\n%b" % (len(message), message)


def _without_bare_line_ends(message: bytes) -> None:
    if has_bare_line_ends(message):
        raise Unsafe("the message cannot be sent: it holds a bare CR or LF")


# --- login ----------------------------------------------------------------------------------------


def mechanism(wanted: str | None, offered: frozenset[str]) -> str | None:
    """The mechanism to log in with: the one that is wanted, else our best of those offered."""
    if wanted is not None:
        return wanted.upper() if wanted.upper() in offered else None
    return next((m for m in MECHANISMS if m in offered), None)


class Login:
    """One login: `command`, then an `answer` to each 334 until the far end decides.

    PLAIN (RFC 4616), LOGIN (no RFC, what servers do) or XOAUTH2 (`secret` is the bearer token).
    Raises Unsafe for an unknown mechanism, or a user or secret that it cannot carry.
    """

    def __init__(self, mechanism: str, user: str, secret: str) -> None:
        if any(c in user + secret for c in "\x00\r\n\x01"):
            raise Unsafe("the login cannot be sent: it holds a control character")
        responses = _responses(user, secret).get(mechanism)
        if responses is None:
            raise Unsafe(f"the mechanism {mechanism!r} is not known")
        self._mechanism = mechanism
        self._responses = responses

    def command(self) -> bytes:
        """AUTH, with the initial response where one is due and the line stays within the limit
        (RFC 4954 §4)."""
        alone = f"AUTH {self._mechanism}\r\n".encode("ascii")
        if self._mechanism == "LOGIN":
            return alone
        full = alone[:-2] + b" " + _base64(self._responses[0]) + b"\r\n"
        if len(full) > COMMAND_LINE:
            return alone
        del self._responses[0]
        return full

    def answer(self) -> bytes:
        """What follows the next 334. Past our last word (XOAUTH2 tells its error in a challenge)
        an empty line lets the far end refuse."""
        if not self._responses:
            return b"\r\n"
        return _base64(self._responses.pop(0)) + b"\r\n"


def without_login(text: str, *, user: str, secret: str) -> str:
    """What a far end said, without our secret: some servers quote the line that they refuse, or
    its beginning (I21)."""
    if not secret:
        return text
    for responses in _responses(user, secret).values():
        for response in (r for r in responses if secret in r):
            sent = _base64(response).decode("ascii")
            text = re.sub(re.escape(sent[:_TELLTALE]) + "[A-Za-z0-9+/=]*", _HIDDEN, text)
    return text.replace(secret, _HIDDEN)


def _responses(user: str, secret: str) -> dict[str, list[str]]:
    """What each mechanism has us say."""
    return {
        "PLAIN": [f"\0{user}\0{secret}"],
        "LOGIN": [user, secret],
        "XOAUTH2": [f"user={user}\1auth=Bearer {secret}\1\1"],
    }


def _base64(text: str) -> bytes:
    return base64.b64encode(text.encode())
