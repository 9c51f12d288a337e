"""The body of a message: transfer encodings (RFC 2045 §6) and the tree of parts (RFC 2046 §5)."""

import binascii
import struct
from hashlib import blake2b
from typing import NamedTuple

import pybase64

from everpost.compose.errors import CannotCompose
from everpost.compose.headers import HARD, SOFT, Field
from everpost.compose.types import ContentType, parse_type, type_of_attachment
from everpost.compose.words import parameter, refuse_controls
from everpost.model.message import Attachment, Content

__all__ = ["Part", "alternative_type", "attachment_fields", "body_part", "encode"]

_BASE64_LINE = 76  # RFC 2045 §6.8
_BASE64_PIECE = 57 * 128 * 32
"""Octets, whole lines of base64."""

_CONTROLS = bytes({*range(32), 0x7F} - {0x09, 0x0A, 0x0D})
_QP_PLAIN = bytes(({*range(32, 127)} - {ord("=")}) | {0x09, 0x0A, 0x0D})

_OUR_PARAMETERS = frozenset({"boundary", "charset", "name", "filename"})


class Part(NamedTuple):
    """A part or a whole body: its MIME fields, its body in pieces, and whether it has 8-bit octets.

    `encoded`: quoted-printable or base64, so that no boundary can occur in it.
    """

    fields: tuple[Field, ...]
    pieces: list[bytes]
    eight_bit: bool = False
    encoded: bool = False


def body_part(content: Content, *, eight_bit: bool) -> Part:
    """The tree of COMPAT §4.3 as one part: mixed(alternative(text, related(html, inline…),
    others…), attachments…), every level only where it holds more than one thing."""
    bodies = _bodies(content, eight_bit=eight_bit)
    inline, attached = [], []
    for attachment in content.attachments:
        part = _attachment(attachment)
        if attachment.content_id is not None and content.html is not None:
            inline.append(part)
        else:
            attached.append(part)
    if not attached and not inline and len(bodies) <= 1:
        return bodies[0] if bodies else _text("", "plain", (), eight_bit=False)
    boundaries = _Boundaries(content.boundary, bodies)
    if inline:
        html = 0 if content.text is None else 1
        related = (bodies[html], *inline)
        bodies[html] = _multipart('related; type="text/html"', related, boundaries.next())
    if len(bodies) > 1:
        bodies = [_multipart("alternative", bodies, boundaries.next())]
    if not attached:
        return bodies[0]
    return _multipart("mixed", [*bodies, *attached], boundaries.next())


# --- text -----------------------------------------------------------------------------------------


def _bodies(content: Content, *, eight_bit: bool) -> list[Part]:
    parts = []
    if content.text is not None:
        parts.append(_text(content.text, "plain", (), eight_bit=eight_bit))
    if content.html is not None:
        parts.append(_text(content.html, "html", (), eight_bit=eight_bit))
    for content_type, body in content.alternatives:
        main, subtype, parameters = alternative_type(content_type)
        if main == "text":
            parts.append(_text(body, subtype, parameters, eight_bit=eight_bit))
        else:
            type_field = _type_field((main, subtype, parameters))
            parts.append(Part((type_field, _BASE64), [_base64(encode(body))], encoded=True))
    return parts


def alternative_type(content_type: str) -> ContentType:
    """The type of an alternative, without the parameters that are ours. Raises CannotCompose."""
    kind = parse_type(content_type) if content_type.isprintable() else None
    if kind is None or kind[0] in ("multipart", "message"):
        raise CannotCompose("an alternative's content type is malformed", field="alternatives")
    return kind[0], kind[1], tuple(p for p in kind[2] if p[0] not in _OUR_PARAMETERS)


