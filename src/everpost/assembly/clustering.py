"""This node among others: its signs of life, its name, what one of them does for all."""

import contextlib
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib.metadata import version

from everpost.assembly.node import Node
from everpost.assembly.tasks import beside
from everpost.config import Settings
from everpost.delivery import TERM_MS
from everpost.net.listener import Endpoint
from everpost.recovery.company import Company
from everpost.recovery.leading import Leading
from everpost.recovery.presence import Fellow, Presence, RollCall
from everpost.recovery.rescuer import Rescuer
from everpost.store.cluster import NodeRow

__all__ = ["company_of", "open_presence", "rescuer_of"]

_ANYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  compared with, not bound


def rescuer_of(node: Node) -> Rescuer:
    return Rescuer(
        store=node.store,
        folder=node.places.run,
        boot=node.boot,
        clock=node.clock,
        rng=node.rng,
        node=node.name,
        grace_ms=int(node.settings.cluster.gone_s * 1000),
    )


@contextlib.asynccontextmanager
async def open_presence(
    node: Node, roles: Sequence[str], inherited: Mapping[str, int]
) -> AsyncIterator[Presence | None]:
    """Give signs of life until the end of the block, from before work begins. None: there is no
    other node. Raises StoreError."""
    settings = node.settings.cluster
    if not node.shared:
        yield None
        return
    fellow = Fellow(
        roles=tuple(roles),
        started_at=node.clock.now(),
        address=_address(node.settings, inherited) if "api" in roles else "",
    )
    presence = Presence(
        store=node.store,
        node=NodeRow(
            name=node.name,
            site=node.settings.node.site,
            version=version("everpost"),
            address=fellow.address,
            roles=fellow.roles,
            started_at=fellow.started_at,
        ),
        roll=RollCall(node.places.run, fellow),
        clock=node.clock,
        heartbeat_s=settings.heartbeat_s,
        gone_s=settings.gone_s,
        skew_ms=node.off_ms,
    )
    try:
        await presence.appear()
        async with beside(presence.run()):
            yield presence
    finally:
        await presence.leave()


def _address(settings: Settings, inherited: Mapping[str, int]) -> str:
    """The URL under which peers reach this node: the one that was set, or made of where it listens
    for them. Empty: it does not."""
    cluster = settings.cluster
    if not cluster.listen or not cluster.secret_file:
        return ""
    if cluster.address:
        return cluster.address
    where = Endpoint.parse(cluster.listen)
    port = where.port
    if "peers" in inherited:
        with socket.socket(fileno=inherited["peers"]) as sock:
            port = sock.getsockname()[1]
            sock.detach()  # it is still the listener's
    host = socket.getfqdn() if where.host in _ANYWHERE else where.host
    return f"http://{Endpoint(host, port)}"


def company_of(node: Node, presence: Presence, rescuer: Rescuer) -> Company:
    """For upkeep. A node that cannot be heard goes on with the seats that it was lent for as long
    as they were: nobody else gets them before."""
    return Company(
        name=node.name,
        store=node.store,
        leading=Leading("upkeep", owner=node.ids(), store=node.store, clock=node.clock),
        presence=presence,
        rescuer=rescuer,
        clock=node.clock,
        gone_s=max(node.settings.cluster.gone_s, TERM_MS / 1000),
    )
