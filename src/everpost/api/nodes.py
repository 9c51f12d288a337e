"""The nodes of this service. One that is gone for good may be taken off the list."""

from collections.abc import Sequence

from everpost.api.answers import timestamp
from everpost.api.node_shapes import NodeAnswer, StoreAnswer
from everpost.api.requests import Request
from everpost.api.services import Services
from everpost.api.shapes import DeletedAnswer, ListAnswer
from everpost.catalog.checks import must_operate
from everpost.model.errors import NotFound
from everpost.store.interface import Note

__all__ = ["forget_node", "list_nodes", "nodes_of", "store_of"]

_LEADER = "leader"
"""Kind of the note in which a leader says who it is (`recovery.company`)."""


async def list_nodes(services: Services, request: Request) -> ListAnswer[NodeAnswer]:
    """Every node with its last sign of life, by name. On the embedded store there are none."""
    must_operate(request.credential)
    return ListAnswer(await nodes_of(services))


async def forget_node(services: Services, request: Request) -> DeletedAnswer:
    """Take a node that is gone for good off the list. What it had in hand is taken over all the
    same; one that lives is back with its next sign of life."""
    must_operate(request.credential)
    (name,) = request.params
    if all(node.name != name for node in await services.store.nodes()):
        raise NotFound("Node not found")
    await services.store.disappear(name)
    return DeletedAnswer("node", name)


async def nodes_of(services: Services) -> list[NodeAnswer]:
    """All nodes. Raises StoreError."""
    _, notes = await services.store.noted((_LEADER,))
    leader = _leader(notes)
    now = services.clock.now()
    return [
        NodeAnswer(
            name=node.name,
            site=node.site,
            version=node.version,
            roles=list(node.roles),
            address=node.address or None,
            state="gone" if now - node.seen_at >= services.limits.gone_ms else "up",
            leader=node.name == leader,
            started_at=timestamp(node.started_at),
            last_seen_at=timestamp(node.seen_at),
            clock_skew_seconds=node.skew_ms / 1000,
        )
        for node in await services.store.nodes()
    ]


def _leader(notes: Sequence[Note]) -> str | None:
    return str(notes[-1].data.get("node")) if notes else None


def store_of(services: Services) -> StoreAnswer:
    state = services.store.state()
    return StoreAnswer(
        engine=services.engine,
        reachable=state.reachable,
        writable=state.writable,
        durable=state.durable,
        problems=list(state.problems),
        timeline=state.timeline,
        standbys=state.standbys,
    )
