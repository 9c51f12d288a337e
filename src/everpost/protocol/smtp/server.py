"""The accepting end of SMTP, without I/O: bytes in, events out, a verdict for each.

    server.receive(data)
    while (event := server.next_event()) is not None:
        server.accept() or server.refuse(550, "5.1.1 No such user")
    transport.write(server.take_output())

`next_event` returns None when it needs bytes, or the verdict on its last event: an owner may
answer at once, or after asking a database; until then nothing further is read. Standards:
RFC 5321, 1870 (SIZE), 2034, 2920 (PIPELINING), 3030 (CHUNKING), 3207 (STARTTLS), 4954 (AUTH),
6152 (8BITMIME), 6531 (SMTPUTF8).
"""

import re

from everpost.protocol.smtp.grammar import has_bare_line_ends, unstuff
from everpost.protocol.smtp.server_dialogue import (
    CHUNK,
    COMMAND,
    COMMANDS,
    CONTENT,
    HANDSHAKE,
    LOGIN,
    OK,
    TOO_LARGE,
    Dialogue,
)
from everpost.protocol.smtp.server_events import (
    Auth,
    Connect,
    Data,
    Event,
    Hello,
    Mail,
    Message,
    Rcpt,
    StartTls,
    answer,
)
from everpost.protocol.smtp.server_inbox import Fault
from everpost.protocol.smtp.server_offer import Limits, Offer

__all__ = ["Limits", "Offer", "Server"]

_MOST_WAITING = 1024 * 1024
"""Octets held while a verdict is due; an owner that stops reading meanwhile stays far below."""

_SENDER_OK = b"250 2.1.0 Ok\r\n"
_RECIPIENT_OK = b"250 2.1.5 Ok\r\n"
_GO_AHEAD = b"354 End data with <CR><LF>.<CR><LF>\r\n"
_BARE = b"550 5.6.11 Bare CR or LF in the message\r\n"

_MUST_WAIT = (Data, Hello, Auth)

_find_control = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]").search


