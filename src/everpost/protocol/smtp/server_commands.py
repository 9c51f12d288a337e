"""Reading the arguments of commands: a value, or the answer that refuses them. Pure."""

import re
from collections.abc import Mapping

from everpost.protocol.smtp.grammar import parse_forward_path, parse_reverse_path
from everpost.protocol.smtp.server_events import Hello, Mail
from everpost.protocol.smtp.server_offer import Limits, Offer

__all__ = ["read_chunk_size", "read_hello", "read_mail", "read_recipient"]

_NEEDS_UTF8 = b"553 5.6.7 Address needs SMTPUTF8\r\n"
_BAD_PARAMETER = b"501 5.5.4 Bad value of a parameter\r\n"
_UNKNOWN_PARAMETER = b"555 5.5.4 Parameter not recognized\r\n"

_is_number = re.compile("[0-9]{1,20}").fullmatch  # RFC 1870 §4
_is_chunk = re.compile("([0-9]{1,15})( LAST)?", re.IGNORECASE | re.ASCII).fullmatch


def read_hello(argument: str, *, extended: bool) -> Hello | bytes:
    """One printable word. Its grammar is not enforced: many honest clients have a host name with
    an underscore, and RFC 5321 §4.1.4 forbids to refuse mail for the name."""
    name = argument.strip()
    if not name or " " in name or len(name) > 255:
        return b"501 5.5.4 Say your host name\r\n"
    return Hello(name, extended)


def read_mail(argument: str, offer: Offer, limits: Limits) -> Mail | bytes:
    """`FROM:<path> parameters`."""
    if argument[:5].upper() != "FROM:":
        return b"501 5.5.4 Syntax: MAIL FROM:<address>\r\n"
    found = parse_reverse_path(argument[5:])
    if found is None:
        return b"501 5.1.7 Bad sender address syntax\r\n"
    sender, parameters = found
    if not parameters:
        return Mail(sender) if sender.isascii() else _NEEDS_UTF8
    return _with_parameters(sender, parameters, offer=offer, limits=limits)


def _with_parameters(
    sender: str, parameters: Mapping[str, str | None], *, offer: Offer, limits: Limits
) -> Mail | bytes:
    size: int | None = None
    body: str | None = None
    utf8 = False
    for keyword, value in parameters.items():
        if keyword == "SIZE" and offer.size:
            if value is None or not _is_number(value):
                return _BAD_PARAMETER
            size = int(value)
            if size > limits.message:
                return b"552 5.3.4 Message size exceeds the limit\r\n"  # RFC 1870 §6.1
        elif keyword == "BODY" and offer.eight_bit:
            body = value.upper() if value else ""
            if body not in {"7BIT", "8BITMIME"}:
                return _BAD_PARAMETER
        elif keyword == "SMTPUTF8" and offer.utf8:
            if value is not None:
                return _BAD_PARAMETER
            utf8 = True
        elif keyword == "AUTH" and offer.auth:
            pass  # RFC 4954 §5: nobody here is trusted to assert an identity
        else:
            return _UNKNOWN_PARAMETER  # RFC 5321 §4.1.1.11
    if not utf8 and not sender.isascii():
        return _NEEDS_UTF8
    return Mail(sender, size, body, utf8)


def read_recipient(argument: str, *, utf8: bool) -> str | bytes:
    """`TO:<path>`; no extension here has parameters for it."""
    if argument[:3].upper() != "TO:":
        return b"501 5.5.4 Syntax: RCPT TO:<address>\r\n"
    found = parse_forward_path(argument[3:])
    if found is None:
        return b"501 5.1.3 Bad recipient address syntax\r\n"
    recipient, parameters = found
    if parameters:
        return _UNKNOWN_PARAMETER
    if not utf8 and not recipient.isascii():
        return _NEEDS_UTF8
    return recipient


def read_chunk_size(argument: str) -> tuple[int, bool] | None:
    """BDAT's octets and whether they are the LAST. RFC 3030 §2."""
    found = _is_chunk(argument.strip())
    return None if found is None else (int(found[1]), found[2] is not None)
