"""What a far end offers: its answer to EHLO as a value (RFC 5321 §4.1.1.1)."""

import msgspec

from everpost.protocol.smtp.replies import Reply

__all__ = ["Extensions", "parse_ehlo"]


class Extensions(msgspec.Struct, frozen=True):
    """The service extensions of one session; none at all after HELO.

    `size`: octets of the largest message, None when not declared (RFC 1870 §3: 0 means no fixed
    limit). `sizes`: whether SIZE was offered, so that MAIL may carry it. `auth`: mechanisms in
    upper case. `name`: how the far end calls itself.
    """

    size: int | None = None
    sizes: bool = False
    pipelining: bool = False
    eight_bit: bool = False
    smtputf8: bool = False
    starttls: bool = False
    enhanced: bool = False
    chunking: bool = False
    auth: frozenset[str] = frozenset()
    name: str = ""


def parse_ehlo(reply: Reply) -> Extensions:
    """Read a 250 answer to EHLO. Unknown keywords are nobody's business; a malformed parameter
    counts as absent. Keywords are case-insensitive (RFC 5321 §4.1.1.1)."""
    greeting, *lines = reply.text.split("\n")
    offered: dict[str, list[str]] = {}
    auth: set[str] = set()
    for line in lines:
        words = line.split()
        if not words:
            continue
        keyword, parameters = words[0].upper(), words[1:]
        if keyword.startswith("AUTH="):  # how servers wrote it before RFC 2554
            keyword, parameters = "AUTH", [keyword[5:], *parameters]
        if keyword == "AUTH":
            auth.update(word.upper() for word in parameters if word)
        else:
            offered.setdefault(keyword, parameters)
    return Extensions(
        size=_size(offered.get("SIZE", [])),
        sizes="SIZE" in offered,
        pipelining="PIPELINING" in offered,
        eight_bit="8BITMIME" in offered,
        smtputf8="SMTPUTF8" in offered,
        starttls="STARTTLS" in offered,
        enhanced="ENHANCEDSTATUSCODES" in offered,
        chunking="CHUNKING" in offered,
        auth=frozenset(auth),
        name=greeting.split(" ", 1)[0],
    )


def _size(parameters: list[str]) -> int | None:
    """RFC 1870 §3: up to 20 decimal digits; zero or none declares no limit."""
    if not parameters or len(parameters[0]) > 20:
        return None
    digits = parameters[0]
    return int(digits) or None if digits.isascii() and digits.isdigit() else None