def encode(text: str) -> bytes:
    """UTF-8. Raises CannotCompose for half characters (lone surrogates)."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise CannotCompose("a text holds half a character", field="text") from None


def _text(
    text: str, subtype: str, parameters: tuple[tuple[str, str], ...], *, eight_bit: bool
) -> Part:
    """A text part in the lightest encoding that keeps it: 7bit, 8bit where allowed, else
    quoted-printable or base64, whichever is smaller. Line ends become CRLF."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    data = encode(text.replace("\n", "\r\n"))
    ascii_only = text.isascii()
    if (ascii_only or eight_bit) and _stands_as_it_is(data):
        encoding = _SEVEN_BIT if ascii_only else _EIGHT_BIT
    else:
        encoding, data = _encoded(data)
    if parameters or subtype not in _TEXT_TYPES:
        type_field = _type_field(("text", subtype, (("charset", "utf-8"), *parameters)))
    else:
        type_field = _TEXT_TYPES[subtype]
    encoded = encoding is not _SEVEN_BIT and encoding is not _EIGHT_BIT
    return Part((type_field, encoding), [data], encoding is _EIGHT_BIT, encoded)


def _stands_as_it_is(data: bytes) -> bool:
    """Whether relays keep it: no control characters, no white space at line ends, no line beyond
    998 octets (RFC 2045 §2.7, §2.8)."""
    return (
        b" \r" not in data
        and b"\t\r" not in data
        and not data.endswith((b" ", b"\t"))
        and (len(data) <= HARD or max(map(len, data.split(b"\r\n"))) <= HARD)
        and len(data.translate(None, _CONTROLS)) == len(data)
    )


def _encoded(data: bytes) -> tuple[Field, bytes]:
    """(encoding, encoded data): quoted-printable (RFC 2045 §6.7) unless base64 is smaller."""
    escaped = len(data.translate(None, _QP_PLAIN))
    base64_size = (len(data) + 2) // 3 * 4
    base64_size += (base64_size - 1) // _BASE64_LINE * 2
    if len(data) + 2 * escaped <= base64_size:
        quoted: bytes = binascii.b2a_qp(data)
        if b"\n" not in data:  # b2a_qp takes its line end from the data
            quoted = quoted.replace(b"\n", b"\r\n")
        if len(quoted) <= base64_size:
            return _QUOTED, quoted
    return _BASE64, _base64(data)


_BLOCK = struct.Struct(f"{_BASE64_LINE}s" * 128)
"""Lines cut out at once: a third of what one slice a line costs."""


def _base64(data: bytes) -> bytes:
    """In lines; piece by piece, since a large file's lines together take more than the file."""
    view = memoryview(data)
    starts = range(0, len(data), _BASE64_PIECE)
    return b"\r\n".join([_base64_lines(view[at : at + _BASE64_PIECE]) for at in starts])


def _base64_lines(data: memoryview) -> bytes:
    encoded = pybase64.b64encode(data)
    whole = len(encoded) - len(encoded) % _BLOCK.size
    lines = [b"\r\n".join(block) for block in _BLOCK.iter_unpack(encoded[:whole])]
    lines += [encoded[i : i + _BASE64_LINE] for i in range(whole, len(encoded), _BASE64_LINE)]
    return b"\r\n".join(lines)


# --- fields of parts ------------------------------------------------------------------------------


def _encoding_field(encoding: str) -> Field:
    name = "Content-Transfer-Encoding"
    return name.encode(), f"{name}: {encoding}\r\n".encode()


_SEVEN_BIT = _encoding_field("7bit")
_EIGHT_BIT = _encoding_field("8bit")
_QUOTED = _encoding_field("quoted-printable")
_BASE64 = _encoding_field("base64")


def _field(name: str, first: str, pieces: list[str]) -> Field:
    """`name: first; piece; piece`, each piece on a line of its own where it would not fit."""
    lines, line = [], f"{name}: {first}"
    for piece in pieces:
        line += ";"
        if len(line) + 1 + len(piece) > SOFT - 1:
            lines.append(line)
            line = ""
        line += " " + piece
    lines.append(line + "\r\n")
    return name.encode(), "\r\n".join(lines).encode()


