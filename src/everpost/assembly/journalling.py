"""The accept journal of a node that shares its store with others: file, peers, drain."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from everpost import telemetry
from everpost.api import App, HttpLimits, HttpServer
from everpost.assembly.node import Node
from everpost.assembly.tasks import beside
from everpost.config import Settings
from everpost.journal import (
    Drain,
    Journal,
    JournalledAccepting,
    JournalLimits,
    Lookup,
    PeerDoor,
    Peers,
    Roster,
    part,
)
from everpost.journal.reach import Reach
from everpost.journal.signing import read_secret
from everpost.net.listener import Endpoint, adopt, listen
from everpost.store.sqlite.journal import JournalFile

__all__ = ["Journalling", "open_journal"]

_PEERS = HttpLimits(connections=256, request_timeout=30.0, head_timeout=5.0)
_LEAVING_S = 1.0
_PARTING_S = 3.0


@dataclass(frozen=True, slots=True)
class Journalling:
    """What the API is given of it."""

    accepting: JournalledAccepting
    lookup: Lookup
    journal: Journal

    def taking(self) -> bool:
        """Whether mail is taken although the store cannot: for readiness."""
        return self.journal.taking


@contextlib.asynccontextmanager
async def open_journal(
    node: Node, inherited: Mapping[str, int]
) -> AsyncIterator[Journalling | None]:
    """Until the end of the block; None where the store is this node's own. Raises StoreError,
    SecretError, ListenError."""
    settings = node.settings
    if not settings.postgres.url:
        yield None
        return
    name = node.name
    file = JournalFile(node.places.journal, clock=node.clock)
    await file.open()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(file.close)
        journal = Journal(
            file,
            node=name,
            limits=JournalLimits(octets=settings.cluster.journal_bytes),
            low=lambda: telemetry.alarm("disk_low").raised,
        )
        await journal.load()
        roster = Roster(node.store, file, name=name)
        await roster.load()
        secret = _secret(settings)
        peers = Peers(
            lambda: roster.peers if secret else {},
            secret=secret,
            name=name,
            clock=node.clock,
            within_s=settings.cluster.peer_s,
        )
        stack.callback(peers.close)
        reach = Reach(node.store, news=journal.news)
        accepting = JournalledAccepting(
            store=node.store,
            journal=journal,
            reach=reach,
            peers=peers,
            clock=node.clock,
            patience_s=settings.cluster.patience_s,
        )
        drain = Drain(
            journal=journal,
            store=node.store,
            reach=reach,
            clock=node.clock,
            chance=node.rng.random,
        )
        if secret and (settings.cluster.listen or "peers" in inherited):
            door = PeerDoor(journal=journal, secret=secret, name=name, clock=node.clock)
            await stack.enter_async_context(_serving(door, settings, inherited))
        await stack.enter_async_context(beside(roster.run()))
        await stack.enter_async_context(beside(drain.run()))
        yield Journalling(accepting, Lookup(journal), journal)
        await part(journal, peers, within_s=_PARTING_S)


def _secret(settings: Settings) -> bytes:
    """Empty: nodes leave each other no copies."""
    file = settings.cluster.secret_file
    return read_secret(Path(file)) if file else b""


@contextlib.asynccontextmanager
async def _serving(
    door: App, settings: Settings, inherited: Mapping[str, int]
) -> AsyncIterator[None]:
    """The listener for peers, on the inherited socket or on one of its own."""
    number = inherited.get("peers")
    sock = listen(Endpoint.parse(settings.cluster.listen)) if number is None else adopt(number)
    server, ready = HttpServer(_PEERS), asyncio.Event()
    serving = asyncio.create_task(server.serve(door, [sock], ready=ready))
    await ready.wait()
    try:
        yield
        await server.shutdown(_LEAVING_S)
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
