"""Whom a load test may be aimed at: this machine, or a server that somebody says is theirs."""

import ipaddress
from collections.abc import Sequence

__all__ = ["Forbidden", "check_target", "is_loopback"]


class Forbidden(Exception):
    """The test must not be aimed there; the text says why and what would allow it."""


def check_target(host: str, addresses: Sequence[str], *, owned: bool) -> None:
    """Raise Forbidden unless each address never leaves this machine, or the server is `owned`."""
    away = [address for address in addresses if not is_loopback(address)]
    if away and not owned:
        raise Forbidden(
            f"{host} is at {', '.join(away)}, which is not this machine. A load test can stop a "
            "server; if this one is yours, say --i-own-this-server"
        )


def is_loopback(text: str) -> bool:
    """Whether this address never leaves the machine."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback
