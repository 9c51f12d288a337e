"""Mailboxes as callers write them, and as they go on the wire.

One grammar, stricter than RFC 5322 §3.4: one addr-spec, optionally behind a display name; no
comments, groups, routes, lists, quoted local parts or address literals. What was checked is what is
sent, so no later parser can read another address out of it. Every function is linear in its input.
"""

import re
import unicodedata

import idna

from everpost.model.characters import has_direction_override, line_fault
from everpost.model.errors import Invalid
from everpost.model.message import Address

__all__ = ["destination", "parse_domain", "parse_mailbox", "shown"]

ADDRESS_OCTETS = 254
"""RFC 5321 §4.5.3.1.3: a path of 256 octets, less its angle brackets."""
LOCAL_OCTETS = 64
"""RFC 5321 §4.5.3.1.1."""
DOMAIN_OCTETS = 253
"""RFC 1035 §2.3.4: 255 octets in wire form."""
NAME_CHARS = 320
_MAILBOX_CHARS = 2 * NAME_CHARS + ADDRESS_OCTETS + 16

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# A top-level label is alphabetic (RFC 3696 §2) or an A-label; so no IPv4 address passes.
_PLAIN = re.compile(
    rf"({_ATOM}(?:\.{_ATOM})*)@((?:{_LABEL}\.)+[A-Za-z](?:[A-Za-z0-9-]*[A-Za-z0-9])?)"
)
_plain = _PLAIN.fullmatch
_dot_atom = re.compile(rf"{_ATOM}(?:\.{_ATOM})*").fullmatch
_label = re.compile(_LABEL).fullmatch
_quoted_name = re.compile(r'"((?:[^"\\]|\\.)*)"[ \t]*<([^<>]*)>').fullmatch
# Without quotes, what RFC 5322 §3.2.3 calls specials are refused, but for `.`, `[` and `]`, which
# people write and which no parser takes for the start of anything.
_bare_name = re.compile(r'([^"(),:;<>@\\]*)<([^<>]*)>').fullmatch
_needs_quotes = re.compile(r'["(),:;<>@\\]').search
_escaped = re.compile(r"\\(.)")
_LOWER_ASCII = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


class _Fault(Exception):
    """What is wrong with an address, in a sentence for the caller."""


def parse_mailbox(text: str, *, field: str) -> Address:
    """The mailbox in `a@b`, `Name <a@b>` or `"Quoted, Name" <a@b>`.

    The domain comes out as a lower-case A-label (IDNA 2008), the local part as it was given.
    Raises Invalid naming `field`.
    """
    if len(text) <= ADDRESS_OCTETS and (plain := _plain(text)) is not None:
        local, domain = plain.groups()
        if (
            len(local) <= LOCAL_OCTETS
            and "--" not in domain
            and "=?" not in local
            and len(domain) - domain.rfind(".") <= 64
        ):
            return Address(f"{local}@{domain.lower()}")
    try:
        return _mailbox(text)
    except _Fault as fault:
        raise Invalid(
            f"Invalid `{field}` field. The email address needs to follow the `email@example.com` "
            f"or `Name <email@example.com>` format. {fault}".rstrip(),
            field=field,
        ) from None


def parse_domain(text: str, *, field: str) -> str:
    """A domain name as a lower-case A-label of at least two labels. Raises Invalid."""
    try:
        return _domain(text)
    except _Fault as fault:
        raise Invalid(
            f"Invalid `{field}` field. It needs a domain name like `example.com`. {fault}".rstrip(),
            field=field,
        ) from None


def destination(address: str) -> str:
    """The domain of an addr-spec."""
    return address[address.rfind("@") + 1 :]


def shown(address: Address) -> str:
    """The mailbox as text that `parse_mailbox` reads back to the same value."""
    name = address.name
    if not name:
        return address.address
    if _needs_quotes(name):
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}" <{address.address}>'
    return f"{name} <{address.address}>"


def _mailbox(text: str) -> Address:
    if len(text) > _MAILBOX_CHARS:
        raise _Fault("It is too long.")
    text = text.strip(" \t")
    if not text.endswith(">"):
        return Address(_addr_spec(text))
    quoted = _quoted_name(text)
    if quoted is not None:
        name, spec = quoted.groups()
        name = _escaped.sub(r"\1", name)
    else:
        bare = _bare_name(text)
        if bare is None:
            if text.count("<") == 1 and '"' not in text and "@" not in text.partition("<")[0]:
                raise _Fault('A name with any of ( ) , : ; \\ needs quotes: `"Doe, Jo" <a@b.com>`.')
            raise _Fault("")
        name, spec = bare.groups()
    name = name.strip(" \t")
    if len(name) > NAME_CHARS:
        raise _Fault(f"The name is longer than {NAME_CHARS} characters.")
    if (fault := line_fault(name)) is not None:
        raise _Fault(f"The name is refused: {fault}.")
    if has_direction_override(name):
        raise _Fault("The name is refused: it contains a character that changes text direction.")
    return Address(_addr_spec(spec), name)


