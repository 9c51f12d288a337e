"""Checks of what callers write into the catalog; each names the field that it refuses."""

import ipaddress
import re

from everpost.model.address import parse_domain
from everpost.model.credential import FULL_ACCESS, Credential
from everpost.model.errors import Forbidden, Invalid, Missing

__all__ = [
    "OPERATORS_PROJECT",
    "address_here",
    "count",
    "host_name",
    "is_loopback",
    "must_have_full_access",
    "must_manage",
    "must_operate",
    "title",
]

OPERATORS_PROJECT = 1

# Names of containers and of Windows hosts may hold underscores, and one label is enough.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_ZONE = re.compile(r"[^%]+%[A-Za-z0-9_.-]{1,15}")  # RFC 4007 §11; an interface's name
_LONGEST_HOST = 253  # octets, RFC 1035 §2.3.4 less the wire's two


def must_have_full_access(credential: Credential) -> None:
    """Raises Forbidden unless the credential has full access, if only to the sandbox."""
    if credential.permission != FULL_ACCESS:
        raise Forbidden("This API key is restricted to only send emails", name="restricted_api_key")


def must_manage(credential: Credential) -> None:
    """Raises Forbidden unless the credential has full access to what real mail depends on: a
    sandbox key, which is handed out for tests, has not."""
    must_have_full_access(credential)
    if credential.sandbox:
        raise Forbidden("This API key is restricted to the sandbox", name="restricted_api_key")


def must_operate(credential: Credential) -> None:
    """Raises Forbidden unless the credential manages the server itself: the operator, or a full
    key of the first project, which is the operator's own."""
    must_manage(credential)
    if not credential.operator and credential.project != OPERATORS_PROJECT:
        raise Forbidden("Only the operator of this server may do that")


def title(value: str, field: str, *, longest: int = 100) -> str:
    """A name for people: 1 to `longest` printable characters, no spaces around it."""
    value = value.strip()
    if not value:
        raise Missing(f"Missing `{field}` field.", field=field)
    if len(value) > longest or not value.isprintable():
        raise Invalid(
            f"Invalid `{field}` field. At most {longest} printable characters.", field=field
        )
    return value


def host_name(value: str, field: str) -> str:
    """A host to connect to: a name (A-label; one label is enough), or an IP address without
    brackets in its canonical form. What was refused is not repeated: it may be a bit of a password.
    """
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        pass
    if not value.isascii():
        return parse_domain(value, field=field)
    name = value.lower()
    numeric = name.rpartition(".")[2].isdigit()  # 127.1 is an address to some resolvers
    if len(name) > _LONGEST_HOST or not _HOST.fullmatch(name) or numeric:
        raise Invalid(f"Invalid `{field}` field. It needs a host name or IP address.", field=field)
    return name


def is_loopback(host: str) -> bool:
    """Whether a checked host is this very machine, so that nothing passes a network."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address_here(given: list[str], field: str) -> list[str]:
    """Addresses to connect from, in canonical form, one a family at most: which of two would be
    taken is not ours to guess."""
    try:
        addresses = [ipaddress.ip_address(one) for one in given]
        if not all(_ZONE.fullmatch(one) for one in given if "%" in one):
            addresses = []
    except ValueError:
        addresses = []
    families = {address.version for address in addresses}
    if not addresses or len(families) < len(addresses):
        raise Invalid(
            f"Invalid `{field}` field. IP addresses of this machine, one a family at most.",
            field=field,
        )
    return [str(address) for address in addresses]


def count(value: int, field: str, *, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise Invalid(f"Invalid `{field}` field. A number from {low} to {high}.", field=field)
    return value
