"""One check a field: what a caller gave becomes what is stored, or Invalid naming the field."""

import re
from collections.abc import Mapping

from everpost.compose import is_reserved
from everpost.intake.limits import Limits
from everpost.model.characters import line_fault
from everpost.model.errors import Invalid

__all__ = ["body", "headers", "metadata", "subject", "tags"]

_header_name = re.compile(r"[!-9;-~]{1,76}").fullmatch
_tag = re.compile(r"[A-Za-z0-9_-]{1,256}").fullmatch

_RESERVED = frozenset({
    "apparently-to", "authentication-results", "delivered-to", "domainkey-signature",
    "received-spf",
})  # fmt: skip
"""Beside what the composer writes itself: claims of servers on the way, which others trust."""
_RESERVED_PREFIXES = ("arc-", "x-everpost-", "x-internal-")
_ONCE = frozenset({
    "in-reply-to", "references", "list-id", "list-unsubscribe", "list-unsubscribe-post",
})  # fmt: skip
"""RFC 5322 §3.6 and RFC 2369 §2 allow one of each."""


def subject(text: str, limits: Limits) -> str:
    """A subject; empty is allowed."""
    if (fault := line_fault(text)) is not None:
        raise Invalid(f"Invalid `subject` field. It is refused: {fault}.", field="subject")
    if len(text) > limits.subject_chars:
        raise Invalid(
            f"Invalid `subject` field. It may have at most {limits.subject_chars} characters.",
            field="subject",
        )
    return text


def body(text: str, *, field: str) -> str:
    """A text or HTML body that some encoding can carry (S9)."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Invalid(
                f"Invalid `{field}` field. It contains half of a surrogate pair.", field=field
            ) from None
    if "\0" in text:
        raise Invalid(f"Invalid `{field}` field. It contains a NUL character.", field=field)
    return text


def headers(
    pairs: tuple[tuple[str, str], ...], limits: Limits
) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """The caller's own headers in order, and the values of Reply-To among them."""
    if len(pairs) > limits.headers:
        raise _bad_headers(f"There may be at most {limits.headers}.")
    kept: list[tuple[str, str]] = []
    reply_to: list[str] = []
    once: set[str] = set()
    total = 0
    for name, given in pairs:
        if not _header_name(name):
            raise _bad_headers(
                f"The name {name[:76]!a} is refused: a name has 1 to 76 printable ASCII "
                "characters without space and colon."
            )
        lower = name.lower()
        if is_reserved(lower) or lower in _RESERVED or lower.startswith(_RESERVED_PREFIXES):
            raise _bad_headers(f"`{name}` may not be set: it is written by mail servers.")
        if lower in _ONCE:
            if lower in once:
                raise _bad_headers(f"`{name}` may be given once.")
            once.add(lower)
        value = _header_value(name, given, limits)
        total += len(name) + len(value)
        if lower == "reply-to":
            reply_to.append(value)
        else:
            kept.append((name, value))
    if total > limits.header_bytes:
        raise _bad_headers(f"All together may have at most {limits.header_bytes} bytes.")
    return tuple(kept), tuple(reply_to)


def _header_value(name: str, value: str, limits: Limits) -> str:
    if (fault := line_fault(value)) is not None:
        raise _bad_headers(f"The value of `{name}` is refused: {fault}.")
    value = value.strip(" ")
    most = limits.header_value_bytes
    if len(value) > most // 4 and len(value.encode()) > most:  # a shorter one fits in any case
        raise _bad_headers(f"The value of `{name}` may have at most {most} bytes.")
    return value


def _bad_headers(reason: str) -> Invalid:
    return Invalid(f"Invalid `headers` field. {reason}", field="headers")


def tags(pairs: tuple[tuple[str, str], ...], limits: Limits) -> tuple[tuple[str, str], ...]:
    """Names and values of 1 to 256 ASCII letters, digits, underscores and hyphens."""
    if len(pairs) > limits.tags:
        raise Invalid(f"Invalid `tags` field. There may be at most {limits.tags}.", field="tags")
    for name, value in pairs:
        if not (_tag(name) and _tag(value)):
            raise Invalid(
                "Invalid `tags` field. Names and values have 1 to 256 ASCII letters, digits, "
                "underscores or hyphens.",
                field="tags",
            )
    return pairs


def metadata(pairs: Mapping[str, str], limits: Limits) -> Mapping[str, str]:
    """Short texts without control characters."""
    if len(pairs) > limits.metadata:
        raise _bad_metadata(f"There may be at most {limits.metadata} pairs.")
    for name, value in pairs.items():
        if not 0 < len(name) <= limits.metadata_key_chars:
            raise _bad_metadata(f"A name has 1 to {limits.metadata_key_chars} characters.")
        if len(value) > limits.metadata_value_chars:
            raise _bad_metadata(f"A value has at most {limits.metadata_value_chars} characters.")
        if (fault := line_fault(name) or line_fault(value)) is not None:
            raise _bad_metadata(f"A name or value is refused: {fault}.")
    return pairs


def _bad_metadata(reason: str) -> Invalid:
    return Invalid(f"Invalid `metadata` field. {reason}", field="metadata")
