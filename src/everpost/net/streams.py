"""Outgoing TCP and TLS: connect by a deadline, and the TLS contexts of each policy."""

import asyncio
import hashlib
import ipaddress
import itertools
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

__all__ = ["at_loopback", "connect", "peer_name", "tls_context", "tls_facts"]

P = TypeVar("P", bound=asyncio.BaseProtocol)


async def connect(
    factory: Callable[[], P], host: str, port: int, *, within: float, source: str | None = None
) -> P:
    """Open a TCP connection within so many seconds, name lookup included; its protocol.

    Of several addresses each gets its share of the time that is left, IPv6 and IPv4 in turn, so
    that one black hole does not hide the others (RFC 8305 §4). `source` is the local address to
    send from. Raises OSError (TimeoutError is one): whatever it was, nothing has been said yet.
    """
    loop = asyncio.get_running_loop()
    local = (source, 0) if source is not None else None
    deadline = loop.time() + within
    async with asyncio.timeout_at(deadline):
        addresses = await _addresses(host, port)
    failure: OSError = ConnectionError(f"{host} has no address")
    for tried, address in enumerate(addresses):
        share = (deadline - loop.time()) / (len(addresses) - tried)
        try:
            async with asyncio.timeout(share):
                _, protocol = await loop.create_connection(factory, address, port, local_addr=local)
            return protocol
        except OSError as error:
            failure = error
    raise failure


async def _addresses(host: str, port: int) -> list[str]:
    """The addresses of a host, the families in turn, as the resolver ordered each."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    families: dict[int, list[str]] = {}
    for family, _, _, _, address in found:
        known = families.setdefault(family, [])
        if address[0] not in known:
            known.append(str(address[0]))
    turns = itertools.zip_longest(*families.values())
    return [address for turn in turns for address in turn if address is not None]


def peer_name(transport: asyncio.BaseTransport) -> str | None:
    """`192.0.2.1:25` or `[2001:db8::1]:25`: who is really at the other end."""
    name = transport.get_extra_info("peername")
    if not isinstance(name, tuple):
        return None
    host, port = name[0], name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def at_loopback(transport: asyncio.BaseTransport) -> bool:
    """Whether the connected address, whatever name led there, is one that never leaves this
    machine: 127.0.0.0/8 or ::1, also as an IPv4-mapped address."""
    name = transport.get_extra_info("peername")
    if not isinstance(name, tuple):
        return False
    try:
        address = ipaddress.ip_address(name[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback


def tls_context(*, verify: bool, ca_file: str | None = None) -> ssl.SSLContext:
    """A client's context: TLS 1.2 or newer. With `verify` the certificate must lead to a trusted
    authority (the system's, and those in `ca_file`) and name the host; without, any will do."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if verify:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        if ca_file is not None:
            context.load_verify_locations(ca_file)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def tls_facts(transport: asyncio.BaseTransport) -> tuple[str, str, str | None]:
    """Version, cipher and peer of a TLS session. The peer is the certificate's first name where it
    was verified, else its fingerprint: a name that nobody checked proves nothing."""
    tls = transport.get_extra_info("ssl_object")
    if tls is None:
        raise ValueError("not a TLS transport")
    cipher = tls.cipher()
    return tls.version() or "", cipher[0] if cipher else "", _peer(tls)


def _peer(tls: ssl.SSLObject) -> str | None:
    certificate = tls.getpeercert()
    if certificate:
        for name in certificate.get("subjectAltName", ()):
            if name[0] in ("DNS", "IP Address"):
                return str(name[1])
    der = tls.getpeercert(binary_form=True)
    return f"sha256:{hashlib.sha256(der).hexdigest()}" if der else None
