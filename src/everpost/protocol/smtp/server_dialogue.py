"""What a server knows of one connection, and what each command does to it.

`server` cuts the bytes and carries the owner's verdicts; here a command becomes an answer of our
own, or the event that the owner has to answer.
"""

from collections.abc import Callable

from everpost.protocol.smtp.server_auth import MECHANISMS, Exchange, Malformed
from everpost.protocol.smtp.server_commands import (
    read_chunk_size,
    read_hello,
    read_mail,
    read_recipient,
)
from everpost.protocol.smtp.server_events import (
    Auth,
    Closed,
    Connect,
    Data,
    Event,
    Hello,
    Mail,
    Rcpt,
    StartTls,
)
from everpost.protocol.smtp.server_inbox import Inbox
from everpost.protocol.smtp.server_offer import Limits, Offer

__all__ = [
    "CHUNK",
    "COMMAND",
    "COMMANDS",
    "CONTENT",
    "HANDSHAKE",
    "LOGIN",
    "OK",
    "TOO_LARGE",
    "Dialogue",
]

OK = b"250 2.0.0 Ok\r\n"
TOO_LARGE = b"552 5.3.4 Message size exceeds the limit\r\n"
_HELLO_FIRST = b"503 5.5.1 Say EHLO first\r\n"
_NO_ARGUMENT = b"501 5.5.4 No parameters here\r\n"

