"""The patrol of the books, where it is wanted."""

import contextlib
from collections.abc import AsyncIterator

from everpost.assembly.node import Node
from everpost.assembly.tasks import beside
from everpost.ledger import Patrol

__all__ = ["open_patrol"]


@contextlib.asynccontextmanager
async def open_patrol(node: Node) -> AsyncIterator[None]:
    """Patrol until the end of the block."""
    settings = node.settings.verify
    if not settings.rate:
        yield
        return
    patrol = Patrol(
        owner=node.ids(),
        store=node.store,
        clock=node.clock,
        rate=settings.rate,
        every_s=settings.every_s,
    )
    async with beside(patrol.run()):
        yield
