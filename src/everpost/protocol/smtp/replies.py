"""SMTP replies: bounded, strictly parsed, made printable.

A far end's answer is hostile input (S27, S49, F58): it may be endless, malformed, or hold control
bytes that would forge a line in a log. Whatever does not fit RFC 5321 §4.2 breaks the parser for
good; what came before the fault in the same bytes still counts, so that the way in which bytes are
split never changes what is read.
"""

import re

import msgspec

__all__ = ["MAX_LINE", "MAX_LINES", "MAX_REPLY", "Reply", "ReplyParser", "printable"]

MAX_LINE = 2048
"""Octets of one line without CRLF. RFC 5321 §4.5.3.1.5 allows 512; real servers write more."""

MAX_LINES = 128
"""Lines of one reply."""

MAX_REPLY = 64 * 1024
"""Octets of one reply, all its lines together."""

_CACHED_LINE = 40
_CACHED_LINES = 64

_CODE_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
# Nearly all replies: one printable line. Groups: code, enhanced status code, text.
_SIMPLE = re.compile(r"([2-5][0-9][0-9]) (?:([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: +|$))?(.*)")
# RFC 2034 §4 with RFC 3463 §2: class, subject and detail, then a space or the end.
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:[ \t]+|$)")


class Reply(msgspec.Struct, frozen=True, gc=False):
    """One whole answer. `text`: its lines joined by newlines, printable, without codes;
    `enhanced`: the status code of RFC 3463 that its first line began with, or None."""

    code: int
    text: str
    enhanced: str | None = None

    def __str__(self) -> str:
        enhanced = f" {self.enhanced}" if self.enhanced else ""
        return f"{self.code}{enhanced} {self.text}"


def printable(raw: bytes) -> str:
    """Text for people: invalid UTF-8, controls, invisible and direction-changing characters
    become `\\xNN` or `\\uNNNN`; a tab becomes a space."""
    text = raw.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _shown(c) for c in text)


def _shown(character: str) -> str:
    if character == "\t":
        return " "
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


class ReplyParser:
    """Bytes in, whole replies out. `broken` says why no more will come, or is None."""

    __slots__ = ("_code", "_known", "_lines", "_size", "broken", "rest")

    def __init__(self) -> None:
        self.broken: str | None = None
        self.rest = b""
        """Bytes of a line that has not ended yet."""
        self._code = b""
        self._lines: list[bytes] = []
        self._size = 0
        self._known: dict[bytes, Reply] = {}

    @property
    def empty(self) -> bool:
        """Whether nothing is held that belongs to a reply still to come."""
        return not self.rest and not self._lines

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that these bytes complete. After a fault: those before it, then none."""
        if self.broken is not None:
            return []
        if self.rest:
            data = self.rest + data
        lines = data.split(b"\r\n")
        self.rest = lines.pop()
        replies: list[Reply] = []
        known = self._known
        for line in lines:
            if not self._lines:
                reply = known.get(line) or self._simple(line)
                if reply is not None:
                    replies.append(reply)
                    continue
            reply = self._line(line)
            if reply is not None:
                replies.append(reply)
            elif self.broken is not None:
                return replies
        if self.rest:
            if b"\n" in self.rest:
                self._break("a line feed without carriage return")
            elif len(self.rest) > MAX_LINE + 1:
                self._break(f"a line of more than {MAX_LINE} bytes")
        return replies

    def _break(self, reason: str) -> None:
        self.broken = f"malformed reply: {reason}"
        self.rest = b""
        self._lines = []

    def _simple(self, line: bytes) -> Reply | None:
        """A whole reply of one line of printable ASCII; None when it takes a closer look."""
        if not line.isascii() or len(line) > MAX_LINE:
            return None
        text = line.decode("ascii")
        found = _SIMPLE.fullmatch(text)
        if found is None or not text.isprintable():
            return None
        code, enhanced, text = found.groups()
        reply = Reply(int(code), text, enhanced)
        if len(line) <= _CACHED_LINE:
            # The same few lines answer every MAIL, RCPT and DATA of a busy session.
            if len(self._known) >= _CACHED_LINES:
                self._known.clear()
            self._known[line] = reply
        return reply

    def _line(self, line: bytes) -> Reply | None:
        """One line: the reply that it ends, or None when more lines follow (or it is broken)."""
        found = _CODE_LINE.fullmatch(line)
        if (fault := self._fault(line, found)) is not None or found is None:
            self._break(fault or "")
            return None
        code, mark, text = found.groups(b"")
        self._code = code
        self._lines.append(text)
        self._size += len(line)
        if mark == b"-":
            return None
        reply = _reply(int(code), self._lines)
        self._lines = []
        self._size = 0
        return reply

    def _fault(self, line: bytes, found: re.Match[bytes] | None) -> str | None:
        """What is wrong with this line, at this place."""
        if len(line) > MAX_LINE:
            return f"a line of more than {MAX_LINE} bytes"
        if b"\n" in line:
            return "a line feed without carriage return"
        if found is None:
            return f"not a reply line: {printable(line[:80])}"
        if self._lines and found[1] != self._code:
            return "its lines differ in their codes"
        if len(self._lines) == MAX_LINES:
            return f"more than {MAX_LINES} lines"
        if self._size + len(line) > MAX_REPLY:
            return f"more than {MAX_REPLY} bytes"
        return None


def _reply(code: int, lines: list[bytes]) -> Reply:
    texts = [printable(line) for line in lines]
    found = _ENHANCED.match(texts[0])
    if found is None:
        return Reply(code, "\n".join(texts))
    enhanced = found[1]
    # RFC 2034 §4 repeats the status code on every line; it is told once.
    return Reply(code, "\n".join(_without(enhanced, text) for text in texts), enhanced)


def _without(enhanced: str, text: str) -> str:
    found = _ENHANCED.match(text)
    return text[found.end() :] if found is not None and found[1] == enhanced else text
