"""A document of what there should be: applied whole or not at all, and once."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from everpost.catalog.fields import Document, NewRelay, RelayFields
from everpost.model.credential import SENDING_ACCESS, Credential
from everpost.model.errors import Conflict, Forbidden, Refusal
from tests.support.catalog_house import ANA, BOB, House, opened

WHOLE: dict[str, Any] = {
    "relays": [
        {"name": "a", "url": "smtp://me@a.test", "password": "canary-1", "weight": 2},
        {"name": "b", "url": "smtps://b.test", "messages_per_minute": 100},
        {"name": "out", "url": "mx", "source": ["192.0.2.1"], "warmup": [50, 100]},
    ],
    "pools": [
        {"name": "main", "tiers": [["a", "b"], ["out"]], "floor": 2},
        {"name": "bulk", "tiers": [["out"]], "spill_below": 0.25},
    ],
    "routes": [
        {"name": "to-x", "pool": "main", "recipient_domain": "*.x.test"},
        {"name": "bulk", "pool": "bulk", "stream": "broadcast", "tag": "kind=news"},
    ],
    "streams": [{"name": "transactional", "pool": "main", "weight": 3}],
    "projects": [{"name": "bob", "weight": 2, "durability": "committed"}],
}


def _run(folder: Path, work: Callable[[House], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(folder) as house:
            await work(house)

    asyncio.run(run())


def _with(**changed: Any) -> dict[str, Any]:
    return {**WHOLE, **changed}


async def _apply(
    house: House, document: dict[str, Any], *, prune: bool = False, dry_run: bool = False
) -> list[tuple[str, str, str, dict[str, tuple[Any, Any]]]]:
    """(change, kind, name, {field: (was, now)})."""
    found = await house.applier.apply(
        ANA, msgspec.convert(document, Document), prune=prune, dry_run=dry_run
    )
    return [(d.change, d.kind, d.name, {f.field: (f.was, f.now) for f in d.fields}) for d in found]


async def _everything(house: House) -> list[Any]:
    store = house.store
    return [
        await store.relays(), await store.pools(), await store.routes(), await store.streams(),
        await store.projects(), await store.revision(),
    ]  # fmt: skip


def test_a_document_changes_something_when_it_is_applied_again(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        found = await _apply(house, WHOLE)
        assert [(change, kind, name) for change, kind, name, _ in found] == [
            ("added", "relay", "a"), ("added", "relay", "b"), ("added", "relay", "out"),
            ("added", "pool", "main"), ("added", "pool", "bulk"), ("added", "route", "to-x"),
            ("added", "route", "bulk"), ("changed", "stream", "1/transactional"),
            ("changed", "project", "bob"),
        ]  # fmt: skip
        house.time.at += 86_400_000
        before = await _everything(house)
        assert await _apply(house, WHOLE) == []
        assert await _apply(house, WHOLE, prune=True) == []
        assert await _everything(house) == before
        assert "canary" not in repr(found) + repr(await house.store.audit(limit=100))
        assert [relay.password for relay in house.relays.load_all()] == ["canary-1", None, None]

    _run(tmp_path, work)


def test_a_changed_document_changes_more_than_the_difference_shows(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await _apply(house, WHOLE)
        relays, pools, routes, *_ = await _everything(house)
        changed = _with(
            relays=[
                {"name": "a", "url": "smtp://me@a.test", "password": "canary-2", "weight": 5},
                *WHOLE["relays"][1:],
            ],
            pools=[{"name": "main", "tiers": [["a"], ["b", "out"]]}, WHOLE["pools"][1]],
            routes=[WHOLE["routes"][1], WHOLE["routes"][0]],
        )
        wanted = [
            ("changed", "relay", "a", {"weight": (2, 5), "password": ("set", "changed")}),
            ("changed", "pool", "main", {
                "tiers": ([["a", "b"], ["out"]], [["a"], ["b", "out"]]), "floor": (2, None),
            }),
            ("changed", "route", "bulk", {"position": (2, 1)}),
            ("changed", "route", "to-x", {"position": (1, 2)}),
        ]  # fmt: skip
        before = await _everything(house)
        assert await _apply(house, changed, dry_run=True) == wanted
        assert await _everything(house) == before
        assert await _apply(house, changed) == wanted
        now = await _everything(house)
        assert [row.id for row in now[0]] == [row.id for row in relays]
        assert now[0][1:] == relays[1:]
        assert now[1][1:] == pools[1:]
        assert [row.name for row in now[2]] == ["bulk", "to-x"]
        assert {row.id for row in now[2]} == {row.id for row in routes}
        assert now[3:5] == before[3:5]
        actions = [action for _, action in await house.audited()][:4]
        assert actions == ["route.change", "route.change", "pool.change", "relay.change"]

    _run(tmp_path, work)


def test_what_the_file_does_not_name_is_pruned_or_left_as_asked(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await _apply(house, WHOLE)
        less = {
            "relays": WHOLE["relays"][:2],
            "pools": [{"name": "main", "tiers": [["a", "b"]]}],
            "routes": [WHOLE["routes"][0]],
        }
        kept = await _apply(house, less)
        assert [(change, name) for change, _, name, _ in kept] == [("changed", "main")]
        gone = await _apply(house, less, prune=True)
        assert {(change, kind, name) for change, kind, name, _ in gone} == {
            ("removed", "relay", "out"), ("removed", "pool", "bulk"), ("removed", "route", "bulk"),
        }  # fmt: skip
        assert await _apply(house, {"routes": []}, prune=True) == [("removed", "route", "to-x", {})]
        assert len(await house.store.relays()) == 2  # nobody spoke of relays

    _run(tmp_path, work)


def test_a_pruned_relay_stays_in_a_pool(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await _apply(house, WHOLE)
        with pytest.raises(Conflict, match="bulk would be left without a relay"):
            await _apply(house, {"relays": WHOLE["relays"][:2]}, prune=True)
        found = await _apply(house, {"relays": WHOLE["relays"][1:], "streams": []}, prune=True)
        assert [(change, name) for change, _, name, _ in found] == [
            ("removed", "a"), ("changed", "main"),
        ]  # fmt: skip
        assert found[1][3] == {"tiers": ([["a", "b"], ["out"]], [["b"], ["out"]])}
        with pytest.raises(Conflict, match="main is not in `pools`, but is used by route to-x"):
            await _apply(house, {"pools": [WHOLE["pools"][1]]}, prune=True)

    _run(tmp_path, work)


@pytest.mark.parametrize(
    ("document", "place"),
    [
        (_with(relays=[*WHOLE["relays"], {"name": "c", "url": "mx", "weight": -1}]),
         "relays[3].weight"),
        ({"relays": [{"name": "c", "url": "smtp://c.test", "tls": "verify", "port": 26}]},
         "relays[0].port"),
        ({"relays": [{"url": "smtp://c.test"}]}, "relays[0].name"),
        ({"relays": [{"name": "c", "url": "smtp://c.test"}, {"name": "c", "url": "mx"}]},
         "relays[1].name"),
        ({"relays": [{"name": "c", "url": "smtp://me@c.test"}]}, "relays[0].password"),
        ({"relays": [{"name": "c", "url": "smtp://c.test"}],
          "pools": [{"name": "p", "tiers": [["c"]]}, {"name": "q", "tiers": [["d"]]}]},
         "pools[1].tiers"),
        ({"routes": [{"name": "r", "pool": "nowhere"}]}, "routes[0].pool"),
        (_with(routes=[*WHOLE["routes"], {"name": "x", "pool": "main", "position": 1}]),
         "routes[2].position"),
        (_with(routes=[WHOLE["routes"][0], WHOLE["routes"][0]]), "routes[1].name"),
        (_with(streams=[{"name": "nothing"}]), "streams[0].name"),
        (_with(streams=[{"name": "broadcast", "project": "nobody"}]), "streams[0].project"),
        (_with(streams=[{"name": "broadcast"}, {"name": "broadcast", "project": 1}]),
         "streams[1].name"),
        (_with(projects=[{"name": "bob", "weight": 0}]), "projects[0].weight"),
        (_with(projects=[{"name": "carl"}]), "projects[0].name"),
    ],
)  # fmt: skip
def test_a_bad_document_changes_something_or_its_place_is_not_named(
    tmp_path: Path, document: dict[str, Any], place: str
) -> None:
    async def work(house: House) -> None:
        for _ in range(2):  # first on an empty server, then on one that has it all
            before = await _everything(house)
            with pytest.raises(Refusal) as refused:
                await _apply(house, document)
            assert refused.value.field == place
            assert f"`{place}`" in refused.value.message
            assert await _everything(house) == before
            await _apply(house, WHOLE)

    _run(tmp_path, work)


@pytest.mark.parametrize(
    ("kind", "most", "entry"),
    [
        ("relays", 10_000, {"url": "smtp://h.test"}),
        ("pools", 1_000, {"tiers": [["a"]]}),
        ("routes", 10_000, {"pool": "main"}),
    ],
)
def test_a_document_of_too_many_is_judged_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, most: int, entry: dict[str, Any]
) -> None:
    async def work(house: House) -> None:
        await _apply(house, WHOLE)
        before = await _everything(house)
        document = {kind: [{"name": str(n), **entry} for n in range(most + 1)]}
        with monkeypatch.context() as patched:
            for reader in ("read_form", "read_pool", "read_route"):
                patched.delattr(f"everpost.catalog.plan.{reader}")  # nothing is judged
            with pytest.raises(Refusal) as refused:
                await _apply(house, document)
        assert refused.value.field == kind
        assert await _everything(house) == before

    _run(tmp_path, work)


def test_a_document_adds_to_what_is_there_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(house: House) -> None:
        await _apply(house, WHOLE)
        monkeypatch.setattr("everpost.catalog.plan.MOST_ROUTES", 2)
        more = {"routes": [{"name": "third", "pool": "main"}]}
        with pytest.raises(Refusal) as refused:
            await _apply(house, more)
        assert refused.value.field == "routes"
        assert len(await house.store.routes()) == 2
        await _apply(house, more, prune=True)
        assert [row.name for row in await house.store.routes()] == ["third"]

    _run(tmp_path, work)


def test_applying_undoes_a_drain_or_a_first_day(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await _apply(house, WHOLE)
        rows = {row.name: row for row in await house.store.relays()}
        await house.relays.change(ANA, rows["b"].id, RelayFields(state="draining"))
        house.time.at += 5 * 86_400_000
        assert await _apply(house, WHOLE) == []
        again = {row.name: row for row in await house.store.relays()}
        assert again["b"].state == "draining"
        assert again["out"].settings == rows["out"].settings
        on = [{**WHOLE["relays"][1], "state": "enabled"}]
        assert await _apply(house, {"relays": on}) == [
            ("changed", "relay", "b", {"state": ("draining", "enabled")})
        ]

    _run(tmp_path, work)


def test_a_file_without_the_password_keeps_it_for_its_host_alone(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        await house.relays.add(ANA, NewRelay(url="smtp://me:canary@a.test", name="a"))
        assert await _apply(house, {"relays": [{"name": "a", "url": "smtp://me@a.test"}]}) == []
        with pytest.raises(Refusal) as refused:
            await _apply(house, {"relays": [{"name": "a", "url": "smtp://me@evil.test"}]})
        assert refused.value.field == "relays[0].password"
        found = await _apply(house, {"relays": [{"name": "a", "url": "smtp://a.test:587"}]})
        assert found[0][3]["password"] == ("set", None)

    _run(tmp_path, work)


def test_a_store_that_refuses_halfway_keeps_the_first_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(house: House) -> None:
        async def stale() -> list[Any]:
            return []

        await _apply(house, WHOLE)
        before = await _everything(house)
        document = _with(relays=[{"name": "new", "url": "smtp://new.test"}, *WHOLE["relays"]])
        with monkeypatch.context() as patched:
            # Another process made the pools after we looked.
            patched.setattr(house.store, "pools", stale)
            with pytest.raises(Conflict):
                await _apply(house, document)
        assert await _everything(house) == before

    _run(tmp_path, work)


@pytest.mark.parametrize(
    "stranger", [msgspec.structs.replace(ANA, permission=SENDING_ACCESS), BOB,
                 msgspec.structs.replace(ANA, sandbox=True)],
    ids=["sending key", "another project", "sandbox key"],
)  # fmt: skip
def test_a_stranger_applies_a_document(tmp_path: Path, stranger: Credential) -> None:
    async def work(house: House) -> None:
        document = msgspec.convert(WHOLE, Document)
        for dry_run in (True, False):
            with pytest.raises(Forbidden):
                await house.applier.apply(stranger, document, prune=True, dry_run=dry_run)

    _run(tmp_path, work)
