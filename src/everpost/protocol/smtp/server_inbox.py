"""The server's bytes not yet understood: cut into lines, content and chunks, in linear time.

Only CRLF ends a line and only CRLF . CRLF ends content (RFC 5321 §2.3.8, §4.1.1.4).
"""

from enum import Enum

from everpost.protocol.smtp.grammar import DATA_END

__all__ = ["Fault", "Inbox"]


class Fault(Enum):
    """What came instead of a line or of content. The bytes at fault are gone."""

    BARE_LF = 1
    TOO_LONG = 2


_AUTH_LINE = 12_288 + 20
"""Octets of an AUTH response, RFC 4954 §4, and of the command in front of one."""


class Inbox:
    """Holds what came and was not taken. Lines and content are held up to the given limits."""

    __slots__ = ("_body", "_buffer", "_dropped", "_position", "_searched", "_skipping")

    def __init__(self) -> None:
        self._buffer = b""
        self._position = 0
        self._skipping = False  # inside a line that is too long
        self._body: bytearray | None = None  # content that came in several pieces
        self._searched = 0  # octets of it without the end
        self._dropped = False  # more of it than allowed

    def feed(self, data: bytes) -> None:
        """Append. Costs the length of `data` plus what is held of an unfinished line."""
        if self._body is not None:
            self._body += data
        elif self._position < len(self._buffer):
            self._buffer = self._buffer[self._position :] + data
            self._position = 0
        else:
            self._buffer = data
            self._position = 0

    def clear(self) -> None:
        """Forget everything."""
        self.__init__()  # type: ignore[misc]

    @property
    def waiting(self) -> int:
        """Octets held behind what was last taken."""
        return len(self._buffer) - self._position

    def line(self, limit: int, *, login: bool = False) -> bytes | Fault | None:
        """The next line without its CRLF, None if it is not whole yet.

        A line of AUTH, or one that answers its challenge (`login`), may be longer than `limit`.
        """
        start = self._position
        end = self._buffer.find(b"\n", start)
        if end < 0:
            self._hold_part(limit, login)
            return None
        self._position = end + 1
        if end == start or self._buffer[end - 1] != 13:
            self._skipping = False
            return Fault.BARE_LF
        if self._skipping:
            self._skipping = False
            return Fault.TOO_LONG
        if end + 1 - start > limit and end + 1 - start > self._allowed(limit, login):
            return Fault.TOO_LONG
        return self._buffer[start : end - 1]

    def _hold_part(self, limit: int, login: bool) -> None:
        """Of a line that is already too long keep one octet: its CR may be the last one."""
        if self._skipping or self.waiting > self._allowed(limit, login):
            self._buffer = self._buffer[-1:]
            self._position = 0
            self._skipping = True

    def _allowed(self, limit: int, login: bool) -> int:
        start = self._position if not login else 0
        if login or self._buffer[start : start + 5].upper() == b"AUTH ":
            return max(limit, _AUTH_LINE)
        return limit

    def content(self, limit: int) -> bytes | Fault | None:
        """Everything before the final dot, still dot-stuffed; None if that has not come yet.

        Content of more than `limit` octets is dropped as it comes, and a fault at its end.
        """
        if self._body is None:
            buffer, start = self._buffer, self._position
            if buffer.startswith(b".\r\n", start):  # the CRLF before it ended the DATA command
                self._position = start + 3
                return b""
            end = buffer.find(DATA_END, start)
            if end >= 0:
                self._position = end + len(DATA_END)
                return buffer[start : end + 2] if end + 2 - start <= limit else Fault.TOO_LONG
            if start == len(buffer):
                return None
            self._body = bytearray(memoryview(buffer)[start:])
            self._buffer, self._position = b"", 0
            self._searched, self._dropped = len(self._body), False
            return None
        return self._continue_content(self._body, limit)

    def _continue_content(self, body: bytearray, limit: int) -> bytes | Fault | None:
        if not self._dropped and body.startswith(b".\r\n"):
            end, rest = -2, 3
        else:
            end = body.find(DATA_END, max(0, self._searched - len(DATA_END) + 1))
            rest = end + len(DATA_END)
            if end < 0:
                self._searched = len(body)
                if len(body) > limit + len(DATA_END):
                    del body[: 1 - len(DATA_END)]
                    self._searched, self._dropped = len(body), True
                return None
        self._buffer = bytes(memoryview(body)[rest:])
        self._body = None
        if self._dropped or end + 2 > limit:
            return Fault.TOO_LONG
        return bytes(memoryview(body)[: end + 2])

    def take(self, most: int) -> bytes:
        """Up to `most` octets as they came."""
        start = self._position
        taken = self._buffer[start : start + most]
        self._position = start + len(taken)
        return taken