class Server(Dialogue):
    """One connection's protocol. `closed`: send what `take_output` gives, then close.

    `hello`, `username` and `tls` are what was accepted so far.
    """

    __slots__ = ()

    # --- the owner's side -------------------------------------------------------------------------

    @property
    def awaits_verdict(self) -> bool:
        """Whether an event is unanswered; the owner should not read from its transport then."""
        return self._due is not None

    @property
    def idle(self) -> bool:
        """Between transactions, nothing due, nothing half read: a good moment to hang up."""
        return (
            self._due is None
            and self._mail is None
            and self._mode == COMMAND
            and not self._inbox.waiting
        )

    def receive(self, data: bytes) -> None:
        """Take bytes from the client. Follow with `next_event` until it returns None."""
        if self.closed or self._mode == HANDSHAKE:
            return  # RFC 3207 §4.2: what was said in clear does not count under TLS
        inbox = self._inbox
        inbox.feed(data)
        due = self._due
        if due is None:
            return
        if type(due) is StartTls:
            inbox.clear()
        elif type(due) is Connect or self._out_of_turn():
            self._drop_early()
        elif inbox.waiting > _MOST_WAITING:
            self._say_and_close(b"421 4.3.2 Too much at once\r\n", "confused")

    def next_event(self) -> Event | None:
        """The next thing that needs a verdict, or `Closed` once; None: see the module."""
        while not self.closed:
            if self._due is not None:
                if self._handed:
                    return None
                self._handed = True
                return self._due
            mode = self._mode
            if mode == CONTENT:
                progress = self._read_content()
            elif mode == CHUNK:
                progress = self._read_chunk()
            else:
                progress = self._read_line()
            if not progress:
                return None
            if self._inbox.waiting and self._out_of_turn() and not self.closed:
                self._drop_early()
        farewell, self._farewell = self._farewell, None
        return farewell

    def take_output(self) -> bytes:
        """What to send now; empty when there is nothing."""
        out = self._out
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    def accept(self, text: str | None = None) -> None:
        """Say yes to the last event. `text` replaces the usual words (with the enhanced code where
        one belongs). Does nothing once `closed`."""
        due = self._settle()
        if due is None:
            return
        if isinstance(due, Rcpt):
            self._recipients.append(due.recipient)
            reply = _RECIPIENT_OK if text is None else answer(250, text)
        elif isinstance(due, Message):
            reply = OK if text is None else answer(250, text)
        elif isinstance(due, Data):
            self._mode = CONTENT
            reply = _GO_AHEAD if text is None else answer(354, text)
        elif isinstance(due, Mail):
            self._mail = due
            reply = _SENDER_OK if text is None else answer(250, text)
        else:
            reply = self._accept_rare(due, text)
        self._out.append(reply)

    def refuse(self, code: int, text: str) -> None:
        """Say no to the last event by any 4yz or 5yz. 421 and 521 close, too, and so does every
        refusal of `Connect`. Does nothing once `closed`."""
        if not 400 <= code <= 599:
            raise ValueError(f"{code} refuses nothing")
        due = self._settle()
        if due is None:
            return
        if code in {421, 521} or type(due) is Connect:
            self._say_and_close(answer(code, text), "refused")
        elif type(due) is Auth:
            self._refuse_login(answer(code, text))
        else:
            self._out.append(answer(code, text))

    def tls_started(self) -> None:
        """The handshake is done: forget what was known, wait for EHLO. RFC 3207 §4.2."""
        if self._mode != HANDSHAKE:
            raise RuntimeError("no STARTTLS was accepted")
        self.tls = True
        self.hello = None
        self.username = None
        self._lockstep = True
        self._mode = COMMAND
        self._reset()

    def hang_up(self, text: str = "4.3.2 Service closing") -> None:
        """Say 421 and close, for a deadline or a shutdown. RFC 5321 §3.8."""
        if not self.closed:
            self._say_and_close(answer(421, text), "hung_up")

    def _settle(self) -> Event | None:
        due = self._due
        if due is None and not self.closed:
            raise RuntimeError("nothing awaits a verdict")
        self._due, self._handed = None, False
        return due

    def _accept_rare(self, due: Event, text: str | None) -> bytes:
        if isinstance(due, Hello):
            self.hello = due
            self._reset()
            self._lockstep = not (due.extended and self._offer.pipelining)
            listed = self._offer.lines(self._limits, tls=self.tls) if due.extended else []
            return answer(250, "\n".join([text or self.hostname, *listed]))
        if isinstance(due, Auth):
            self.username = due.username
            return answer(235, text or "2.7.0 Authentication successful")
        if isinstance(due, StartTls):
            self._mode = HANDSHAKE
            self._inbox.clear()
            return answer(220, text or "2.0.0 Ready to start TLS")
        assert isinstance(due, Connect)
        return answer(220, f"{self.hostname} {text or 'ESMTP'}")

    # --- reading ----------------------------------------------------------------------------------

    def _read_line(self) -> bool:
        line = self._inbox.line(self._limits.command, login=self._mode == LOGIN)
        if line is None:
            return False
        if line is Fault.BARE_LF:
            self._say_and_close(b"521 5.5.2 Lines end with CR LF\r\n", "confused")
        elif line is Fault.TOO_LONG:
            self._mode, self._exchange = COMMAND, None
            self._mistake(b"500 5.5.6 Line too long\r\n")  # RFC 4954 §4 and §6
        else:
            assert isinstance(line, bytes)
            try:
                text = line.decode()
            except UnicodeDecodeError:
                text = "\x00"
            if self._mode == LOGIN:
                self._log_in(text)
            elif not text.isprintable() and _find_control(text.rstrip(" \t")):
                self._mistake(b"500 5.5.2 Control characters in a command\r\n")
            else:
                verb, _, argument = text.partition(" ")
                known = COMMANDS.get(verb.upper()) if verb.isascii() else None
                (known or Server._unknown)(self, argument)
        return True

    def _read_content(self) -> bool:
        stuffed = self._limits.message * 4 // 3 + 1  # stuffing adds an octet to three at most
        content = self._inbox.content(stuffed)
        if content is None:
            return False
        self._mode = COMMAND
        if isinstance(content, Fault):
            self._out.append(TOO_LARGE)
            self._reset()
        else:
            self._deliver(unstuff(content), chunked=False)
        return True

    def _deliver(self, content: bytes, *, chunked: bool) -> None:
        assert self._mail is not None
        mail, recipients = self._mail, tuple(self._recipients)
        self._reset()
        if len(content) > self._limits.message:
            self._out.append(TOO_LARGE)
        elif has_bare_line_ends(content):
            self._out.append(_BARE)
        else:
            self._due = Message(mail, recipients, content, chunked)

    def _read_chunk(self) -> bool:
        piece = self._inbox.take(self._chunk_left)
        self._chunk_left -= len(piece)
        if self._chunk_refusal is None:
            assert self._chunks is not None
            self._chunks += piece
        if self._chunk_left:
            return False
        self._mode = COMMAND
        if self._chunk_refusal is not None:
            self._out.append(self._chunk_refusal)
            self._chunk_refusal = None
        elif self._last_chunk:
            assert self._chunks is not None
            self._deliver(bytes(self._chunks), chunked=True)
        else:
            self._out.append(OK)
        return True

    def _out_of_turn(self) -> bool:
        """Whether bytes that are here already should have waited for an answer: RFC 2920 §3.1,
        RFC 4954 §4, and every command where PIPELINING was not agreed on."""
        if not self._limits.in_turn or self._mode == CHUNK:
            return False
        return self._lockstep or self._mode == LOGIN or type(self._due) in _MUST_WAIT

    def _drop_early(self) -> None:
        self._say_and_close(b"554 5.5.0 You spoke out of turn\r\n", "early")
