"""Header values as ASCII: encoded words (RFC 2047) and MIME parameters (RFC 2231)."""

import binascii
import re
from urllib.parse import quote

from everpost.compose.errors import CannotCompose

__all__ = ["encoded_words", "parameter", "refuse_controls", "refuse_hidden_controls"]

_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""C0 and C1 controls but HTAB, the line and paragraph separators, and half characters."""

_WORD = re.compile(r"=\?[^?]*\?([bBqQ])\?([^?]*)\?=")

_OVERHEAD = len("=?utf-8?q??=")
_Q_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/ "
"""What stands for itself in a Q word even inside a phrase (RFC 2047 §5 rule 3); space is `_`."""
_Q_CHARACTER = {chr(c): chr(c) for c in _Q_PLAIN} | {" ": "_"}

_PARAMETER_PLAIN = re.compile(r"(?!.*=\?)[!#-\[\]-~]+(?: [!#-\[\]-~]+)*")
_PARAMETER_WIDTH = 60


def refuse_controls(value: str, *, field: str) -> None:
    """The second wall against injected lines: raises CannotCompose on any control character."""
    if not value.isprintable() and _CONTROL.search(value):
        raise CannotCompose(f"{field} contains a control character", field=field)


def refuse_hidden_controls(value: str, *, field: str) -> None:
    """Raises CannotCompose when an encoded word in a raw value decodes to a control character."""
    for match in _WORD.finditer(value):
        try:
            if match[1] in "bB":
                decoded = binascii.a2b_base64(match[2])
            else:
                decoded = binascii.a2b_qp(match[2], header=True)
        except ValueError:
            raise CannotCompose(f"{field} contains a broken encoded word", field=field) from None
        if any((byte < 0x20 and byte != 0x09) or byte == 0x7F for byte in decoded):
            raise CannotCompose(f"{field} hides a control character", field=field)


def encoded_words(value: str, *, first: int, rest: int = 75) -> list[str]:
    """`value` as encoded words, split between characters, B or Q whichever is shorter.

    `first` and `rest` are the most characters that the first and the other words may have, at
    least 24 and at most 75 (RFC 2047 §2). The words are to be joined by white space.
    """
    data = value.encode()
    escaped = len(data.translate(None, _Q_PLAIN))
    if (len(data) + 2) // 3 * 4 < len(data) + 2 * escaped:
        return _b_words(data, first - _OVERHEAD, rest - _OVERHEAD)
    return _q_words(value, first - _OVERHEAD, rest - _OVERHEAD)


def _b_words(data: bytes, room: int, rest: int) -> list[str]:
    words = []
    start, size = 0, len(data)
    while start < size:
        end = min(start + room // 4 * 3, size)
        while end < size and data[end] & 0xC0 == 0x80:  # inside a character
            end -= 1
        piece = binascii.b2a_base64(data[start:end], newline=False).decode()
        words.append(f"=?utf-8?b?{piece}?=")
        start, room = end, rest
    return words


def _q_words(value: str, room: int, rest: int) -> list[str]:
    words, line = [], ""
    for character in value:
        piece = _Q_CHARACTER.get(character) or "".join(f"={b:02X}" for b in character.encode())
        if len(line) + len(piece) > room:
            words.append(f"=?utf-8?q?{line}?=")
            line, room = "", rest
        line += piece
    words.append(f"=?utf-8?q?{line}?=")
    return words


def parameter(name: str, value: str) -> list[str]:
    """A MIME parameter as one or more `name=value` pieces, to be joined by `;`.

    Plain ASCII is a quoted string. Anything else is percent-encoded UTF-8 (RFC 2231 §4), in
    continuations where it is long (§3), which is ASCII and therefore the same in every form.
    """
    if len(value) <= _PARAMETER_WIDTH and _PARAMETER_PLAIN.fullmatch(value):
        return [f'{name}="{value}"']
    encoded = quote(value, safe="")
    if len(encoded) <= _PARAMETER_WIDTH:
        return [f"{name}*=utf-8''{encoded}"]
    pieces: list[str] = []
    line = "utf-8''"
    for character in value:
        piece = quote(character, safe="")
        if len(line) + len(piece) > _PARAMETER_WIDTH:
            pieces.append(f"{name}*{len(pieces)}*={line}")
            line = ""
        line += piece
    pieces.append(f"{name}*{len(pieces)}*={line}")
    return pieces
