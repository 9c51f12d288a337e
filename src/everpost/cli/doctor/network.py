"""Probes of the network: the resolver, the names of this host, the way to mail servers."""

import asyncio
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from everpost.cli.doctor.facts import Egress, NameFacts, ResolverFacts
from everpost.net.resolver import Answer, Found, Resolver, Unresolved
from everpost.net.streams import connect

__all__ = ["Target", "egress", "host_names", "resolver", "targets"]

CONNECT_S = 5.0
GREETING_S = 10.0
GREETING_BYTES = 512
MX_TRIED = 2


@dataclass(frozen=True, slots=True)
class Target:
    """A mail server to try. One with TLS from the first byte gives no greeting in clear."""

    host: str
    port: int = 25
    implicit_tls: bool = False


async def resolver(ask: Resolver) -> ResolverFacts:
    """Ask for the root's name servers: signed, and known to every resolver."""
    answer = await ask.lookup(".", "NS")
    if isinstance(answer, Found):
        return ResolverFacts(answered=True, authenticated=answer.authenticated)
    reason = answer.reason if isinstance(answer, Unresolved) else "it knows no root servers"
    return ResolverFacts(answered=False, authenticated=False, reason=reason)


async def targets(ask: Resolver, hosts: Sequence[tuple[str, int | None]]) -> tuple[Target, ...]:
    """What `--probe-host` means: with a port that very server, else the host's MX (RFC 5321 §5.1),
    or itself when it has none."""
    found: list[Target] = []
    for host, port in hosts:
        answer = None if port is not None or _is_address(host) else await ask.lookup(host, "MX")
        exchanges = _exchanges(answer)[:MX_TRIED] if answer else []
        found += [Target(name) for name in exchanges] or [Target(host, port or 25)]
    return tuple(found)


def _exchanges(answer: Answer) -> list[str]:
    """Names of `10 mx.example.` records, the preferred first; a null MX (RFC 7505) names none."""
    if not isinstance(answer, Found):
        return []
    pairs = (record.split() for record in answer.records)
    ranked = sorted((int(pair[0]), pair[1].rstrip(".")) for pair in pairs if len(pair) == 2)
    return [name for _, name in ranked if name]


async def host_names(ask: Resolver, hostname: str, sources: Sequence[str]) -> NameFacts:
    """Addresses of the EHLO name, and the names that these and the sources have."""
    answers = [await ask.lookup(hostname, kind) for kind in ("A", "AAAA")]
    unknown = next((a.reason for a in answers if isinstance(a, Unresolved)), "")
    addresses = tuple(
        str(ipaddress.ip_address(record))
        for answer in answers
        if isinstance(answer, Found)
        for record in answer.records
    )
    if addresses:
        unknown = ""
    given = tuple(str(ipaddress.ip_address(source)) for source in sources)
    pointers = {}
    for address in dict.fromkeys((*addresses, *given)):
        answer = await ask.lookup(ipaddress.ip_address(address).reverse_pointer, "PTR")
        pointers[address] = answer.records if isinstance(answer, Found) else ()
    return NameFacts(hostname, addresses, given, pointers, unknown)


async def egress(found: Sequence[Target]) -> tuple[Egress, ...]:
    """Try every target at once."""
    return tuple(await asyncio.gather(*(_try(target) for target in found)))


class _Greeting(asyncio.Protocol):
    """Takes the first line that comes, bounded."""

    def __init__(self) -> None:
        self._got = bytearray()
        self.line: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it

    def data_received(self, data: bytes) -> None:
        self._got += data[:GREETING_BYTES]
        if not self.line.done() and (b"\n" in self._got or len(self._got) >= GREETING_BYTES):
            first = bytes(self._got[:GREETING_BYTES]).split(b"\n", 1)[0]
            self.line.set_result(first.decode("utf-8", "replace").strip())

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.line.done():
            self.line.set_result("")


async def _try(target: Target) -> Egress:
    host, port = target.host, target.port
    try:
        greeting = await connect(_Greeting, host, port, within=CONNECT_S)
    except TimeoutError:
        return Egress(host, port, error=f"no connection within {CONNECT_S:g} s")
    except OSError as error:
        return Egress(host, port, error=error.strerror or str(error))
    assert greeting.transport is not None
    try:
        if target.implicit_tls:
            return Egress(host, port, banner="a connection (TLS was not tried)")
        async with asyncio.timeout(GREETING_S):
            line = await greeting.line
    except TimeoutError:
        return Egress(host, port, error=f"connected, but no greeting within {GREETING_S:g} s")
    finally:
        greeting.transport.abort()
    if not line.startswith("220"):
        return Egress(host, port, error=f"greeted with: {line or 'nothing'}")
    return Egress(host, port, banner=line)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
