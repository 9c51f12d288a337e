"""What SMTP's addresses, paths, parameters and framed content look like on the wire.

RFC 5321 §4.1.2 with RFC 6531 §3.3 (UTF-8 in mailboxes). This is a *wire* grammar: quoted local
parts and address literals are well formed here, whether a door admits them is its own rule. All
functions take linear time.
"""

import ipaddress
import re
from collections.abc import Mapping

__all__ = [
    "DATA_END",
    "MAX_COMMAND",
    "MAX_DOMAIN",
    "MAX_LOCAL",
    "MAX_PATH",
    "MAX_TEXT_LINE",
    "dot_stuff",
    "frame",
    "has_bare_line_ends",
    "is_domain",
    "is_mailbox",
    "parse_forward_path",
    "parse_reverse_path",
    "unstuff",
    "wire_safe",
]

MAX_LOCAL = 64
"""Octets of a local part. RFC 5321 §4.5.3.1.1."""
MAX_DOMAIN = 255
"""Octets of a domain. RFC 5321 §4.5.3.1.2."""
MAX_PATH = 256
"""Octets of a path with its angle brackets. RFC 5321 §4.5.3.1.3."""
MAX_COMMAND = 512
"""Octets of a command line with its CRLF, before extensions. RFC 5321 §4.5.3.1.4."""
MAX_TEXT_LINE = 1000
"""Octets of a content line with its CRLF. RFC 5321 §4.5.3.1.6."""

DATA_END = b"\r\n.\r\n"
"""The only thing that ends content. RFC 5321 §4.1.1.4."""

# UTF8-non-ascii of RFC 6531 §3.3 without C1 controls, the two Unicode line ends and surrogates:
# nothing that some reader may take for the end of a line is a letter of an address.
_UTF8 = "\u00a0-\u2027\u202a-\ud7ff\ue000-\U0010ffff"
_ATOM = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~{_UTF8}-]+"
_DOT_STRING = rf"{_ATOM}(?:\.{_ATOM})*"
_QUOTED = rf'"(?:[\x20\x21\x23-\x5b\x5d-\x7e{_UTF8}]|\\[\x20-\x7e])*"'
_LABEL = rf"[A-Za-z0-9{_UTF8}](?:[A-Za-z0-9{_UTF8}-]{{0,61}}[A-Za-z0-9{_UTF8}])?"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
_LITERAL = r"\[[0-9A-Za-z:.]+\]"
_MAILBOX = rf"({_DOT_STRING}|{_QUOTED})@({_DOMAIN}|{_LITERAL})"

_is_domain = re.compile(_DOMAIN).fullmatch
_is_mailbox = re.compile(_MAILBOX).fullmatch
# A source route is understood and ignored, RFC 5321 §4.1.1.3 and Appendix C.
_match_path = re.compile(rf"<(?:@{_DOMAIN}(?:,@{_DOMAIN})*:)?({_MAILBOX})>(?: (.*))?").fullmatch
_is_parameter = re.compile(
    rf"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([\x21-\x3c\x3e-\x7e{_UTF8}]+))?"
).fullmatch
_find_unsafe = re.compile(
    "[\x00-\x20<>\x7f-\x9f\u2028\u2029\ud800-\udfff]"  # the set of RELIABILITY S7, and kin
).search

_NONE: Mapping[str, str | None] = {}


def is_domain(value: str) -> bool:
    """Whether this is a `Domain` (no address literal, no trailing dot) of at most 255 octets."""
    return len(value) <= MAX_DOMAIN and _is_domain(value) is not None and _octets(value) <= 255


def is_mailbox(value: str) -> bool:
    """Whether this is a `Mailbox` within the limits of RFC 5321 §4.5.3.1."""
    if len(value) > MAX_PATH - 2:
        return False
    found = _is_mailbox(value)
    return found is not None and _sound(found[1], found[2])


def wire_safe(value: str) -> bool:
    """Whether this may stand between angle brackets or as one word of a command: no CR, LF, NUL or
    other control, no space, no `<` or `>`, no lone surrogate. The client's own last check."""
    return _find_unsafe(value) is None


