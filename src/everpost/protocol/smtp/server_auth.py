"""The server's side of AUTH PLAIN (RFC 4616) and AUTH LOGIN, one response at a time."""

import binascii

from everpost.protocol.smtp.server_events import Auth

__all__ = ["MECHANISMS", "Exchange", "Malformed"]

MECHANISMS = ("PLAIN", "LOGIN")

_PROMPTS = {"PLAIN": b"334 \r\n", "LOGIN": b"334 VXNlcm5hbWU6\r\n"}  # "Username:"
_PASSWORD = b"334 UGFzc3dvcmQ6\r\n"


class Malformed(Exception):
    """A response that is no base64 (`decodable` False), or whose content makes no credentials."""

    def __init__(self, decodable: bool) -> None:
        super().__init__()
        self.decodable = decodable


class Exchange:
    """One AUTH command, until it yields credentials."""

    __slots__ = ("_mechanism", "_username")

    def __init__(self, mechanism: str) -> None:
        self._mechanism = mechanism
        self._username: str | None = None

    def begin(self, initial: str) -> bytes | Auth:
        """The first challenge, or what comes of the initial response (`=` is an empty one)."""
        if not initial:
            return _PROMPTS[self._mechanism]
        return self.respond("" if initial == "=" else initial)

    def respond(self, line: str) -> bytes | Auth:
        """The next challenge, or the credentials. Raises Malformed."""
        text = _decode(line)
        if self._mechanism == "PLAIN":
            parts = text.split("\0")
            if len(parts) != 3 or not parts[1] or not (parts[0] + parts[1]).isprintable():
                raise Malformed(decodable=True)
            return Auth("PLAIN", *parts)
        if "\0" in text:
            raise Malformed(decodable=True)
        if self._username is None:
            if not text or not text.isprintable():  # it goes to logs and look-ups
                raise Malformed(decodable=True)
            self._username = text
            return _PASSWORD
        return Auth("LOGIN", "", self._username, text)


def _decode(line: str) -> str:
    try:
        raw = binascii.a2b_base64(line.encode("ascii"), strict_mode=True) if line else b""
    except (binascii.Error, UnicodeEncodeError):
        raise Malformed(decodable=False) from None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Malformed(decodable=True) from None
