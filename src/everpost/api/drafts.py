"""From a decoded body to intake's draft: fields gathered, attachments decoded, nothing judged that
intake judges. Attachments stay undecoded JSON until here, so that an array of a million byte values
never becomes a list of a million objects."""

import binascii
from collections.abc import Iterator
from typing import TypeVar

import msgspec
import pybase64

from everpost.api.bodies import AttachmentBody, EmailBody
from everpost.api.errors import from_msgspec
from everpost.intake.draft import Draft, DraftAttachment
from everpost.model.errors import Invalid, Missing, Refusal

_T = TypeVar("_T")

__all__ = ["BATCH_LIMIT", "canonical", "decode", "decode_batch", "decode_items", "draft"]

BATCH_LIMIT = 100
"""Messages of one batch (COMPAT §14)."""

_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_email = msgspec.json.Decoder(EmailBody)
_emails = msgspec.json.Decoder(list[EmailBody])
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_string = msgspec.json.Decoder(str)
_numbers = msgspec.json.Decoder(list[int])
_canonical = msgspec.json.Encoder(order="deterministic")


class _Buffer(msgspec.Struct):
    data: msgspec.Raw


_buffer = msgspec.json.Decoder(_Buffer)


def decode(body: bytes) -> EmailBody:
    """One email of a request. Raises Refusal."""
    try:
        return _email.decode(body)
    except _BROKEN as error:
        raise from_msgspec(error) from None


def decode_batch(body: bytes) -> list[EmailBody]:
    """All emails of a batch; the first bad one refuses all. Raises Refusal."""
    try:
        return _within_limit(_emails.decode(body))
    except _BROKEN as error:
        raise from_msgspec(error) from None


def decode_items(body: bytes) -> list[EmailBody | Refusal]:
    """The emails of a batch, each one decoded or refused for itself. Raises Refusal."""
    try:
        raws = _within_limit(_raws.decode(body))
    except _BROKEN as error:
        raise from_msgspec(error) from None
    items: list[EmailBody | Refusal] = []
    for raw in raws:
        try:
            items.append(_email.decode(raw))
        except _BROKEN as error:
            items.append(from_msgspec(error))
    return items


def _within_limit(items: list[_T]) -> list[_T]:
    if not 1 <= len(items) <= BATCH_LIMIT:
        raise Invalid(f"A batch holds from 1 to {BATCH_LIMIT} emails.")
    return items


def canonical(body: EmailBody | list[EmailBody]) -> bytes:
    """The same bytes for the same payload, however it was spaced and ordered (COMPAT §5.4)."""
    return _canonical.encode(body)


def draft(body: EmailBody) -> Draft:
    """Intake's draft. Raises Missing or Invalid."""
    if body.template is not None:
        raise Invalid("Invalid `template` field. Templates are not supported.", field="template")
    return Draft(
        sender=_required(body.sender, "from"),
        to=_addresses(body.to) if body.to is not None else _required(None, "to"),
        subject=_required(body.subject, "subject"),
        cc=_addresses(body.cc),
        bcc=_addresses(body.bcc),
        reply_to=_addresses(body.replyTo if body.reply_to is None else body.reply_to),
        text=body.text,
        html=body.html,
        attachments=tuple(map(_attachment, body.attachments)) if body.attachments else (),
        headers=_pairs(body.headers),
        tags=tuple((tag.name, tag.value) for tag in body.tags) if body.tags else (),
        metadata=dict(_pairs(body.metadata)),
        scheduled_at=body.scheduledAt if body.scheduled_at is None else body.scheduled_at,
        stream=body.stream,
        expires_in=body.expires_in,
        in_doubt=body.in_doubt,
        durability=body.durability,
    )


def _required(value: _T | None, name: str) -> _T:
    if value is None:
        raise Missing(f"Missing `{name}` field.", field=name)
    return value


def _addresses(value: str | list[str] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _pairs(value: dict[str, str | None] | None) -> tuple[tuple[str, str], ...]:
    if not value:
        return ()
    return tuple((name, text) for name, text in value.items() if text is not None)


# --- attachments ----------------------------------------------------------------------------------


def _attachment(body: AttachmentBody) -> DraftAttachment:
    if body.path is not None:
        raise _bad("Attachments by `path` are not supported; send `content`.")
    return DraftAttachment(
        filename=body.filename,
        content=_content(body.content),
        content_type=body.content_type or body.contentType,
        content_id=(
            body.content_id or body.inline_content_id or body.contentId or body.inlineContentId
        ),
    )


def _bad(reason: str) -> Invalid:
    return Invalid(
        f"Invalid `attachments` field. {reason}", field="attachments", name="invalid_attachment"
    )


def _content(raw: msgspec.Raw) -> bytes:
    view = memoryview(raw)
    first = bytes(view[:1])
    if first == b'"':
        return _from_base64(view)
    if first == b"[":
        return _from_numbers(view)
    if first == b"{":
        try:
            data = memoryview(_buffer.decode(raw).data)
        except _BROKEN:
            raise _bad("An attachment's `content` object is not a Buffer.") from None
        if bytes(data[:1]) == b"[":
            return _from_numbers(data)
    if first == b"n":
        raise _bad("An attachment needs `content`.")
    raise _bad("An attachment's `content` must be base64 text or an array of byte values.")


def _from_base64(view: memoryview) -> bytes:
    """Base64 of RFC 4648 §4; line breaks inside are forgiven, anything else is not."""
    text = bytes(view[1:-1])
    if b"\\" in text:  # some encoders write `\/` for `/`, and lines end in `\n`
        text = _string.decode(view).encode()
    try:
        return pybase64.b64decode(text, validate=True)
    except binascii.Error:
        pass
    try:
        return pybase64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error:
        raise _bad("An attachment's `content` is not valid base64.") from None


_STEP = 65_536


def _from_numbers(view: memoryview) -> bytes:
    """An array of byte values. Decoded in steps: its list of integers is never whole in memory."""
    try:
        return b"".join(map(bytes, _number_lists(bytes(view[1:-1]))))
    except (ValueError, TypeError):  # not integers, or not within 0..255
        raise _bad("An attachment's `content` array must hold byte values.") from None


def _number_lists(text: bytes) -> Iterator[list[int]]:
    start = 0
    while start < len(text):
        end = text.find(b",", start + _STEP)
        end = len(text) if end < 0 else end
        yield _numbers.decode(b"[" + text[start:end] + b"]")
        start = end + 1
