"""What users manage: put, read back, drop; who did it; and nothing secret in the audit."""

import asyncio

import msgspec
import pytest

from everpost.ids import text
from everpost.model.errors import Conflict
from everpost.model.message import Assurance
from everpost.model.states import InDoubtPolicy
from everpost.store.directory import Directory
from everpost.store.interface import (
    ApiKeyRow,
    Change,
    DkimKeyRow,
    DomainRow,
    PoolRow,
    ProjectRow,
    RelayRow,
    RouteRow,
    StreamRow,
)
from tests.conformance.engines import Engine
from tests.conformance.making import START, make_id

CANARY = b"canary-of-a-secret"


def _api_key(**fields: object) -> ApiKeyRow:
    row = ApiKeyRow(
        id=make_id(), project=1, public_id="p1", name="first", permission="full_access",
        hash=CANARY, created_at=START,
    )  # fmt: skip
    return msgspec.structs.replace(row, **fields)


def _domain(name: str = "example.test") -> DomainRow:
    return DomainRow(
        id=make_id(), project=1, name=name, status="pending", signing="sign", trusted=False,
        created_at=START,
    )  # fmt: skip


def _dkim(domain: DomainRow) -> DkimKeyRow:
    return DkimKeyRow(
        id=make_id(), domain=domain.id, selector="s1", algorithm="rsa-sha256", key_id=3,
        sealed=CANARY, public="MIIB", active=True, created_at=START,
    )  # fmt: skip


def _relay(name: str = "r1") -> RelayRow:
    return RelayRow(
        id=make_id(), name=name, host="mx.test", port=25, state="enabled",
        settings={"tls": "require", "password": CANARY.decode(), "helo": None}, key_id=3,
        password=CANARY, created_at=START,
    )  # fmt: skip


def test_rows_come_back_as_they_were_put(engine: Engine) -> None:
    key, domain, relay = _api_key(domain=make_id(), sandbox=True), _domain(), _relay()
    dkim = _dkim(domain)
    project = ProjectRow(
        id=2, name="second", sandbox=True, created_at=START, durability=Assurance.COMMITTED
    )
    stream = StreamRow(
        2, "alerts", "transactional", InDoubtPolicy.HOLD, 1000, 10, 100, "pool",
        durability=Assurance.REPLICATED,
    )  # fmt: skip

    async def scene() -> None:
        async with engine.opened() as store, engine.opened() as other:
            before = await store.revision()
            for row in (key, domain, dkim, relay, project, stream):
                await store.put(row, actor="tester", action="test.put")
            assert await other.revision() == before + 6
            assert list(await other.api_keys()) == [key]
            assert list(await other.domains()) == [domain]
            assert list(await other.dkim_keys()) == [dkim]
            assert list(await other.relays()) == [relay]
            assert (await other.projects())[-1] == project
            assert stream in await other.streams()
            revoked = msgspec.structs.replace(key, revoked_at=START + 1, name="renamed")
            await store.put(revoked, actor="tester", action="test.revoke")
            assert list(await other.api_keys()) == [revoked]

    asyncio.run(scene())


