"""Which addresses lie in the public Internet. Pure: nothing is looked up or connected to.

Whoever publishes a name chooses the address we connect to (MX hosts, webhooks): one that leads back
into this machine or its networks must be refused (S20, CWE-918).
"""

import ipaddress
from collections.abc import Iterable

__all__ = ["by_family", "family", "is_public"]

_V4 = ipaddress.IPv4Address
_V6 = ipaddress.IPv6Address

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""RFC 4291 §2.4: all that is assigned. Loopback, mapped, link-local, site-local (fec0::/10), unique
local and multicast addresses lie outside."""

_REFUSED = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # this network, RFC 1122 §3.2.1.3
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",  # private, RFC 1918
        "100.64.0.0/10",  # shared by carriers, RFC 6598
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, and where clouds keep their secrets
        "192.0.0.0/24",  # protocol assignments, RFC 6890
        "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24",  # documentation, RFC 5737
        "192.88.99.0/24",  # 6to4 anycast, ended by RFC 7526
        "198.18.0.0/15",  # benchmarks, RFC 2544
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "2001::/23",  # protocol assignments (RFC 2928): Teredo, ORCHID, benchmarks
        "2001:db8::/32", "3fff::/20",  # documentation, RFC 3849 and RFC 9637
        "2002::/16",  # 6to4 (RFC 3056): an IPv4 address in disguise, and ended by RFC 7526
    )
)  # fmt: skip

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052 §2.1: a public IPv4 address behind it is as good as itself, and the only way to it from
a network without IPv4. 64:ff9b:1::/48 (RFC 8215) is local by definition, and refused."""


def is_public(address: str) -> bool:
    """Whether this is a unicast address that anyone may be at. What is no address is not public."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, _V6):
        if parsed.scope_id is not None:
            return False
        if parsed in _NAT64:
            parsed = _V4(int(parsed) & 0xFFFF_FFFF)
        elif parsed not in _GLOBAL_UNICAST:
            return False
    return not any(parsed in network for network in _REFUSED)


def family(address: str) -> int:
    """4 or 6."""
    return 6 if ":" in address else 4


def by_family(addresses: Iterable[str]) -> list[str]:
    """The families in turn, that of the first address first, each in its own order (RFC 8305
    §4), without repetition."""
    families: dict[int, list[str]] = {}
    for address in dict.fromkeys(addresses):
        families.setdefault(family(address), []).append(address)
    columns = list(families.values())
    longest = max(map(len, columns), default=0)
    return [column[n] for n in range(longest) for column in columns if n < len(column)]
