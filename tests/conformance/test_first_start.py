"""What the first start makes, when the store goes away in the midst of it."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from everpost.assembly.keys import first_key, open_sealer
from everpost.assembly.places import Places
from everpost.ids import Id, IdMaker
from everpost.store.directory import Directory
from everpost.store.interface import Store, StoreUnavailable
from tests.conformance.engines import Engine
from tests.conformance.making import make_id


def test_a_first_key_is_told_though_the_store_goes_away_once_it_is_made(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is shown this once: the next start finds it made, and has no other."""
    places = Places(tmp_path)
    places.make()

    async def goes_away(name: str, owner: Id) -> None:
        raise StoreUnavailable("no answer")

    async def scene() -> None:
        async with contextlib.AsyncExitStack() as stack:
            store: Store = await stack.enter_async_context(engine.opened())
            await open_sealer(store, places, {}, owner=make_id(), shared=True)
            directory = Directory(store)
            await directory.refresh()
            monkeypatch.setattr(store, "yield_lead", goes_away)
            ids = IdMaker(engine.clock.now)
            token = await first_key(store, directory, given=None, clock=engine.clock, ids=ids)
            assert token is not None
            await directory.refresh()
            assert len(directory.now.keys) == 1

    asyncio.run(scene())