def _addr_spec(spec: str) -> str:
    if spec.count("@") != 1:
        raise _Fault("")
    local, _, domain = spec.partition("@")
    _check_local(local)
    domain = _domain(domain)
    if len(local.encode()) + 1 + len(domain) > ADDRESS_OCTETS:
        raise _Fault(f"The address is longer than {ADDRESS_OCTETS} octets.")
    return f"{local}@{domain}"


def _check_local(local: str) -> None:
    """A dot-atom; beyond ASCII (RFC 6531 §3.3) only what RFC 8264 §4.2 would let into an
    identifier, symbols allowed: normalised, no compatibility forms, nothing invisible."""
    if local.isascii():
        plain = local
    else:
        for character in local:
            if character > "\x7f" and unicodedata.category(character)[0] in "CZ":
                raise _Fault("The part before @ contains a character that cannot be seen.")
        if unicodedata.category(local[0])[0] == "M":  # it would change the character before it
            raise _Fault("The part before @ begins with a combining mark.")
        if not (
            unicodedata.is_normalized("NFC", local) and unicodedata.is_normalized("NFKC", local)
        ):
            raise _Fault("The part before @ is not in Unicode's normal form NFKC.")
        plain = "".join(c if c <= "\x7f" else "x" for c in local)
    if not _dot_atom(plain):
        raise _Fault("")
    if "=?" in local:
        raise _Fault("The part before @ may not hold an encoded word.")
    if len(local.encode()) > LOCAL_OCTETS:
        raise _Fault(f"The part before @ is longer than {LOCAL_OCTETS} octets.")


def _domain(domain: str) -> str:
    if len(domain) > DOMAIN_OCTETS:
        raise _Fault(f"The domain is longer than {DOMAIN_OCTETS} octets.")
    labels = [_a_label(label) for label in domain.split(".")]
    if len(labels) < 2:
        raise _Fault("The domain needs at least two labels.")
    if labels[-1][0] in "0123456789":
        raise _Fault("The domain needs a top-level label that begins with a letter.")
    domain = ".".join(labels)
    if len(domain) > DOMAIN_OCTETS:
        raise _Fault(f"The domain is longer than {DOMAIN_OCTETS} octets.")
    return domain


def _a_label(label: str) -> str:
    """One label as it goes on the wire. ASCII is lowered; nothing else is mapped, so what RFC 5892
    disallows (full-width forms, upper case, ideographic dots, ligatures) is refused."""
    label = label.translate(_LOWER_ASCII)
    if label.isascii():
        if not _label(label):
            raise _Fault("")
        if not label.startswith("xn--"):
            return label
    try:
        unicode = idna.ulabel(label)
        ascii_ = idna.alabel(unicode).decode("ascii")
    except UnicodeError:  # idna's own errors are of this kind
        raise _Fault("The domain is not a valid internationalised name (IDNA 2008).") from None
    if label.isascii() and ascii_ != label:
        raise _Fault("The domain is not a valid internationalised name (IDNA 2008).")
    if _mixes_scripts(unicode):
        raise _Fault("A label of the domain mixes letters of several scripts.")
    return ascii_


# --- scripts: UTS 39 §5.2 "Highly Restrictive" ----------------------------------------------------

_TOGETHER = (
    frozenset({"LATIN", "HAN", "HIRAGANA", "KATAKANA"}),
    frozenset({"LATIN", "HAN", "HANGUL"}),
    frozenset({"LATIN", "HAN", "BOPOMOFO"}),
)
_SCRIPTS = {"CJK": "HAN", "IDEOGRAPHIC": "HAN", "EXTENDED": "ARABIC", "ARABIC-INDIC": "ARABIC"}
_COMMON = frozenset({"COMBINING", "KATAKANA-HIRAGANA"})
# Phonetic letters look like plain Latin ones (U+0261 like g) and no orthography writes them, but
# for these of the IPA block (UTS 39 §3.1 calls the others technical).
_PHONETIC = range(0x250, 0x2B0)
_WRITTEN_IPA = frozenset("ɓɔɖɗəɛɠɣɨɩɲɵʃʉʊʋʌʒʔ")


def _mixes_scripts(label: str) -> bool:
    """Whether letters, marks and digits of one label are of scripts that nobody writes together.

    A character's script is the first word of its Unicode name: the standard library has no
    property for it, and for the code points that IDNA 2008 lets through the two agree.
    """
    scripts = set()
    for character in label:
        if character <= "\x7f":
            if character.isalpha():
                scripts.add("LATIN")
            continue
        if unicodedata.category(character)[0] not in "LMN":
            continue  # joiners and middle dots: IDNA's contextual rules hold them
        if ord(character) in _PHONETIC and character not in _WRITTEN_IPA:
            scripts.add("PHONETIC")
            scripts.add("LATIN")
            continue
        word = unicodedata.name(character, "UNNAMED").partition(" ")[0]
        if word not in _COMMON:
            scripts.add(_SCRIPTS.get(word, word))
    return len(scripts) > 1 and not any(scripts <= together for together in _TOGETHER)
