"""Streams and projects: weights and policies, and whose to change they are."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from everpost.catalog.fields import NewPool, NewRelay, ProjectFields, StreamFields
from everpost.model.credential import SENDING_ACCESS
from everpost.model.errors import Forbidden, Invalid, NotFound
from everpost.model.message import Assurance
from everpost.model.states import InDoubtPolicy
from everpost.store.interface import StreamRow
from tests.support.catalog_house import ANA, BOB, House, opened


def _run(folder: Path, work: Callable[[House], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(folder) as house:
            await house.store.put(
                StreamRow(2, "own", "broadcast", InDoubtPolicy.HOLD, 86_400_000, 60_000, 3_600_000),
                actor="test", action="test",
            )  # fmt: skip
            await house.directory.refresh()
            await work(house)

    asyncio.run(run())


def test_a_stream_is_changed_otherwise_than_asked(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await house.relays.add(ANA, NewRelay(url="smtp://a.test"))
        await house.pools.add(ANA, NewPool(name="p", tiers=[["a.test"]]))
        given = StreamFields(
            weight=5, pool="p", retry_first=30, retry_cap=600, lifetime=3600, in_doubt="fail",
            durability="replicated",
        )  # fmt: skip
        await house.streams.change(ANA, "transactional", given)
        row = house.directory.now.streams[1, "transactional"]
        assert (row.weight, row.pool, row.in_doubt) == (5, "p", InDoubtPolicy.FAIL)
        assert row.durability is Assurance.REPLICATED
        assert (row.retry_first_ms, row.retry_cap_ms, row.lifetime_ms) == (
            30_000,
            600_000,
            3_600_000,
        )
        before = await house.store.revision()
        await house.streams.change(ANA, "transactional", given)
        assert await house.store.revision() == before
        row = await house.streams.change(ANA, "transactional", StreamFields(pool=None, weight=None))
        assert (row.pool, row.weight, row.retry_first_ms) == (None, 1, 30_000)
        row = await house.streams.change(ANA, "transactional", StreamFields(durability=None))
        assert row.durability is None
        row = await house.streams.change(ANA, "transactional", StreamFields(pool="default"))
        assert row.pool == "default"

    _run(tmp_path, work)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"weight": 0}, "weight"),
        ({"weight": 1001}, "weight"),
        ({"pool": "nowhere"}, "pool"),
        ({"retry_first": 0}, "retry_first"),
        ({"retry_first": 3601}, "retry_cap"),
        ({"retry_cap": 59}, "retry_cap"),
        ({"retry_cap": 10**7}, "retry_cap"),
        ({"lifetime": 9}, "lifetime"),
        ({"lifetime": 10**9}, "lifetime"),
    ],
)
def test_a_bad_stream_is_kept(tmp_path: Path, given: dict[str, Any], field: str) -> None:
    async def work(house: House) -> None:
        before = house.directory.now.streams
        who, name = (ANA, "transactional") if field == "pool" else (BOB, "own")
        with pytest.raises(Invalid) as refused:
            await house.streams.change(who, name, StreamFields(**given))
        assert refused.value.field == field
        await house.directory.refresh()
        assert house.directory.now.streams == before

    _run(tmp_path, work)


def test_a_tenant_changes_streams_of_others_or_takes_a_pool(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        assert [row.name for row in house.streams.list(BOB)] == ["own"]
        assert (await house.streams.change(BOB, "own", StreamFields(weight=2))).weight == 2
        for credential, name in ((ANA, "own"), (BOB, "transactional")):
            with pytest.raises(NotFound):
                await house.streams.change(credential, name, StreamFields(weight=2))
        with pytest.raises(Forbidden):
            await house.streams.change(BOB, "own", StreamFields(pool="default"))
        for key in (
            msgspec.structs.replace(BOB, permission=SENDING_ACCESS),
            msgspec.structs.replace(BOB, sandbox=True),
        ):
            with pytest.raises(Forbidden):
                await house.streams.change(key, "own", StreamFields(weight=3))
            with pytest.raises(Forbidden):
                house.streams.list(key)

    _run(tmp_path, work)


def test_a_tenant_weighs_projects(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        row = await house.projects.change(ANA, 2, ProjectFields(weight=4))
        assert (row.weight, house.directory.now.projects[2].weight) == (4, 4)
        assert (await house.audited())[0] == ("key:ana", "project.change")
        assert await house.projects.change(ANA, 2, ProjectFields()) == row
        assert [project.id for project in house.projects.list(ANA)] == [1, 2]
        with pytest.raises(Invalid):
            await house.projects.change(ANA, 2, ProjectFields(weight=-1))
        with pytest.raises(NotFound):
            await house.projects.change(ANA, 3, ProjectFields(weight=1))
        with pytest.raises(Forbidden):
            await house.projects.change(BOB, 2, ProjectFields(weight=1000))
        with pytest.raises(Forbidden):
            house.projects.list(BOB)

    _run(tmp_path, work)
