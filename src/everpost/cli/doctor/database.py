"""Probes of what many nodes share: the database, the cluster's secret, the peers."""

import asyncio
import os
import stat
from pathlib import Path
from urllib.parse import urlsplit

from everpost.cli.doctor.facts import DatabaseFacts, PeerFacts, SecretFacts
from everpost.config import Settings
from everpost.net.streams import connect

__all__ = ["database", "peers", "secret"]

_CONNECT_S = 3.0


def database(settings: Settings) -> DatabaseFacts:
    """Look at it with one connection; nothing is changed."""
    from everpost.assembly.engine import address_of
    from everpost.clock import SystemClock
    from everpost.store.interface import StoreError
    from everpost.store.postgres.glance import glance

    postgres = settings.postgres
    try:
        seen = glance(address_of(postgres), standbys=postgres.standbys, wall_ms=SystemClock().now)
    except StoreError as error:
        return DatabaseFacts(error=str(error))
    return DatabaseFacts(
        version=seen.version,
        number=seen.number,
        problems=seen.problems,
        assurance=seen.assurance,
        standbys=seen.standbys,
        skew_ms=seen.skew_ms,
        nodes=seen.nodes,
        relays=seen.relays,
    )


def secret(settings: Settings) -> SecretFacts:
    """The file that proves to peers that we are one of them."""
    cluster = settings.cluster
    if not cluster.secret_file:
        return SecretFacts(listening=bool(cluster.listen))
    path = Path(cluster.secret_file)
    try:
        mode = path.stat().st_mode
        length = len(path.read_bytes().strip())
    except OSError as error:
        return SecretFacts(
            listening=bool(cluster.listen), path=str(path), error=error.strerror or ""
        )
    return SecretFacts(
        listening=bool(cluster.listen),
        path=str(path),
        open_to_others=bool(stat.S_IMODE(mode) & 0o077),
        owned=path.stat().st_uid == os.geteuid(),
        length=length,
    )


async def peers(nodes: tuple[tuple[str, str], ...], *, but: str) -> tuple[PeerFacts, ...]:
    """Whether each other node can be connected to, where it says that its peers reach it."""
    others = [(name, address) for name, address in nodes if address and name != but]
    return tuple(await asyncio.gather(*(_peer(name, address) for name, address in others)))


async def _peer(name: str, address: str) -> PeerFacts:
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        made = await connect(_Nothing, parts.hostname or "", port, within=_CONNECT_S)
    except TimeoutError:
        return PeerFacts(name, address, error=f"no connection within {_CONNECT_S:g} s")
    except OSError as error:
        return PeerFacts(name, address, error=error.strerror or str(error))
    made.leave()
    return PeerFacts(name, address)


class _Nothing(asyncio.Protocol):
    """Connects, and has nothing to say."""

    def __init__(self) -> None:
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def leave(self) -> None:
        if self._transport is not None:
            self._transport.close()
