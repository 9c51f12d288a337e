"""The header fields of a message, folded, each exactly as it goes on the wire."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from time import gmtime

from everpost.compose.errors import CannotCompose
from everpost.compose.words import encoded_words, refuse_controls, refuse_hidden_controls
from everpost.model.message import Address, Content

__all__ = ["Field", "caller_fields", "is_reserved", "message_fields"]

Field = tuple[bytes, bytes]
"""(name, the complete raw field with its line ends)."""

SOFT = 78  # RFC 5322 §2.1.1, in characters
HARD = 998  # RFC 5322 §2.1.1, in octets without CRLF
WORDS_LINE = 76  # RFC 2047 §2: a line that holds encoded words

_NAME = re.compile(r"[!-9;-~]{1,76}")
_ADDRESS = re.compile(
    r"(?:[^\x00-\x20\x7f()<>\[\]:;@\\,\"]+|\"(?:[^\x00-\x1f\x7f\"\\]|\\[ -~])*\")"
    r"@(?:[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[!-Z^-~]+\])"
)
_ADDRESS_LENGTH = 320
_MESSAGE_ID = re.compile(r"[!-;=?-~]{1,900}")
_PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_QUOTABLE = re.compile(r"[^ \t]+(?: [^ \t]+)*")
_PLAIN_NAME = 60  # a longer display name is written as encoded words, since those fold
_STEP = re.compile(r"[ \t]*[^ \t]+")

_RESERVED = frozenset(
    {
        "from", "to", "cc", "bcc", "subject", "date", "message-id", "mime-version", "sender",
        "dkim-signature", "received", "return-path",
    }
)  # fmt: skip
_RESERVED_STARTS = ("content-", "resent-")
_ONCE = frozenset({"reply-to", "in-reply-to", "references"})  # RFC 5322 §3.6
_STRUCTURED = _ONCE | {
    "archived-at", "auto-submitted", "autocrypt", "disposition-notification-to", "keywords",
    "return-receipt-to",
}  # fmt: skip

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun",
           "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")  # fmt: skip
_YEAR_10000 = 253_402_300_800

_MIME_VERSION: Field = (b"MIME-Version", b"MIME-Version: 1.0\r\n")
_UNDISCLOSED: Field = (b"To", b"To: undisclosed-recipients:;\r\n")


def message_fields(content: Content, *, utf8: bool) -> list[Field]:
    """From to MIME-Version: the fields that are ours alone (RFC 5322 §3.6), never Bcc.

    With `utf8` values stand as raw UTF-8 (RFC 6532 §3.2), else all is ASCII. Raises CannotCompose.
    """
    message_id = content.message_id
    if not _MESSAGE_ID.fullmatch(message_id):
        raise CannotCompose("message_id is not an RFC 5322 msg-id", field="message_id")
    fields = [_addresses("From", (content.sender,), "from", utf8=utf8)]
    fields.append(_addresses("To", content.to, "to", utf8=utf8) if content.to else _UNDISCLOSED)
    if content.cc:
        fields.append(_addresses("Cc", content.cc, "cc", utf8=utf8))
    if content.reply_to:
        fields.append(_addresses("Reply-To", content.reply_to, "reply_to", utf8=utf8))
    fields.append(_subject(content.subject, utf8=utf8))
    fields.append((b"Date", _date(content.date)))
    fields.append((b"Message-ID", f"Message-ID: <{message_id}>\r\n".encode()))
    fields.append(_MIME_VERSION)
    return fields


def is_reserved(name: str) -> bool:
    """Whether a caller may not set this field itself (COMPAT §4.8, RELIABILITY S5)."""
    lower = name.lower()
    return lower in _RESERVED or lower.startswith(_RESERVED_STARTS)


def caller_fields(
    headers: Iterable[tuple[str, str]], *, utf8: bool, reply_to: bool = False
) -> list[Field]:
    """The caller's own fields in order. `reply_to`: the message has a Reply-To of ours already.

    White space around a value is dropped. ASCII values stand as given, others become encoded words
    unless `utf8`. Raises CannotCompose for reserved, doubled or malformed fields.
    """
    fields = []
    once = {"reply-to"} if reply_to else set()
    for name, value in headers:
        if not _NAME.fullmatch(name):
            raise CannotCompose("a header name is malformed", field="headers")
        lower = name.lower()
        if is_reserved(lower):
            raise CannotCompose(f"the header {name} is reserved", field="headers")
        if lower in _ONCE:
            if lower in once:
                raise CannotCompose(f"the header {name} may stand only once", field="headers")
            once.add(lower)
        fields.append((name.encode(), _caller_field(name, lower, value.strip(" \t"), utf8=utf8)))
    return fields


def _caller_field(name: str, lower: str, value: str, *, utf8: bool) -> bytes:
    refuse_controls(value, field="headers")
    if "=?" in value:
        refuse_hidden_controls(value, field="headers")
    raw = _unstructured(name, value) if utf8 or value.isascii() else None
    if raw is not None:
        return raw
    if lower in _STRUCTURED or lower.startswith("list-"):
        raise CannotCompose(f"the header {name} cannot be written in ASCII", field="headers")
    return _in_words(name, value)


# --- unstructured values --------------------------------------------------------------------------


def _subject(subject: str, *, utf8: bool) -> Field:
    refuse_controls(subject, field="subject")
    raw = None
    if (
        (utf8 or subject.isascii())
        and "=?" not in subject  # it would be read as an encoded word
        and "\t" not in subject
        and subject == subject.strip(" ")  # a reader drops outer spaces
    ):
        raw = _unstructured("Subject", subject)
    return b"Subject", _in_words("Subject", subject) if raw is None else raw


def _unstructured(name: str, value: str) -> bytes | None:
    """The field, folded before white space of the value; None when a line would be too long."""
    if not value:
        return f"{name}:\r\n".encode()
    if len(name) + 2 + len(value) <= SOFT:
        return f"{name}: {value}\r\n".encode()
    first, *steps = _STEP.findall(value)
    lines, line = [], f"{name}: {first}"
    for step in steps:
        if len(line) + len(step) > SOFT:
            lines.append(line)
            line = ""
        line += step
    lines.append(line)
    raw = "\r\n".join(lines).encode()
    if any(len(line) > HARD for line in raw.split(b"\r\n")):
        return None
    return raw + b"\r\n"


def _in_words(name: str, value: str) -> bytes:
    first = WORDS_LINE - len(name) - 2
    if first < 24:  # a very long field name: start on the next line
        return (f"{name}:\r\n " + "\r\n ".join(encoded_words(value, first=75)) + "\r\n").encode()
    return (f"{name}: " + "\r\n ".join(encoded_words(value, first=first)) + "\r\n").encode()


# --- addresses ------------------------------------------------------------------------------------


def _addresses(name: str, addresses: Sequence[Address], field: str, *, utf8: bool) -> Field:
    if len(addresses) == 1:
        steps = _mailbox(addresses[0], field, utf8=utf8)
    else:
        steps = []
        for address in addresses:
            if steps:
                steps[-1] += ","
            steps += _mailbox(address, field, utf8=utf8)
    line = f"{name}: {steps[0]}"
    lines = []
    for step in steps[1:]:
        if len(line) + 1 + len(step) > WORDS_LINE:
            lines.append(line)
            line = ""
        line += " " + step
    lines.append(line + "\r\n")
    return name.encode(), "\r\n".join(lines).encode()


def _mailbox(mailbox: Address, field: str, *, utf8: bool) -> list[str]:
    """One mailbox (RFC 5322 §3.4) as steps between which a line may be folded."""
    address, name = mailbox.address, mailbox.name
    if not address.isascii():
        if not utf8:
            raise CannotCompose("an address in UTF-8 needs SMTPUTF8", field=field)
        refuse_controls(address, field=field)
    if (
        len(address) > _ADDRESS_LENGTH
        or not _ADDRESS.fullmatch(address)
        or "=?" in address  # some readers would decode it to another address
    ):
        raise CannotCompose(f"{field} has a malformed address", field=field)
    if not name:
        return [address]
    refuse_controls(name, field=field)
    if (
        len(name) > _PLAIN_NAME
        or "=?" in name  # quoted or not, some readers would decode it
        or not (utf8 or name.isascii())
        or not _QUOTABLE.fullmatch(name)  # readers collapse white space
    ):
        return [*encoded_words(name, first=64), f"<{address}>"]
    if _PHRASE.fullmatch(name):
        return [name, f"<{address}>"]
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return [f'"{quoted}"', f"<{address}>"]


# --- date -----------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _date(at: int) -> bytes:
    """The Date field (RFC 5322 §3.3) for seconds since 1970; many messages share a second."""
    if not 0 <= at < _YEAR_10000:
        raise CannotCompose("date is out of range", field="date")
    t = gmtime(at)
    return (
        f"Date: {_DAYS[t.tm_wday]}, {t.tm_mday:02d} {_MONTHS[t.tm_mon - 1]} {t.tm_year:04d}"
        f" {t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} +0000\r\n"
    ).encode()
