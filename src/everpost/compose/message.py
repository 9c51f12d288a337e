"""From content to a message: the fields, the body, and the form to write them in."""

from typing import NamedTuple

from everpost.compose.headers import Field, caller_fields, message_fields
from everpost.compose.mime import alternative_type, attachment_fields, body_part, encode
from everpost.model.message import Content, Form

__all__ = ["COMPOSER", "Composed", "assemble", "check", "compose", "form_for"]

COMPOSER = 1
"""The composer's version: bytes are a function of (Content, Form, COMPOSER) and of nothing else."""


class Composed(NamedTuple):
    """A message in two halves: (name, complete raw field) in order, and the body that follows the
    empty line. Every line ends with CRLF, none is longer than 998 octets, no CR or LF is bare."""

    headers: tuple[Field, ...]
    body: bytes


def compose(content: Content, form: Form) -> Composed:
    """The one message that this content is in this form. Raises CannotCompose."""
    utf8 = form is Form.UTF8
    fields = message_fields(content, utf8=utf8)
    part = body_part(content, eight_bit=form is not Form.SEVEN_BIT)
    fields += part.fields
    if content.headers:
        fields += caller_fields(content.headers, utf8=utf8, reply_to=bool(content.reply_to))
    body = part.pieces[0] if len(part.pieces) == 1 else b"".join(part.pieces)
    if not body.endswith(b"\r\n"):
        body += b"\r\n"
    return Composed(tuple(fields), body)


def assemble(composed: Composed, signatures: bytes = b"") -> bytes:
    """The bytes for DATA, not yet dot-stuffed; `signatures` are complete fields put on top."""
    headers = [raw for _, raw in composed.headers]
    return b"".join((signatures, *headers, b"\r\n", composed.body))


def check(content: Content) -> None:
    """Raises the CannotCompose that a form able to carry this content's addresses would raise,
    at a fraction of the cost: for the doors, before anything is accepted."""
    utf8 = _needs_utf8(content)
    message_fields(content, utf8=utf8)
    caller_fields(content.headers, utf8=utf8, reply_to=bool(content.reply_to))
    for attachment in content.attachments:
        attachment_fields(attachment)
    for content_type, _ in content.alternatives:
        alternative_type(content_type)
    for text in _texts(content):
        if not text.isascii():
            encode(text)


def form_for(content: Content, *, eight_bit: bool, smtputf8: bool, needs_utf8: bool) -> Form | None:
    """The form for a far end that offers these extensions; None when no form can carry it.

    `eight_bit`: 8BITMIME is offered and the relay's setting allows it (RFC 6376 §5.3 advises 7-bit
    for signed mail). `needs_utf8`: the envelope has an address in UTF-8. The UTF-8 form is taken
    only where an address needs it (RFC 6531 §3.1 obliges a far end with SMTPUTF8 to take 8-bit
    bodies too).
    """
    if needs_utf8 or _needs_utf8(content):
        return Form.UTF8 if smtputf8 else None
    return Form.EIGHT_BIT if eight_bit and _has_eight_bit_text(content) else Form.SEVEN_BIT


def _needs_utf8(content: Content) -> bool:
    addresses = (content.sender, *content.to, *content.cc, *content.reply_to)
    return not all(mailbox.address.isascii() for mailbox in addresses)


def _has_eight_bit_text(content: Content) -> bool:
    return not all(text.isascii() for text in _texts(content))


def _texts(content: Content) -> list[str]:
    texts = [text for text in (content.text, content.html) if text is not None]
    texts += [body for _, body in content.alternatives]
    return texts