_FOREIGN = frozenset({"GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "PATCH", "DELETE"})
"""Another protocol's commands: a browser was led here."""


COMMAND, LOGIN, CONTENT, CHUNK, HANDSHAKE = range(5)
"""Modes: what the next bytes are. Plain integers, for they are compared at every step."""


class Dialogue:
    """State and commands of one connection; `Server` is its face."""

    __slots__ = (
        "_chunk_left",
        "_chunk_refusal",
        "_chunks",
        "_due",
        "_errors",
        "_exchange",
        "_failed_logins",
        "_farewell",
        "_handed",
        "_inbox",
        "_last_chunk",
        "_limits",
        "_lockstep",
        "_mail",
        "_mode",
        "_offer",
        "_out",
        "_recipients",
        "_tried",
        "closed",
        "hello",
        "hostname",
        "tls",
        "username",
    )

    def __init__(
        self,
        hostname: str,
        *,
        offer: Offer | None = None,
        limits: Limits | None = None,
        tls: bool = False,
    ) -> None:
        self.hostname = hostname
        self.tls = tls
        self.closed = False
        self.hello: Hello | None = None
        self.username: str | None = None
        self._offer = offer or Offer()
        self._limits = limits or Limits()
        if not set(self._offer.auth) <= set(MECHANISMS):
            raise ValueError(f"mechanisms are {', '.join(MECHANISMS)}")
        self._lockstep = True  # until the client was told of PIPELINING
        self._mode = COMMAND
        self._inbox = Inbox()
        self._out: list[bytes] = []
        self._due: Event | None = Connect()  # what the owner has to answer
        self._handed = False  # whether it has seen it
        self._farewell: Closed | None = None
        self._errors = 0
        self._failed_logins = 0
        self._exchange: Exchange | None = None
        self._mail: Mail | None = None
        self._recipients: list[str] = []
        self._tried = False  # whether this transaction had a RCPT at all
        self._chunks: bytearray | None = None
        self._chunk_left = 0
        self._last_chunk = False
        self._chunk_refusal: bytes | None = None

    def _reset(self) -> None:
        """No transaction. RFC 5321 §4.1.1.5."""
        self._mail = None
        self._recipients = []
        self._tried = False
        self._chunks = None

    def _say_and_close(self, reply: bytes, reason: str) -> None:
        self._out.append(reply)
        self.closed = True
        self._farewell = Closed(reason)
        self._due, self._handed = None, False
        self._inbox.clear()
        self._reset()

    def _mistake(self, reply: bytes) -> None:
        """Answer a command that was wrong in itself; too many end the connection."""
        self._out.append(reply)
        self._errors += 1
        if self._errors >= self._limits.errors:
            self._say_and_close(b"421 4.7.0 Too many errors\r\n", "errors")

    def _unknown(self, argument: str) -> None:
        self._mistake(b"500 5.5.1 Command unrecognized\r\n")

    def _foreign(self, argument: str) -> None:
        self._say_and_close(b"521 5.5.1 This is SMTP\r\n", "confused")

    def _not_here(self, argument: str) -> None:
        self._mistake(b"502 5.5.1 Command not implemented\r\n")

    def _ehlo(self, argument: str) -> None:
        self._greeted(read_hello(argument, extended=True))

    def _helo(self, argument: str) -> None:
        self._greeted(read_hello(argument, extended=False))

    def _greeted(self, hello: Hello | bytes) -> None:
        if isinstance(hello, bytes):
            self._mistake(hello)
        else:
            self._due = hello

    def _mail_from(self, argument: str) -> None:
        if self.hello is None:
            self._mistake(_HELLO_FIRST)
        elif self._mail is not None:
            self._mistake(b"503 5.5.1 One MAIL at a time\r\n")
        else:
            mail = read_mail(argument, self._offer, self._limits)
            if isinstance(mail, bytes):
                self._mistake(mail)
            else:
                self._due = mail

    def _rcpt_to(self, argument: str) -> None:
        if self._mail is None or self._chunks is not None:
            self._mistake(b"503 5.5.1 Say MAIL first\r\n")
            return
        self._tried = True
        if len(self._recipients) >= self._limits.recipients:
            self._out.append(b"452 4.5.3 Too many recipients\r\n")  # RFC 5321 §4.5.3.1.10
            return
        recipient = read_recipient(argument, utf8=self._mail.utf8)
        if isinstance(recipient, bytes):
            self._mistake(recipient)
        else:
            self._due = Rcpt(recipient)

    def _no_recipients(self) -> bytes:
        if self._mail is None:
            return b"503 5.5.1 Say MAIL first\r\n"
        if self._tried:
            return b"554 5.5.1 No valid recipients\r\n"
        return b"503 5.5.1 Say RCPT first\r\n"

    def _data(self, argument: str) -> None:
        if argument.strip():
            self._mistake(_NO_ARGUMENT)
        elif not self._recipients:
            # RFC 2920 §3.1: a pipelining client asks before it knows that nobody was accepted.
            self._out.append(self._no_recipients())
        elif self._chunks is not None:
            self._mistake(b"503 5.5.1 DATA does not follow BDAT\r\n")  # RFC 3030 §3
        else:
            assert self._mail is not None
            self._due = Data(self._mail, tuple(self._recipients))

    def _bdat(self, argument: str) -> None:
        size = read_chunk_size(argument) if self._offer.chunking else None
        if size is None:  # where its octets end, and so where the next command begins, is unknown
            self._say_and_close(b"521 5.5.4 Bad BDAT\r\n", "confused")
            return
        self._mode = CHUNK
        self._chunk_left, self._last_chunk = size
        if not self._recipients:
            self._chunk_refusal = self._no_recipients()
            return
        if self._chunks is None:
            self._chunks = bytearray()
        if len(self._chunks) + self._chunk_left > self._limits.message:
            self._reset()
            self._chunk_refusal = TOO_LARGE

    def _rset(self, argument: str) -> None:
        if argument.strip():
            self._mistake(_NO_ARGUMENT)
            return
        self._reset()
        self._out.append(OK)

    def _noop(self, argument: str) -> None:
        self._out.append(OK)

    def _vrfy(self, argument: str) -> None:
        if not argument.strip():
            self._mistake(b"501 5.5.4 Whom?\r\n")
        else:  # RFC 5321 §3.5.3
            self._out.append(b"252 2.5.0 Not verified here; mail may be accepted\r\n")

    def _help(self, argument: str) -> None:
        self._out.append(b"214 2.0.0 See RFC 5321\r\n")

    def _quit(self, argument: str) -> None:
        self._say_and_close(b"221 2.0.0 Bye\r\n", "quit")

    def _starttls(self, argument: str) -> None:
        if not self._offer.starttls:
            self._not_here(argument)
        elif self.tls:
            self._mistake(b"503 5.5.1 TLS is active already\r\n")
        elif argument.strip():
            self._mistake(_NO_ARGUMENT)
        else:
            self._inbox.clear()  # RELIABILITY S17: nothing sent in clear survives the switch
            self._due = StartTls()

    def _auth(self, argument: str) -> None:
        mechanism, _, initial = argument.strip().partition(" ")
        if not self._offer.auth:
            self._not_here(argument)
        elif self.hello is None or not self.hello.extended:
            self._mistake(_HELLO_FIRST)
        elif not self._offer.may_log_in(tls=self.tls):
            self._mistake(b"538 5.7.11 Encryption required to log in\r\n")
        elif self.username is not None or self._mail is not None:
            self._mistake(b"503 5.5.1 Not now\r\n")  # RFC 4954 §4
        elif mechanism.upper() not in self._offer.auth:
            self._mistake(b"504 5.5.4 Mechanism not offered\r\n")
        else:
            self._exchange = Exchange(mechanism.upper())
            self._step(self._exchange.begin, initial)

    def _log_in(self, line: str) -> None:
        assert self._exchange is not None
        if line == "*":
            self._mode, self._exchange = COMMAND, None
            self._mistake(b"501 5.7.0 Login cancelled\r\n")
        else:
            self._step(self._exchange.respond, line)

    def _step(self, step: Callable[[str], bytes | Auth], response: str) -> None:
        try:
            came = step(response)
        except Malformed as malformed:
            self._mode, self._exchange = COMMAND, None
            if malformed.decodable:
                self._refuse_login(b"535 5.7.8 Credentials invalid\r\n")
            else:
                self._mistake(b"501 5.5.2 Not base64\r\n")
            return
        if isinstance(came, bytes):
            self._mode = LOGIN
            self._out.append(came)
        else:
            self._mode, self._exchange = COMMAND, None
            self._due = came

    def _refuse_login(self, reply: bytes) -> None:
        self._out.append(reply)
        self._failed_logins += 1
        if self._failed_logins >= self._limits.logins:
            self._say_and_close(b"421 4.7.0 Too many failed logins\r\n", "errors")


COMMANDS: dict[str, Callable[[Dialogue, str], None]] = {
    "EHLO": Dialogue._ehlo,
    "HELO": Dialogue._helo,
    "MAIL": Dialogue._mail_from,
    "RCPT": Dialogue._rcpt_to,
    "DATA": Dialogue._data,
    "BDAT": Dialogue._bdat,
    "RSET": Dialogue._rset,
    "NOOP": Dialogue._noop,
    "VRFY": Dialogue._vrfy,
    "EXPN": Dialogue._not_here,
    "HELP": Dialogue._help,
    "QUIT": Dialogue._quit,
    "STARTTLS": Dialogue._starttls,
    "AUTH": Dialogue._auth,
    **dict.fromkeys(_FOREIGN, Dialogue._foreign),
}
