"""Outgoing TCP and TLS: connect by a deadline, and the TLS contexts of each policy.

The race of addresses is our own: uvloop's `create_connection` has none, and what libraries for it
hand over (a connected socket, to be adopted) uvloop may close twice when the connection ends early
(its issue 738 and the like). A descriptor closed twice is somebody else's, the database's perhaps.
"""

import asyncio
import errno
import hashlib
import ipaddress
import socket
import ssl
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from typing import TypeVar, cast

from everpost.net.addresses import by_family, family

__all__ = [
    "Misses",
    "SourceUnusable",
    "at_loopback",
    "connect",
    "peer_name",
    "shown",
    "tls_context",
    "tls_facts",
]

P = TypeVar("P", bound=asyncio.BaseProtocol)

Made = tuple[asyncio.Transport, asyncio.BaseProtocol]

_HEAD_START = 0.25
"""Seconds before the next address is tried, too: RFC 8305 §5's connection attempt delay."""
_MISSED_FOR = 600.0
"""Seconds for which what was missed comes last."""
_MISSES = 10_000
_MISSES_OF_A_FAMILY = 3


class SourceUnusable(OSError):
    """A local address to connect from is not this machine's, or not now: our fault alone."""


class Misses:
    """Remembers which addresses, and which family, could not be reached lately, so that what is
    dead comes last and not first for ever (F64). `now` gives monotonic seconds.

    An address is missed when it refused, or another one overtook it. A family is missed when that
    happened to it three times running: one dead host says nothing of a network.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._addresses: OrderedDict[str, float] = OrderedDict()
        self._running = {4: 0, 6: 0}
        self._families: dict[int, float] = {}

    def order(self, addresses: Iterable[str]) -> list[str]:
        """The families in turn, what was missed lately behind what was not."""
        mixed = by_family(addresses)
        if not self._addresses and not self._families:
            return mixed
        now = self._now()
        if any(self._lately(self._families.get(family(a)), now) for a in mixed):
            mixed.sort(key=lambda a: self._lately(self._families.get(family(a)), now))
            mixed = by_family(mixed)
        return sorted(mixed, key=lambda a: self._lately(self._addresses.get(a), now))

    def reached(self, address: str) -> None:
        self._addresses.pop(address, None)
        self._running[family(address)] = 0
        self._families.pop(family(address), None)

    def missed(self, address: str) -> None:
        kind, now = family(address), self._now()
        self._addresses.pop(address, None)
        self._addresses[address] = now
        if len(self._addresses) > _MISSES:
            self._addresses.popitem(last=False)
        self._running[kind] += 1
        if self._running[kind] >= _MISSES_OF_A_FAMILY:
            self._families[kind] = now

    @staticmethod
    def _lately(missed: float | None, now: float) -> bool:
        return missed is not None and now - missed < _MISSED_FOR


async def connect(
    factory: Callable[[], P],
    host: str,
    port: int,
    *,
    within: float,
    source: Sequence[str] = (),
    addresses: Sequence[str] = (),
    misses: Misses | None = None,
) -> P:
    """Open a TCP connection within so many seconds; its protocol.

    To one of `addresses`; without any, to one that the system's resolver knows for `host`, lookup
    included in the time. The families are tried in turn, the next address a quarter second after
    the one before, and whoever answers first has it (RFC 8305 §5), so that one black hole does not
    hide the others. `source` holds the local addresses to connect from, one a family; a family
    without one is not used then. Raises OSError (TimeoutError and SourceUnusable are): whatever it
    was, nothing has been said yet.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(within):
        found = by_family(addresses or await _addresses(host, port))
        if source:
            families = {family(address) for address in source}
            found = [address for address in found if family(address) in families]
        if not found:
            raise ConnectionError(f"{host} has no address" + " of our family" * bool(source))
        local = {family(ours): (ours, 0) for ours in source}

        async def begin(address: str) -> Made:
            try:
                return await loop.create_connection(
                    factory, address, port, local_addr=local.get(family(address))
                )
            except OSError as error:
                if source and error.errno == errno.EADDRNOTAVAIL:
                    ours = local[family(address)][0]
                    raise SourceUnusable(error.errno, f"{ours} is no address of ours") from error
                raise

        if misses is not None:
            found = misses.order(found)
        _, protocol = await _first(begin, found, misses)
    return cast(P, protocol)


async def _first(
    begin: Callable[[str], Coroutine[None, None, Made]],
    addresses: Sequence[str],
    misses: Misses | None,
) -> Made:
    """The connection that is made first. `misses` learns who lost."""
    racing: dict[asyncio.Task[Made], str] = {}
    waiting = deque(addresses)
    tried: list[str] = []
    won = ""
    made: Made | None = None
    failure: BaseException = ConnectionError("no address")
    try:
        while waiting or racing:
            if waiting:
                tried.append(waiting.popleft())
                task = asyncio.ensure_future(begin(tried[-1]))
                racing[task] = tried[-1]
            done, _ = await asyncio.wait(
                racing,
                timeout=_HEAD_START if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in [task for task in racing if task in done]:
                address, error = racing.pop(task), task.exception()
                if error is None:
                    won, made = address, task.result()
                    return made
                failure = error
                if isinstance(error, SourceUnusable):
                    tried.remove(address)
        raise failure
    finally:
        if misses is not None:
            _learn(misses, won, tried)
        try:
            await _call_off(racing)
        except BaseException:
            if made is not None:  # the deadline fell into this moment: nobody will use it
                made[0].abort()
            raise


def _learn(misses: Misses, won: str, tried: Sequence[str]) -> None:
    for address in tried:
        if address != won:
            misses.missed(address)
    if won:
        misses.reached(won)


async def _call_off(racing: Collection[asyncio.Task[Made]]) -> None:
    """End the attempts that lost, one that came in second at the same moment included."""
    for task in racing:
        task.add_done_callback(_hang_up)
        task.cancel()
    await asyncio.gather(*racing, return_exceptions=True)


def _hang_up(task: "asyncio.Task[Made]") -> None:
    if not task.cancelled() and task.exception() is None:
        task.result()[0].abort()


async def _addresses(host: str, port: int) -> list[str]:
    """The addresses of a host, as the resolver ordered them."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for _, _, _, _, address in found]


def peer_name(transport: asyncio.BaseTransport) -> str | None:
    """`192.0.2.1:25` or `[2001:db8::1]:25`: who is really at the other end."""
    name = transport.get_extra_info("peername")
    if not isinstance(name, tuple):
        return None
    return shown(name[0], name[1])


def shown(address: str, port: int) -> str:
    """As `peer_name` shows it."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


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
