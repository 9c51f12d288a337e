"""Who is there, and how the store stands."""

import asyncio

import msgspec

from everpost.store.cluster import NodeRow
from everpost.store.interface import WorkerRow
from tests.conformance.engines import Engine
from tests.conformance.making import START, make_id

ONE = NodeRow("node-1", "paris", "1.2.3", "http://node-1:8089", ("api", "dispatch"), START - 5)
TWO = NodeRow("node-2", "", "1.2.4", "", ("dispatch",), START - 4, skew_ms=-7_200_000)


def test_nodes_appear_are_seen_and_disappear(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store, engine.opened() as other:
            assert list(await store.nodes()) == []
            await other.appear(TWO)
            await store.appear(ONE)
            seen = [msgspec.structs.replace(each, seen_at=START) for each in (ONE, TWO)]
            assert list(await other.nodes()) == seen
            engine.clock.pass_(2_000)
            await store.appear(ONE)
            assert [n.seen_at for n in await other.nodes()] == [START + 2_000, START]
            await other.disappear("node-1")
            await other.disappear("node-1")
            assert [n.name for n in await store.nodes()] == ["node-2"]

    asyncio.run(scene())


def test_a_node_comes_back_with_another_address_and_release(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            await store.appear(ONE)
            engine.clock.pass_(5)
            moved = NodeRow("node-1", "oslo", "2.0.0", "http://elsewhere:1", (), START + 5)
            await store.appear(moved)
            assert list(await store.nodes()) == [msgspec.structs.replace(moved, seen_at=START + 5)]

    asyncio.run(scene())


def test_the_sender_of_a_sign_of_life_has_no_say_in_when_it_was(engine: Engine) -> None:
    """A node with a wrong clock is neither gone nor there for ever."""

    async def scene() -> None:
        async with engine.opened() as store:
            await store.appear(msgspec.structs.replace(ONE, seen_at=START + 10**9))
            (found,) = await store.nodes()
            assert found.seen_at == START

    asyncio.run(scene())


def test_a_worker_says_on_which_node_it_is(engine: Engine) -> None:
    worker = WorkerRow(make_id(), "dispatch", 7, "boot", "dots-7.log", START, START, "node-1")

    async def scene() -> None:
        async with engine.opened() as store:
            await store.register(worker)
            assert list(await store.workers()) == [worker]

    asyncio.run(scene())


def test_a_store_that_is_well_says_so_and_asks_nobody(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            await store.nodes()
            state = store.state()
            assert (state.reachable, state.writable) == (True, True)
            assert state.timeline >= 1

    asyncio.run(scene())
