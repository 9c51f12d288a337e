"""F15: one project, one stream or one broadcast has more mail than can be sent. The mail of others
starts in its turn, however many destinations the flood has, and whether it moves or hangs.

Invariants: I17.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from everpost.assembly.node import Node
from everpost.model.message import Priority
from tests.support.filling import add_project, add_stream, filling, queue
from tests.support.house import House
from tests.support.sink import Sink
from tests.support.waiting import wait_until

_HOLES = [f"d{n}.hole.test" for n in range(500)]
_MANY = [f"d{n}.test" for n in range(500)]
_FLOOD = 1_500
_CODES = 20


@contextmanager
def _stopped(folder: Path, sink: Sink, *, connections: int) -> Iterator[House]:
    """A house that knows its relay and its domain, and does not run yet."""
    settings = {
        "EVERPOST_NODE_DRAIN_S": "0.5",
        "EVERPOST_DELIVERY_RCPT_S": "300",
        "EVERPOST_DISPATCH_POLL_S": "0.2",
    }
    house = House(folder / "d", settings=settings, processes=1)
    house.start()
    house.relay(sink.url, tls="none", connections=connections)
    house.domain(signing="unsigned")
    house.stop()
    try:
        yield house
    finally:
        house.stop()


def _fill(house: House, fill: Callable[[Node], Awaitable[None]]) -> None:
    async def run() -> None:
        async with filling(house.data) as node:
            await fill(node)

    asyncio.run(run())


def _count(house: House, state: str) -> int:
    return int(house.get("/status").json["states"][state])


def _codes_get_through(house: House, in_hand: int) -> None:
    """With the flood holding all that it may."""
    house.start()
    wait_until(
        lambda: _count(house, "claimed") >= in_hand,
        seconds=20,
        what=lambda: f"{in_hand} rows in hand, not {_count(house, 'claimed')}",
    )
    ids = [house.send(to=f"u@quick{n}.test") for n in range(_CODES)]
    for id_ in ids:
        house.wait_status(id_, "delivered")


def test_a_broadcast_that_hangs_holds_every_place_that_codes_need(tmp_path: Path) -> None:
    async def fill(node: Node) -> None:
        await queue(node, _FLOOD, *_HOLES, priority=Priority.BROADCAST)

    sink = Sink(tmp_path, "rcpt silent domain=*.hole.test")
    with sink, _stopped(tmp_path, sink, connections=8) as house:
        _fill(house, fill)
        _codes_get_through(house, 550)


@pytest.mark.long
def test_a_project_that_hangs_holds_every_place_that_others_need(tmp_path: Path) -> None:
    async def fill(node: Node) -> None:
        await add_project(node, 2)
        await queue(node, _FLOOD, *_HOLES, project=2)

    sink = Sink(tmp_path, "rcpt silent domain=*.hole.test")
    with sink, _stopped(tmp_path, sink, connections=40) as house:
        _fill(house, fill)
        _codes_get_through(house, 700)


@pytest.mark.long
def test_a_stream_that_hangs_holds_every_place_that_others_need(tmp_path: Path) -> None:
    async def fill(node: Node) -> None:
        await add_stream(node, 1, "reports")
        await queue(node, _FLOOD, *_HOLES, stream="reports")

    sink = Sink(tmp_path, "rcpt silent domain=*.hole.test")
    with sink, _stopped(tmp_path, sink, connections=40) as house:
        _fill(house, fill)
        _codes_get_through(house, 600)


@pytest.mark.long
def test_mail_behind_a_flood_waits_until_the_flood_is_over(tmp_path: Path) -> None:
    """Counted in arrivals: a project's mail, and a stream's, comes in turn with the flood's."""

    async def fill(node: Node) -> None:
        await add_project(node, 2)
        await add_stream(node, 1, "reports")
        await queue(node, _FLOOD, *_MANY, project=2)
        await queue(node, _FLOOD, *_MANY, stream="reports")
        await queue(node, _CODES, "quick.test")

    sink = Sink(tmp_path)
    with sink, _stopped(tmp_path, sink, connections=8) as house:
        _fill(house, fill)
        house.start()
        wait_until(
            lambda: _count(house, "delivered") >= 600,
            seconds=30,
            what="some of it to be delivered",
        )
        house.stop()
        arrived = sink.close()
    order = [id_ for id_, _ in sorted(arrived.items(), key=lambda item: item[1])]
    places = [at for at, id_ in enumerate(order) if id_.endswith(".1.transactional")]
    assert len(places) == _CODES
    # A quarter of all that moves is theirs: half of their project's half.
    assert places[-1] < 10 * _CODES