def parse_reverse_path(text: str) -> tuple[str, Mapping[str, str | None]] | None:
    """What follows `MAIL FROM:` as mailbox (empty for `<>`) and parameters, None if malformed.

    Parameter keywords come in upper case, each at most once.
    """
    if text.startswith("<>"):
        if len(text) == 2:
            return "", _NONE
        parameters = _parameters(text[3:]) if text[2] == " " else None
        return None if parameters is None else ("", parameters)
    return _parse_path(text)


def parse_forward_path(text: str) -> tuple[str, Mapping[str, str | None]] | None:
    """What follows `RCPT TO:` as mailbox (or `Postmaster`, RFC 5321 §4.1.1.3) and parameters."""
    if text[:12].lower() == "<postmaster>":
        if len(text) == 12:
            return text[1:11], _NONE
        parameters = _parameters(text[13:]) if text[12] == " " else None
        return None if parameters is None else (text[1:11], parameters)
    return _parse_path(text)


def _parse_path(text: str) -> tuple[str, Mapping[str, str | None]] | None:
    found = _match_path(text)
    if found is None:
        return None
    mailbox, local, domain, rest = found.groups()
    if not _sound(local, domain):
        return None
    if rest is None:
        return mailbox, _NONE
    parameters = _parameters(rest)
    return None if parameters is None else (mailbox, parameters)


def _parameters(text: str) -> Mapping[str, str | None] | None:
    """`SIZE=1 SMTPUTF8` as a mapping; None when one is malformed or named twice."""
    parameters: dict[str, str | None] = {}
    for word in text.split(" "):
        if not word:  # trailing white space: RFC 5321 §4.1.1
            continue
        found = _is_parameter(word)
        if found is None:
            return None
        keyword = found[1].upper()
        if keyword in parameters:
            return None
        parameters[keyword] = found[2]
    return parameters


def _sound(local: str, domain: str) -> bool:
    """The limits, and what the expressions leave open: the inside of an address literal."""
    local_octets, domain_octets = _octets(local), _octets(domain)
    if local_octets > MAX_LOCAL or domain_octets > MAX_DOMAIN:
        return False
    if local_octets + domain_octets + 3 > MAX_PATH:
        return False
    return domain[0] != "[" or _is_address(domain[1:-1])


def _is_address(literal: str) -> bool:
    """RFC 5321 §4.1.3, without general literals: no tag but IPv6 was ever registered."""
    try:
        if literal[:5].upper() == "IPV6:":
            ipaddress.IPv6Address(literal[5:])
        else:
            ipaddress.IPv4Address(literal)
    except ValueError:
        return False
    return True


def _octets(value: str) -> int:
    return len(value) if value.isascii() else len(value.encode())


def has_bare_line_ends(data: bytes) -> bool:
    """Whether a CR or an LF stands alone. RFC 5321 §2.3.8: they may occur only together."""
    rest = data.replace(b"\r\n", b"")  # a third of what counting them costs
    return b"\n" in rest or b"\r" in rest


def dot_stuff(data: bytes) -> bytes:
    """Double the dot that begins a line. RFC 5321 §4.5.2.

    Lines are what CRLF ends. Content with a bare CR or LF must be refused before (see
    `has_bare_line_ends`): some servers end lines, and so content, at those.
    """
    stuffed = data.replace(b"\r\n.", b"\r\n..")
    return b"." + stuffed if data.startswith(b".") else stuffed


def unstuff(data: bytes) -> bytes:
    """Take away the dot that begins a line: the inverse of `dot_stuff`."""
    plain = data.replace(b"\r\n.", b"\r\n")
    return plain[1:] if data.startswith(b".") else plain


def frame(data: bytes) -> bytes:
    """Content as it follows 354: stuffed, its last line ended, the final dot behind it."""
    end = b".\r\n" if data.endswith(b"\r\n") or not data else DATA_END
    return dot_stuff(data) + end
