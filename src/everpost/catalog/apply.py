"""Makes what there is what a document says there should be, all of it or nothing."""

import asyncio
from collections.abc import Sequence

from everpost.catalog.checks import must_operate
from everpost.catalog.difference import Difference
from everpost.catalog.fields import Document
from everpost.catalog.plan import World, plan
from everpost.clock import Clock
from everpost.ids import IdMaker
from everpost.model.credential import Credential
from everpost.security import Sealer
from everpost.store.directory import Directory
from everpost.store.interface import Catalog

__all__ = ["Applier"]


class Applier:
    """Applies documents, one at a time in this process."""

    def __init__(
        self,
        store: Catalog,
        directory: Directory,
        *,
        sealer: Sealer,
        clock: Clock,
        ids: IdMaker,
    ) -> None:
        self._store = store
        self._directory = directory
        self._sealer = sealer
        self._clock = clock
        self._ids = ids
        self._turn = asyncio.Lock()

    async def apply(
        self, credential: Credential, document: Document, *, prune: bool, dry_run: bool
    ) -> Sequence[Difference]:
        """What was (with `dry_run`: would be) changed, in one transaction. Applied again, it
        changes nothing. Raises Invalid, Missing or Conflict naming the place; then nothing was
        changed."""
        must_operate(credential)
        async with self._turn:
            world = World(
                relays=await self._store.relays(),
                pools=await self._store.pools(),
                routes=await self._store.routes(),
                streams=await self._store.streams(),
                projects=await self._store.projects(),
            )
            made = plan(
                document,
                world,
                project=credential.project,
                prune=prune,
                now=self._clock.now(),
                ids=self._ids,
                sealer=self._sealer,
            )
            if made.changes and not dry_run:
                await self._store.change(made.changes, actor=credential.actor)
                await self._directory.refresh()
        return made.differences
