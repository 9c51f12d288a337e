"""Outgoing TCP and TLS: connect by a deadline, and the TLS contexts of each policy."""

import asyncio
import hashlib
import ssl
from collections.abc import Callable
from typing import TypeVar

__all__ = ["connect", "peer_name", "tls_context", "tls_facts"]

P = TypeVar("P", bound=asyncio.BaseProtocol)


async def connect(
    factory: Callable[[], P], host: str, port: int, *, within: float, source: str | None = None
) -> P:
    """Open a TCP connection within so many seconds, name lookup included; its protocol.

    `source` is the local address to send from. Raises OSError (TimeoutError is one): whatever it
    was, nothing has been said yet.
    """
    loop = asyncio.get_running_loop()
    local = (source, 0) if source is not None else None
    async with asyncio.timeout(within):
        _, protocol = await loop.create_connection(factory, host, port, local_addr=local)
    return protocol


def peer_name(transport: asyncio.BaseTransport) -> str | None:
    """`192.0.2.1:25` or `[2001:db8::1]:25`: who is really at the other end."""
    name = transport.get_extra_info("peername")
    if not isinstance(name, tuple):
        return None
    host, port = name[0], name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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
