"""The nodes of a service and how its store does, as an operator sees them."""

from everpost.store.cluster import NodeRow, StoreState
from everpost.store.interface import Note
from tests.unit.api.conftest import NOW, Door

ONE = NodeRow("one", "north", "1.2", "http://one:1", ("api", "dispatch"), NOW - 9_000, NOW - 2_000)
TWO = NodeRow("two", "south", "1.1", "", ("dispatch",), NOW - 9_000, NOW - 10_000, skew_ms=-1_500)


def test_a_silent_node_is_shown_as_gone(door: Door) -> None:
    door.store.there = [ONE, TWO]
    leads = Note("leader", "upkeep", {"node": "one", "term": 3}, NOW + 1)
    door.store.notes = [leads]
    rows = door.ask("GET", "/nodes").json["data"]
    assert [(row["name"], row["state"], row["leader"]) for row in rows] == [
        ("one", "up", True),
        ("two", "gone", False),
    ]
    assert rows[0]["address"] == "http://one:1"
    assert (rows[1]["address"], rows[1]["clock_skew_seconds"]) == (None, -1.5)


def test_a_node_that_is_gone_for_good_is_forgotten(door: Door) -> None:
    door.store.there = [ONE, TWO]
    assert door.ask("DELETE", "/nodes/two").json == {
        "object": "node",
        "id": "two",
        "deleted": True,
    }
    assert door.store.there == [ONE]
    assert door.ask("DELETE", "/nodes/two").status == 404


def test_only_an_operator_sees_and_forgets_nodes(door: Door) -> None:
    made = door.ask("POST", "/api-keys", {"name": "s", "permission": "sending_access"}).json
    for method, path in (("GET", "/nodes"), ("DELETE", "/nodes/one")):
        assert door.ask(method, path, key=made["token"]).status == 401
        assert door.ask(method, path, key=None).status == 401


def test_the_status_tells_how_the_store_stands(door: Door) -> None:
    door.store.there = [ONE]
    door.store.standing = StoreState(
        durable=False, problems=("fsync is off",), timeline=4, standbys=1
    )
    status = door.ask("GET", "/status").json
    assert [node["name"] for node in status["nodes"]] == ["one"]
    assert status["store"] == {
        "engine": "sqlite",
        "reachable": True,
        "writable": True,
        "durable": False,
        "problems": ["fsync is off"],
        "timeline": 4,
        "standbys": 1,
    }
