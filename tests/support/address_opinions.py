"""Three opinions on one addr-spec: Everpost's, the standard library's (`email.headerregistry`) and
email-validator's; and every class of difference between ours and theirs, with its reason.

docs/reference/addresses.md is made of DIFFERENCES; tests/unit/model/test_address_grammar.py holds
that there are no others, and that each of them exists.
"""

import email.errors
import email.headerregistry
import email.policy
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import email_validator
import idna

from everpost.model.address import parse_mailbox
from everpost.model.errors import Invalid

__all__ = ["DIFFERENCES", "OPINIONS", "Difference", "Opinion", "everpost"]

Opinion = tuple[str, str] | None
"""(local part, domain in A-labels), or None: refused."""


def everpost(text: str) -> Opinion:
    try:
        address = parse_mailbox(text, field="to")
    except Invalid:
        return None
    if address.name or "<" in text:
        return None
    local, _, domain = address.address.rpartition("@")
    return local, domain


def headerregistry(text: str) -> Opinion:
    try:
        header = email.policy.default.header_factory("to", text)
    except (ValueError, IndexError, AttributeError, email.errors.HeaderParseError):
        return None  # it raises several kinds for what it cannot read
    defects = header.defects
    assert isinstance(header, email.headerregistry.AddressHeader)
    if defects or len(header.addresses) != 1:
        return None
    (found,) = header.addresses
    if not found.username or not found.domain:
        return None
    return found.username, _a_labels(found.domain)


def validator(text: str) -> Opinion:
    try:
        found = email_validator.validate_email(
            text, check_deliverability=False, allow_quoted_local=True, allow_domain_literal=True,
            test_environment=True, strict=True,
        )  # fmt: skip
    except email_validator.EmailNotValidError:
        return None
    return found.local_part, found.ascii_domain or found.domain


def _a_labels(domain: str) -> str:
    try:
        return idna.encode(domain).decode().lower()
    except UnicodeError:
        return domain.lower()


OPINIONS: dict[str, Callable[[str], Opinion]] = {
    "email.headerregistry": headerregistry,
    "email-validator": validator,
}


@dataclass(frozen=True, slots=True)
class Difference:
    """A class of texts on which `who` and Everpost differ, told by `applies`; `example` is one.
    `ours`: Everpost accepts it, and the other does not or reads another address."""

    who: str
    ours: bool
    what: str
    why: str
    example: str
    applies: Callable[[str], bool]


_local = re.compile(r"(.*)@").match
_LIBRARY, _VALIDATOR = OPINIONS
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\x80-\U0010ffff-]*").fullmatch


def _split(text: str) -> tuple[str, str]:
    local, _, domain = text.strip(" \t").rpartition("@")
    return local, domain


def _domain(text: str) -> str:
    return _split(text)[1]


def _labels(text: str) -> list[str]:
    return _domain(text).split(".")


def _no_host_name(text: str) -> bool:
    """A domain that RFC 1123 §2.1 and RFC 5890 §2.3.1 do not know, though RFC 5322 does."""
    return any(
        not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?", label)
        for label in _labels(text)
        if label.isascii()
    )


def _no_idna(text: str) -> bool:
    """A label that is no U-label or A-label of IDNA 2008, as it stands."""
    for label in _labels(text):
        if label.isascii() and not label.lower().startswith("xn--"):
            continue
        try:
            lower = label.lower() if label.isascii() else label
            if idna.alabel(idna.ulabel(lower)).decode() != (
                lower if label.isascii() else idna.alabel(label).decode()
            ):
                return True
        except UnicodeError:
            return True
    return False


def _too_long(text: str) -> bool:
    local, domain = _split(text)
    domain = _a_labels(domain)
    return (
        len(local.encode("utf-8", "surrogatepass")) > 64
        or len(domain) > 253
        or len(local.encode("utf-8", "surrogatepass")) + len(domain) > 253
        or any(len(label) > 63 for label in domain.split("."))
    )


def _not_nfkc(text: str) -> bool:
    return unicodedata.normalize("NFKC", _split(text)[0]) != _split(text)[0]


def _invisible(text: str) -> bool:
    return any(c > "\x7f" and unicodedata.category(c)[0] in "CZ" for c in _split(text)[0])