def _type_field(kind: ContentType) -> Field:
    pieces = [f"{name}={value}" for name, value in kind[2]]
    return _field("Content-Type", f"{kind[0]}/{kind[1]}", pieces)


_TEXT_TYPES = {
    subtype: _type_field(("text", subtype, (("charset", "utf-8"),)))
    for subtype in ("plain", "html")
}


def attachment_fields(attachment: Attachment) -> tuple[Field, ...]:
    """The MIME fields of an attachment. Raises CannotCompose for values that cannot be written."""
    filename, content_id = attachment.filename, attachment.content_id
    refuse_controls(filename, field="attachments")
    kind = type_of_attachment(attachment.content_type, filename)
    fields = [_type_field((kind[0], kind[1], _kept_parameters(kind))), _BASE64]
    pieces = parameter("filename", filename) if filename else []
    disposition = "attachment" if content_id is None else "inline"
    fields.append(_field("Content-Disposition", disposition, pieces))
    if content_id is not None:
        if not _is_content_id(content_id):
            raise CannotCompose("a content id is malformed", field="attachments")
        fields.append((b"Content-ID", f"Content-ID: <{content_id}>\r\n".encode()))
    return tuple(fields)


def _kept_parameters(kind: ContentType) -> tuple[tuple[str, str], ...]:
    """The caller's parameters without those that are ours; an attachment keeps its charset."""
    ours = _OUR_PARAMETERS - {"charset"}
    return tuple(p for p in kind[2] if p[0] not in ours)


def _is_content_id(value: str) -> bool:
    return (
        0 < len(value) <= 900
        and value.isascii()
        and value.isprintable()
        and not any(c in value for c in " <>")
    )


def _attachment(attachment: Attachment) -> Part:
    if attachment.part is not None and not attachment.content:
        raise CannotCompose("an attachment's content is not loaded", field="attachments")
    return Part(attachment_fields(attachment), [_base64(attachment.content)], encoded=True)


# --- multiparts -----------------------------------------------------------------------------------


class _Boundaries:
    """Boundaries from the seed, none of which occurs in a part.

    `=_` cannot come out of quoted-printable or base64 (RFC 2045 §6.7); text that stands as it is
    is searched, and on a hit (someone knows the seed) the next token is tried.
    """

    def __init__(self, seed: str, bodies: list[Part]) -> None:
        plain = [piece for part in bodies if not part.encoded for piece in part.pieces]
        attempt = 0
        while True:
            name = f"{attempt}:{seed}".encode("utf-8", "surrogatepass")
            self._token = "=_" + blake2b(name, digest_size=12).hexdigest()
            if not any(self._token.encode() in piece for piece in plain):
                break
            attempt += 1
        self._used = 0

    def next(self) -> str:
        self._used += 1
        return f"{self._token}_{self._used}"


def _multipart(subtype: str, parts: list[Part] | tuple[Part, ...], boundary: str) -> Part:
    """RFC 2046 §5.1: the line end before a boundary belongs to the boundary."""
    eight_bit = any(part.eight_bit for part in parts)
    start = f"--{boundary}\r\n".encode()
    pieces: list[bytes] = []
    for part in parts:
        pieces.append(start)
        pieces += [raw for _, raw in part.fields]
        pieces.append(b"\r\n")
        pieces += part.pieces
        pieces.append(b"\r\n")
    pieces.append(f"--{boundary}--\r\n".encode())
    raw = f'Content-Type: multipart/{subtype};\r\n boundary="{boundary}"\r\n'.encode()
    fields: tuple[Field, ...] = ((b"Content-Type", raw),)
    if eight_bit:  # RFC 2045 §6.4: the whole says what its parts hold
        fields = (*fields, _EIGHT_BIT)
    return Part(fields, pieces, eight_bit)
