"""How large a message can become, without composing it."""

from everpost.model.message import Address, Content

__all__ = ["estimate_size"]

_FIXED = 6_144
"""Octets for what every message has: our own fields, two signatures of the longest kinds, and the
structure of the body."""

_PER_FIELD = 160
_PER_PART = 600


def estimate_size(content: Content) -> int:
    """An upper bound, in octets, of the signed message in any form (SMTP's SIZE, limits at accept).

    Attachments count with the content they hold; one whose content is stored elsewhere counts as
    empty, so estimate before parts are taken out.
    """
    size = _FIXED + _value(content.subject)
    for addresses in ((content.sender,), content.to, content.cc, content.reply_to):
        size += sum(map(_address, addresses))
    for name, value in content.headers:
        size += len(name) + _value(value)
    for text in (content.text, content.html):
        if text is not None:
            size += _PER_PART + _text(text)
    for content_type, text in content.alternatives:
        size += _PER_PART + 2 * len(content_type) + _text(text)
    for attachment in content.attachments:
        size += _PER_PART + _base64(len(attachment.content))
        size += 6 * _octets(attachment.filename) + 2 * len(attachment.content_type)
        size += len(attachment.content_id or "")
    return size


def _octets(value: str) -> int:
    return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))


def _value(value: str) -> int:
    """A header value: at worst base64 words, 78 octets of field for 42 of value."""
    return _PER_FIELD + 2 * _octets(value)


def _address(address: Address) -> int:
    size = 8 + _octets(address.address)
    return size + _value(address.name) if address.name else size


def _text(text: str) -> int:
    """At worst base64; it is chosen only where it is smaller than the other encodings."""
    return _base64(_octets(text) + text.count("\n") + text.count("\r"))


def _base64(size: int) -> int:
    return (size + 2) // 3 * 4 + size // 57 * 2 + 4
