"""Pools and routes: what an operator may write, where mail goes, what delivery gets."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from everpost.catalog.fields import NewPool, NewRelay, NewRoute, PoolFields, RouteFields
from everpost.ids import Id, text
from everpost.model.credential import SENDING_ACCESS
from everpost.model.errors import Conflict, Forbidden, Invalid, Missing, NotFound
from everpost.model.pool import Pool, Route, Way
from everpost.telemetry import alarm
from tests.support.catalog_house import ANA, BOB, House, opened

STRANGERS = [
    pytest.param(msgspec.structs.replace(ANA, permission=SENDING_ACCESS), id="sending key"),
    pytest.param(BOB, id="another project"),
    pytest.param(msgspec.structs.replace(ANA, sandbox=True), id="sandbox key"),
]


def _run(folder: Path, work: Callable[[House], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(folder) as house:
            await work(house)

    asyncio.run(run())


async def _relays(house: House, *names: str) -> list[Id]:
    return [
        (await house.relays.add(ANA, NewRelay(url=f"smtp://{n}.test", name=n))).row.id
        for n in names
    ]


async def _pool(house: House, name: str, *tiers: list[str]) -> Id:
    return (await house.pools.add(ANA, NewPool(name=name, tiers=list(tiers)))).id


# --- pools ------------------------------------------------------------------------------------


def test_a_pool_reaches_delivery_otherwise_than_it_was_written(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        a, b, c = await _relays(house, "a", "b", "c")
        given = NewPool(name="p", tiers=[["b", text(a)], ["c"]], spill_below=0.25, floor=0)
        row = await house.pools.add(ANA, given)
        assert house.pools.load_all() == [
            Pool(name="p", tiers=((b, a), (c,)), spill_below=0.25, floor=0)
        ]
        await house.pools.change(ANA, row.id, PoolFields(spill_below=None, floor=None))
        assert house.pools.load_all() == [Pool(name="p", tiers=((b, a), (c,)))]
        await house.store.drop("relay", c, actor="t", action="behind our back")
        await house.directory.refresh()
        assert house.pools.load_all() == [Pool(name="p", tiers=((b, a),))]

    _run(tmp_path, work)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"tiers": []}, "tiers"),
        ({"tiers": [[]]}, "tiers"),
        ({"tiers": [["a"], []]}, "tiers"),
        ({"tiers": [["nobody"]]}, "tiers"),
        ({"tiers": [["a", "a"]]}, "tiers"),
        ({"tiers": [["a"], ["a"]]}, "tiers"),
        ({"tiers": [["a"]] * 17}, "tiers"),
        ({"spill_below": 1.01}, "spill_below"),
        ({"spill_below": -0.1}, "spill_below"),
        ({"spill_below": float("nan")}, "spill_below"),
        ({"floor": -1}, "floor"),
        ({"floor": 1001}, "floor"),
        ({"name": " "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\nb"}, "name"),
    ],
)
def test_a_bad_pool_is_kept(tmp_path: Path, given: dict[str, Any], field: str) -> None:
    async def work(house: House) -> None:
        await _relays(house, "a")
        good: dict[str, Any] = {"name": "p", "tiers": [["a"]]}
        with pytest.raises((Invalid, Missing)) as refused:
            await house.pools.add(ANA, NewPool(**{**good, **given}))
        assert refused.value.field == field
        row = await house.pools.add(ANA, NewPool(**good))
        with pytest.raises((Invalid, Missing)) as refused:
            await house.pools.change(ANA, row.id, PoolFields(**given))
        assert refused.value.field == field
        assert await house.store.pools() == [row]

    _run(tmp_path, work)


def test_a_relay_twice_under_its_two_names(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        (a,) = await _relays(house, "a")
        with pytest.raises(Invalid):
            await _pool(house, "p", ["a", text(a)])

    _run(tmp_path, work)


def test_a_pool_that_mail_is_sent_to_is_removed(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await _relays(house, "a")
        p, q = await _pool(house, "p", ["a"]), await _pool(house, "q", ["a"])
        route = await house.routes.add(ANA, NewRoute(name="r", pool="p"))
        await house.set_stream_pool("q")
        for pool, user in ((p, "route r"), (q, "stream transactional of project 1")):
            with pytest.raises(Conflict, match=user):
                await house.pools.remove(ANA, pool)
        assert await house.routes.remove(ANA, route.id)
        assert await house.pools.remove(ANA, p)
        assert not await house.pools.remove(ANA, p)
        assert [row.id for row in house.pools.list(ANA)] == [q]

    _run(tmp_path, work)


def test_a_pool_with_a_relay_that_is_gone_cannot_be_changed(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        a, b = await _relays(house, "a", "b")
        p = await _pool(house, "p", ["a"], ["b"])
        # Removed by a process that had read the pools before this one was there.
        await house.store.drop("relay", a, actor="test", action="relay.remove")
        changed = await house.pools.change(ANA, p, PoolFields(floor=2))
        assert changed.settings == {"tiers": [[text(b)]], "floor": 2}
        with pytest.raises(Invalid):  # but nobody names it anew
            await house.pools.change(ANA, p, PoolFields(tiers=[[text(a)]]))

    _run(tmp_path, work)


def test_streams_lose_a_pool_that_gets_another_name(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await _relays(house, "a")
        q = await _pool(house, "q", ["a"])
        await _pool(house, "p", ["a"])
        await house.set_stream_pool("q")
        await house.pools.change(ANA, q, PoolFields(name="better"))
        assert house.directory.now.streams[1, "transactional"].pool == "better"
        assert [action for _, action in await house.audited()][:2] == [
            "stream.change", "pool.change",
        ]  # fmt: skip
        with pytest.raises(Conflict) as refused:
            await house.pools.change(ANA, q, PoolFields(name="p"))
        assert refused.value.field == "name"
        with pytest.raises(Conflict):
            await _pool(house, "p", ["a"])

    _run(tmp_path, work)


@pytest.mark.parametrize(
    "settings", [{"tiers": "a"}, {"tiers": [["?"], 1]}, {"tiers": [], "floor": "many"}, {}]
)
def test_a_pool_of_another_release_stops_a_process_or_goes_unnoticed(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    async def work(house: House) -> None:
        await _relays(house, "a")
        row = await house.pools.add(ANA, NewPool(name="odd", tiers=[["a"]]))
        broken = msgspec.structs.replace(row, settings=settings)
        await house.store.put(broken, actor="t", action="later release")
        await house.directory.refresh()
        assert house.pools.load_all() == [Pool(name="odd", tiers=())]
        assert alarm("pool_unusable:odd").raised
        await house.pools.change(ANA, row.id, PoolFields(tiers=[["a"]], floor=None))
        assert len(house.pools.load_all()[0].tiers) == 1
        assert not alarm("pool_unusable:odd").raised

    _run(tmp_path, work)


# --- routes -----------------------------------------------------------------------------------


def test_a_route_reaches_dispatch_otherwise_than_it_was_written(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await _relays(house, "a")
        p = await _pool(house, "p", ["a"])
        given = NewRoute(
            name="r", pool=text(p), project="bob", stream="broadcast",
            sender_domain="*.Bücher.test", recipient_domain="Example.COM", tag="kind=x",
        )  # fmt: skip
        row = await house.routes.add(ANA, given)
        whole = Route(
            name="r", pool="p", project=2, stream="broadcast",
            sender_domain="*.xn--bcher-kva.test", recipient_domain="example.com",
            tag=("kind", "x"),
        )  # fmt: skip
        assert house.routes.load_all() == [whole]
        await house.routes.change(
            ANA, row.id, RouteFields(project=None, tag="kind", sender_domain=None)
        )
        assert house.routes.load_all() == [
            Route(name="r", pool="p", stream="broadcast", recipient_domain="example.com",
                  tag=("kind", None))
        ]  # fmt: skip

    _run(tmp_path, work)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"pool": "nowhere"}, "pool"),
        ({"project": 9}, "project"),
        ({"project": "nobody"}, "project"),
        ({"stream": ""}, "stream"),
        ({"stream": "a\x00b"}, "stream"),
        ({"sender_domain": "*."}, "sender_domain"),
        ({"sender_domain": "*.*.x.test"}, "sender_domain"),
        ({"sender_domain": "*"}, "sender_domain"),
        ({"recipient_domain": "a@b.test"}, "recipient_domain"),
        ({"recipient_domain": "x.test\r\n"}, "recipient_domain"),
        ({"recipient_domain": "*.com"}, "recipient_domain"),
        ({"tag": ""}, "tag"),
        ({"tag": "="}, "tag"),
        ({"tag": "a=b=c"}, "tag"),
        ({"tag": "a b"}, "tag"),
        ({"tag": "k\n"}, "tag"),
        ({"tag": "x" * 257}, "tag"),
        ({"position": 0}, "position"),
        ({"position": 10**9}, "position"),
        ({"name": ""}, "name"),
    ],
)
def test_a_bad_route_is_kept(tmp_path: Path, given: dict[str, Any], field: str) -> None:
    async def work(house: House) -> None:
        await _relays(house, "a")
        await _pool(house, "p", ["a"])
        good: dict[str, Any] = {"name": "r", "pool": "p"}
        with pytest.raises((Invalid, Missing)) as refused:
            await house.routes.add(ANA, NewRoute(**{**good, **given}))
        assert refused.value.field == field
        row = await house.routes.add(ANA, NewRoute(**good))
        with pytest.raises((Invalid, Missing)) as refused:
            await house.routes.change(ANA, row.id, RouteFields(**given))
        assert refused.value.field == field
        assert await house.store.routes() == [row]

    _run(tmp_path, work)


def test_routes_are_tried_in_another_order_than_they_are_listed(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await _relays(house, "a")
        await _pool(house, "p", ["a"])

        def order() -> list[str]:
            rows = house.routes.list(ANA)
            assert [row.position for row in rows] == list(range(1, len(rows) + 1))
            assert [route.name for route in house.routes.load_all()] == [r.name for r in rows]
            return [row.name for row in rows]

        ids = {}
        for name, position in (("a", None), ("b", None), ("c", 1), ("d", 2), ("e", 99)):
            given = NewRoute(name=name, pool="p", position=position)
            ids[name] = (await house.routes.add(ANA, given)).id
        assert order() == ["c", "d", "a", "b", "e"]
        await house.routes.change(ANA, ids["e"], RouteFields(position=1))
        assert order() == ["e", "c", "d", "a", "b"]
        await house.routes.change(ANA, ids["e"], RouteFields(position=3, stream="broadcast"))
        assert order() == ["c", "d", "e", "a", "b"]
        await house.routes.remove(ANA, ids["d"])
        assert order() == ["c", "e", "a", "b"]
        assert not await house.routes.remove(ANA, ids["d"])
        before = await house.store.revision()
        await house.routes.change(ANA, ids["e"], RouteFields(position=2, pool="p"))
        assert await house.store.revision() == before

    _run(tmp_path, work)


def test_explain_says_another_way_than_the_mail_takes(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await _relays(house, "a")
        for name in ("p", "q"):
            await _pool(house, name, ["a"])
        await house.routes.add(ANA, NewRoute(name="r", pool="p", recipient_domain="*.x.test"))

        def way(domain: str, stream: str = "transactional") -> Way:
            return house.routes.explain(
                ANA, project=1, stream=stream, sender_domain="me.test", recipient_domain=domain,
                tags=(),
            )  # fmt: skip

        assert way("a.x.test") == Way("p", "r", by_stream=False)
        assert way("x.test") == Way("default", None, by_stream=False)
        await house.set_stream_pool("q")
        assert way("x.test") == Way("q", None, by_stream=True)
        assert way("a.x.test") == Way("p", "r", by_stream=False)
        assert way("x.test", "broadcast") == Way("default", None, by_stream=False)

    _run(tmp_path, work)


def test_a_route_of_another_release_stops_a_process_or_goes_unnoticed(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await _relays(house, "a")
        await _pool(house, "p", ["a"])
        row = await house.routes.add(ANA, NewRoute(name="odd", pool="p"))
        await house.routes.add(ANA, NewRoute(name="fine", pool="p"))
        # A condition that is not known must not be passed over: the route would fit too much.
        for settings in ({"tag": "later form"}, {"stream": "broadcast", "hour": 7}):
            broken = msgspec.structs.replace(row, settings=settings)
            await house.store.put(broken, actor="t", action="later release")
            await house.directory.refresh()
            assert [route.name for route in house.routes.load_all()] == ["fine"]
            assert alarm("route_unusable:odd").raised
        await house.routes.remove(ANA, row.id)
        house.routes.load_all()
        assert not alarm("route_unusable:odd").raised

    _run(tmp_path, work)


def test_a_route_goes_to_a_pool_without_relays(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        (a,) = await _relays(house, "a")
        await _pool(house, "p", ["a"])
        await house.relays.remove(ANA, a)
        with pytest.raises(Conflict, match="has no relays"):
            await house.routes.add(ANA, NewRoute(name="r", pool="p"))

    _run(tmp_path, work)


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_sees_or_changes_pools_or_routes(tmp_path: Path, stranger: Any) -> None:
    async def work(house: House) -> None:
        await _relays(house, "a")
        pool = await _pool(house, "p", ["a"])
        route = (await house.routes.add(ANA, NewRoute(name="r", pool="p"))).id
        for call in (
            house.pools.add(stranger, NewPool(name="q", tiers=[["a"]])),
            house.pools.change(stranger, pool, PoolFields(floor=0)),
            house.pools.remove(stranger, pool),
            house.routes.add(stranger, NewRoute(name="s", pool="p")),
            house.routes.change(stranger, route, RouteFields(position=1)),
            house.routes.remove(stranger, route),
        ):
            with pytest.raises(Forbidden):
                await call
        for read in (
            lambda: house.pools.list(stranger), lambda: house.pools.get(stranger, pool),
            lambda: house.routes.list(stranger), lambda: house.routes.get(stranger, route),
        ):  # fmt: skip
            with pytest.raises(Forbidden):
                read()
        with pytest.raises(Forbidden):
            house.routes.explain(
                stranger, project=1, stream="s", sender_domain="a.test",
                recipient_domain="b.test", tags=(),
            )  # fmt: skip

    _run(tmp_path, work)


def test_what_is_not_there_is_found(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        none = bytes(16)
        with pytest.raises(NotFound):
            house.pools.get(ANA, none)
        with pytest.raises(NotFound):
            house.routes.get(ANA, none)
        with pytest.raises(NotFound):
            await house.pools.change(ANA, none, PoolFields(floor=1))
        with pytest.raises(NotFound):
            await house.routes.change(ANA, none, RouteFields(position=1))
        assert not await house.pools.remove(ANA, none)

    _run(tmp_path, work)