DIFFERENCES: Sequence[Difference] = (
    # --- what we accept and they refuse -----------------------------------------------------------
    Difference(
        _LIBRARY, True, "a local part beyond ASCII",
        "It knows RFC 5322, not RFC 6532. We need SMTPUTF8 from the far end, and say so.",
        "\u00e9@a.test", lambda t: not _split(t)[0].isascii(),
    ),
    Difference(
        _VALIDATOR, True, "a special-use top-level domain (.local, .invalid, .example, …)",
        "A policy about the public Internet; people run .local networks, and a domain that does not"
        " exist bounces.",
        "a@b.local", lambda t: _special(_domain(t)),
    ),
    Difference(
        _VALIDATOR, True, "a top-level label that ends in a digit (but does not begin with one)",
        "Its guess from today's list; RFC 3696 §2 excludes only all-numeric ones.",
        "a@b.c1", lambda t: _labels(t)[-1][-1:].isdigit(),
    ),
    Difference(
        _VALIDATOR, True, "a label with hyphens in its third and fourth place, not an A-label",
        "RFC 5891 §4.2.3.1 forbids it in U-labels; host names that have it exist (r3---sn.…).",
        "a@ab--cd.com",
        lambda t: any(label[2:4] == "--" and not label.lower().startswith("xn--")
                      for label in _labels(t)),
    ),
    Difference(
        _VALIDATOR, True, "spaces or tabs around the address",
        "We drop them, as people paste them.", " a@b.com\t", lambda t: t != t.strip(" \t"),
    ),
    # --- what they accept and we refuse -----------------------------------------------------------
    Difference(
        _LIBRARY, False, "comments, white space, groups, routes, angle brackets, a display name",
        "RFC 5322 §3.4 lets them surround an address. What is checked must be what is sent, so a"
        " field holds one addr-spec, at most behind a display name.",
        "a(c)@b.test", lambda t: bool(re.search(r"[()<>,;:\s]", t.strip(" \t"))),
    ),
    Difference(
        _LIBRARY, False, "a quoted local part",
        "Gateways disagree about what is inside (S10); nobody is known to need one.",
        '"a b"@c.test', lambda t: '"' in t,
    ),
    Difference(
        _LIBRARY, False, "a domain literal", "Mail to a bare IP address (S13).",
        "a@[127.0.0.1]", lambda t: "[" in _domain(t),
    ),
    Difference(
        _LIBRARY, False,
        "a domain of one label, or with a top-level label that begins with a digit",
        "`localhost`, and IPv4 addresses in their many spellings (S13).",
        "a@localhost", lambda t: len(_labels(t)) < 2 or _labels(t)[-1][:1].isdigit(),
    ),
    Difference(
        _LIBRARY, False, "a domain that is no host name (RFC 1123 §2.1)",
        "RFC 5322 takes any atom: `_`, `!`, hyphens at the edge. SMTP does not (RFC 5321 §4.1.2).",
        "a@b_c.test", _no_host_name,
    ),
    Difference(
        _LIBRARY, False, "a domain beyond ASCII that IDNA 2008 refuses",
        "It passes any text on. We send A-labels, and map nothing.",
        "a@\u2603.test", _no_idna,
    ),
    Difference(
        _LIBRARY, False, "letters of several scripts in one label",
        "Look-alikes (UTS 39 §5.2, S11).", "a@g\u043eod.test", lambda t: _mixed(_domain(t)),
    ),
    Difference(
        _LIBRARY, False, "more octets than RFC 5321 §4.5.3.1 allows",
        "64 before the @, 254 in all.", "a" * 65 + "@b.test", _too_long,
    ),
    Difference(
        _LIBRARY, False, "what begins like an encoded word in the local part",
        "Some readers decode it to another address (S12). It does so itself with a whole word.",
        "=?x@b.test", lambda t: "=?" in t,
    ),
    Difference(
        _VALIDATOR, False, "a quoted local part (as an option)",
        "Gateways disagree about what is inside (S10); nobody is known to need one.",
        '"a b"@c.com', lambda t: '"' in t,
    ),
    Difference(
        _VALIDATOR, False, "a top-level label that begins with a digit",
        "There is none, and IPv4 addresses have many spellings (S13).",
        "a@b.2c", lambda t: _labels(t)[-1][:1].isdigit(),
    ),
    Difference(
        _VALIDATOR, False, "a local part of more than 64 octets in UTF-8",
        "It counts characters; RFC 5321 §4.5.3.1.1 means octets.", "\u00e9" * 33 + "@b.com",
        _too_long,
    ),
    Difference(
        _VALIDATOR, False, "the domain `test` (as an option that we set for the tests)",
        "A domain of one label (S13).", "a@test", lambda t: len(_labels(t)) < 2,
    ),
    Difference(
        _VALIDATOR, False, "a domain literal (as an option)", "Mail to a bare IP address (S13).",
        "a@[127.0.0.1]", lambda t: "[" in _domain(t),
    ),
    Difference(
        _VALIDATOR, False, "domains that UTS 46 maps to others: capitals beyond ASCII, full-width"
        " letters, ideographic dots",
        "What is checked must be what is sent; we map ASCII capitals only.",
        "a@B\u00dcCHER.com", lambda t: not _domain(t).isascii() and _no_idna(t),
    ),
    Difference(
        _VALIDATOR, False, "letters of several scripts in one label",
        "Look-alikes (UTS 39 §5.2, S11).", "a@g\u043eod.com", lambda t: _mixed(_domain(t)),
    ),
    Difference(
        _VALIDATOR, False, "an encoded word, or what begins like one, in the local part",
        "Some readers decode it to another address (S12).",
        "=?utf-8?q?a?=@b.com", lambda t: "=?" in t,
    ),
    Difference(
        _VALIDATOR, False, "a local part that is not in Unicode's normal form NFKC",
        "It normalises to NFC and sends that. Two texts that look alike would be one person or two,"
        " depending on who compares; we ask for the normal form.",
        "e\u0301@b.com", _not_nfkc,
    ),
)  # fmt: skip


def _special(domain: str) -> bool:
    return any(
        f".{domain.lower()}".endswith(f".{special}")
        for special in email_validator.SPECIAL_USE_DOMAIN_NAMES
    )


def _mixed(domain: str) -> bool:
    """Several scripts, told by Unicode names, or phonetic letters; in A-labels as well."""
    for label in domain.split("."):
        try:
            text = idna.ulabel(label)
        except UnicodeError:
            continue
        letters = {unicodedata.name(c, "").split(" ")[0] for c in text if c.isalpha()}
        if len(letters) > 1 or any("\u0250" <= c <= "\u02af" for c in text):
            return True
    return False