def test_a_name_that_is_taken(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            relay = _relay()
            await store.put(relay, actor="t", action="relay.add")
            before = await store.revision()
            taken = asyncio.ensure_future(store.put(_relay(), actor="t", action="relay.add"))
            beside = asyncio.ensure_future(store.put(_domain(), actor="t", action="domain.add"))
            await asyncio.wait([taken, beside])
            error = taken.exception()
            assert isinstance(error, Conflict)
            assert "relay" in error.message
            assert "r1" in error.message
            assert beside.exception() is None
            assert await store.revision() == before + 1
            assert [a["action"] for a in await store.audit(limit=9)] == ["domain.add", "relay.add"]
            await store.put(_api_key(), actor="t", action="k")
            with pytest.raises(Conflict) as raised:
                await store.put(_api_key(public_id="p2"), actor="t", action="k")
            assert CANARY.decode() not in raised.value.message

    asyncio.run(scene())


def test_a_dkim_key_without_its_domain(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            with pytest.raises(Conflict):
                await store.put(_dkim(_domain()), actor="t", action="dkim_key.add")

    asyncio.run(scene())


def test_a_domain_takes_its_keys_along(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            domain = _domain()
            await store.put(domain, actor="t", action="domain.add")
            await store.put(_dkim(domain), actor="t", action="dkim_key.add")
            assert await store.drop("domain", domain.id, actor="t", action="domain.remove")
            assert list(await store.dkim_keys()) == []
            before = await store.revision()
            assert not await store.drop("domain", domain.id, actor="t", action="domain.remove")
            assert await store.revision() == before
            with pytest.raises(ValueError, match="audit"):
                await store.drop("audit", domain.id, actor="t", action="x")

    asyncio.run(scene())


def test_the_audit_tells_who_did_what_and_no_secret(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            domain = _domain()
            rows = (_api_key(), domain, _dkim(domain), _relay())
            for row in rows:
                await store.put(row, actor="key:p1", action="test.put")
            entries = await store.audit(limit=3)
            assert [e["kind"] for e in entries] == ["relay", "dkim_key", "domain"]
            assert entries[0]["actor"] == "key:p1"
            assert entries[0]["detail"]["settings"] == {"tls": "require", "helo": None}
            told = repr(await store.audit(limit=99))
            assert CANARY.decode() not in told
            assert CANARY.hex() not in told

    asyncio.run(scene())


def test_the_audit_goes_on_where_a_page_ended(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            for n in range(5):
                await store.put(_domain(f"d{n}.test"), actor="t", action=f"a{n}")
            every = [e["position"] for e in await store.audit(limit=99)]
            assert every == sorted(every, reverse=True)

            async def page(**given: int) -> list[int]:
                return [e["position"] for e in await store.audit(limit=2, **given)]

            assert await page() == every[:2]
            assert await page(after=every[1]) == every[2:4]
            assert await page(after=every[4]) == []
            assert await page(before=every[4]) == every[2:4]
            assert await page(before=every[0]) == []
            assert await page(after=every[0] + 100) == every[:2]  # a place, not a row

    asyncio.run(scene())


def test_another_process_sees_the_change(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store, engine.opened() as other:
            directory = Directory(other)
            assert await directory.refresh()
            assert not await directory.refresh()
            await store.put(_relay(), actor="t", action="relay.add")
            assert await directory.refresh()
            assert [r.name for r in directory.now.relays] == ["r1"]

    asyncio.run(scene())


def test_data_keys_are_numbered_by_the_store(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store, engine.opened() as other:
            ids = await asyncio.gather(
                *(s.add_data_key(1, bytes([i])) for i, s in enumerate((store, other) * 3))
            )
            assert len(set(ids)) == 6
            rows = await store.data_keys()
            assert {id_ for id_, _, _ in rows} == set(ids)
            assert {wrapped for _, _, wrapped in rows} == {bytes([i]) for i in range(6)}

    asyncio.run(scene())


# --- pools and routes -----------------------------------------------------------------------------


def _pool(name: str = "fast", *relays: RelayRow) -> PoolRow:
    tiers = [[text(relay.id) for relay in relays]]
    return PoolRow(make_id(), name, {"tiers": tiers, "floor": 1}, START)


def _route(pool: PoolRow, name: str = "to-fast", position: int = 1) -> RouteRow:
    return RouteRow(make_id(), name, position, pool.id, {"stream": "broadcast"}, START)


def test_pools_and_routes_come_back_as_they_were_put(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store, engine.opened() as other:
            pool, relay = _pool("fast", _relay()), _relay("r2")
            later, sooner = _route(pool, "b", 2), _route(pool, "a", 1)
            project = ProjectRow(2, "second", sandbox=False, created_at=START, weight=7)
            before = await store.revision()
            await store.change(
                [Change("test.put", row) for row in (relay, pool, later, sooner, project)],
                actor="tester",
            )
            assert await other.revision() == before + 5
            assert list(await other.pools()) == [pool]
            assert list(await other.routes()) == [sooner, later]
            assert (await other.projects())[-1] == project
            moved = msgspec.structs.replace(later, position=0, settings={"tag": ["x", None]})
            await store.put(moved, actor="tester", action="route.update")
            assert list(await other.routes()) == [moved, sooner]

    asyncio.run(scene())


def test_a_pool_that_a_route_needs_stays(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            pool = _pool()
            route = _route(pool)
            await store.put(pool, actor="t", action="pool.add")
            await store.put(route, actor="t", action="route.add")
            before = await store.revision()
            with pytest.raises(Conflict, match="pool"):
                await store.drop("pool", pool.id, actor="t", action="pool.remove")
            assert list(await store.pools()) == [pool]
            assert await store.revision() == before
            assert await store.drop("route", route.id, actor="t", action="route.remove")
            assert await store.drop("pool", pool.id, actor="t", action="pool.remove")
            assert [*await store.pools(), *await store.routes()] == []
            with pytest.raises(Conflict):
                await store.put(route, actor="t", action="route.add")

    asyncio.run(scene())


def test_a_change_that_fails_in_its_last_step_changes_nothing(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            pool, other_pool = _pool(), _pool("other")
            await store.put(pool, actor="t", action="pool.add")
            route = _route(pool)
            await store.put(route, actor="t", action="route.add")
            before = await store.revision()
            failing = store.change(
                [
                    Change("pool.add", other_pool),
                    Change("relay.add", _relay()),
                    Change("pool.remove", drop=("pool", pool.id)),
                ],
                actor="t",
            )
            # Another caller's work of the same moment stands.
            failed, _ = await asyncio.gather(
                failing, store.put(_domain(), actor="t", action="d"), return_exceptions=True
            )
            assert isinstance(failed, Conflict)
            assert list(await store.pools()) == [pool]
            assert list(await store.relays()) == []
            assert await store.revision() == before + 1
            actions = [entry["action"] for entry in await store.audit(limit=9)]
            assert actions == ["d", "route.add", "pool.add"]

    asyncio.run(scene())


def test_a_change_runs_in_order_and_writes_an_audit_row_a_step(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            pool = _pool()
            route = _route(pool)
            before = await store.revision()
            await store.change(
                [
                    Change("pool.add", pool),
                    Change("route.add", route),
                    Change("route.remove", drop=("route", route.id)),
                    Change("route.remove", drop=("route", make_id())),  # is not there
                    Change("pool.remove", drop=("pool", pool.id)),
                ],
                actor="apply",
            )
            assert [*await store.pools(), *await store.routes()] == []
            entries = await store.audit(limit=9)
            assert [(e["action"], e["kind"], e["actor"]) for e in entries] == [
                ("pool.remove", "pool", "apply"),
                ("route.remove", "route", "apply"),
                ("route.add", "route", "apply"),
                ("pool.add", "pool", "apply"),
            ]
            assert await store.revision() == before + 4
            await store.change([], actor="apply")
            assert await store.revision() == before + 4

    asyncio.run(scene())
