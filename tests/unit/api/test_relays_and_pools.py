"""Relays, pools, routes, streams and documents over HTTP: what goes in, and what is shown."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from everpost.ids import parse, text
from everpost.model.health import CircuitState, Health, Standing
from everpost.store.interface import Note
from tests.support.hostile import GOOD, SETTINGS
from tests.unit.api.conftest import NOW, Door

RELAY = {
    "url": "smtp://me@relay.test", "name": "second", "password": "hunter2", "weight": 4,
    "messages_per_second": 5, "messages_per_minute": 100, "messages_per_day": 1000,
    "messages_per_connection": 50, "probe": False, "probe_sender": "p@example.com",
    "connections": 3, "tls": "require", "site": "a", "helo": "me.test", "auth": "plain",
    "eight_bit": True, "source": ["192.0.2.1"], "signed_headers": ["from"], "state": "disabled",
}  # fmt: skip
MX = {
    "url": "mx", "name": "out", "warmup": [50, 100], "warmup_from": "2026-11-25",
    "destination_connections": 4, "allow_private": True, "port": 2525,
}  # fmt: skip


def _id(door: Door, noun: str, n: int = 0) -> str:
    return str(door.ask("GET", f"/{noun}").json["data"][n]["id"])


def test_a_setting_goes_in_and_is_not_shown(door: Door) -> None:
    for body in (RELAY, MX):
        made = door.ask("POST", "/relays", body)
        assert made.status == 200, made.body
        shown = {name: made.json[name] for name in body if name not in {"url", "password"}}
        wanted: dict[str, Any] = {n: v for n, v in body.items() if n not in {"url", "password"}}
        if "auth" in wanted:
            wanted["auth"] = "PLAIN"
        if "warmup_from" in wanted:
            wanted["warmup_from"] = "2026-11-25T00:00:00.000Z"
        assert shown == wanted
        again = door.ask("GET", f"/relays/{made.json['id']}").json
        assert {**made.json, "status": again["status"]} == again


@pytest.mark.parametrize("field", [n for n in (*RELAY, *MX) if n not in {"url", "name"}])
def test_a_setting_of_another_type_is_kept_or_not_named(door: Door, field: str) -> None:
    before = door.ask("GET", "/relays").json
    id_ = before["data"][0]["id"]
    for wrong in ({"a": 1}, "\ud800" if field == "password" else [[1]], 1.5):
        for method, path, body in (
            ("POST", "/relays", {"url": "smtp://x.test", field: wrong}),
            ("PATCH", f"/relays/{id_}", {field: wrong}),
            ("POST", "/apply", {"relays": [{"url": "mx", "name": "x", field: wrong}]}),
        ):
            answer = door.ask(method, path, body)
            assert answer.status in {400, 422}, (method, wrong, answer.body)
            if answer.status == 422:
                place = f"relays[0].{field}" if path == "/apply" else field
                assert f"`{place}" in answer.json["message"], answer.body
    assert door.ask("GET", "/relays").json == before


def test_a_hostile_setting_is_kept_or_its_field_is_not_named(door: Door) -> None:
    wrong = []
    for row in SETTINGS:
        accepts = [(row.path, {**GOOD[row.path], row.field: row.value}, f"`{row.field}")]
        noun = row.path[1:]
        if noun in {"relays", "pools", "routes"}:
            named = {"name": "x", **GOOD[row.path], row.field: row.value}
            accepts.append(("/apply", {noun: [named]}, f"`{noun}[0].{row.field}"))
        for path, body, place in accepts:
            answer = door.ask("POST", path, body)
            if answer.status != 422 or place not in answer.json["message"]:
                wrong.append((str(row), path, answer.status, answer.body))
    assert not wrong
    for path, good in GOOD.items():
        assert door.ask("POST", path, good).status == 200


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/relays", {"url": "smtp://x.test"}),
        ("PATCH", "/relays/{relays}", {}),
        ("POST", "/relays/{relays}/test", {"to": "a@good.test"}),
        ("POST", "/pools", {"name": "p", "tiers": [["first"]]}),
        ("PATCH", "/pools/{pools}", {}),
        ("POST", "/routes", {"name": "r", "pool": "main"}),
        ("PATCH", "/routes/{routes}", {}),
        ("POST", "/routes/explain", {"from": "a@x.test", "to": "b@x.test"}),
        ("PATCH", "/streams/broadcast", {}),
        ("PATCH", "/projects/1", {}),
        ("POST", "/apply", {}),
    ],
)
@pytest.mark.parametrize(
    "extra", ["tenant_id", "status", "role", "relay_password", "created_at", "is_admin", "id"]
)
def test_a_field_that_is_none_is_assigned(
    door: Door, method: str, path: str, body: dict[str, Any], extra: str
) -> None:
    """S41."""
    ids = {noun: _id(door, noun) for noun in ("relays", "pools", "routes")}
    answer = door.ask(method, path.format(**ids), {**body, extra: 1})
    assert (answer.status, f"`{extra}`" in answer.json["message"]) == (422, True)


def test_a_relay_is_changed_by_more_than_what_is_said(door: Door) -> None:
    id_ = _id(door, "relays")
    before = door.ask("GET", f"/relays/{id_}").json
    changed = door.ask("PATCH", f"/relays/{id_}", {"weight": 9, "helo": "me.test"}).json
    assert {k for k in changed if changed[k] != before[k]} == {"weight", "helo"}
    assert door.ask("PATCH", f"/relays/{id_}", {"helo": None}).json["helo"] is None
    assert door.ask("PATCH", f"/relays/{id_}", {}).status == 200
    assert door.ask("PATCH", f"/relays/{id_}", {"url": "smtp://evil.test"}).status == 422


def test_a_pool_or_route_is_shown_otherwise_than_made(door: Door) -> None:
    made = door.ask("POST", "/pools", {"name": "p", "tiers": [["first"]], "floor": 0}).json
    assert (made["tiers"], made["spill_below"], made["floor"]) == ([["first"]], 0.5, 0)
    patched = door.ask("PATCH", f"/pools/{made['id']}", {"spill_below": 0, "floor": None}).json
    assert (patched["spill_below"], patched["floor"]) == (0.0, 1)
    assert door.ask("GET", f"/pools/{made['id']}").json == patched
    body = {
        "name": "r", "pool": made["id"], "position": 1, "tag": "a=b", "project": 1,
        "stream": "broadcast", "sender_domain": "*.x.test", "recipient_domain": "y.test",
    }  # fmt: skip
    route = door.ask("POST", "/routes", body).json
    assert {**route, **body, "pool": "p"} == route
    assert [row["name"] for row in door.ask("GET", "/routes").json["data"]] == ["r", "way"]
    moved = door.ask("PATCH", f"/routes/{route['id']}", {"position": 2, "tag": None}).json
    assert (moved["position"], moved["tag"]) == (2, None)
    assert door.ask("GET", "/routes?limit=1&after=1").json["data"] == [moved]
    first = door.ask("GET", "/routes?limit=1&before=3").json
    assert ([row["name"] for row in first["data"]], first["has_more"]) == (["r"], True)
    assert door.ask("DELETE", f"/pools/{made['id']}").status == 409
    assert door.ask("DELETE", f"/routes/{route['id']}").json["object"] == "route"
    assert door.ask("DELETE", f"/pools/{made['id']}").json["object"] == "pool"


def test_explain_is_told_and_says_why(door: Door) -> None:
    def way(**more: Any) -> Any:
        body = {"from": "N <a@example.com>", "to": "b@y.test", **more}
        return door.ask("POST", "/routes/explain", body).json

    assert way() == {
        "pool": "default", "because": "default", "route": None, "tiers": [["first"]],
        "object": "way",
    }  # fmt: skip
    tagged = way(tags=[{"name": "kind", "value": "x"}])
    assert (tagged["pool"], tagged["because"], tagged["route"]) == ("main", "route", "way")
    door.ask("PATCH", "/streams/broadcast", {"pool": "main"})
    assert way(stream="broadcast")["because"] == "stream"
    assert way(stream="broadcast", project=2)["because"] == "default"
    for wrong in ({"to": "nobody"}, {"from": ""}, {"project": "x"}, {"project": 9}):
        answer = door.ask(
            "POST", "/routes/explain", {"from": "a@x.test", "to": "b@y.test", **wrong}
        )
        assert (answer.status, f"`{next(iter(wrong))}`" in answer.json["message"]) == (422, True)


def test_projects_are_weighed_by_number(door: Door) -> None:
    assert [row["weight"] for row in door.ask("GET", "/projects").json["data"]] == [1, 1]
    assert door.ask("PATCH", "/projects/2", {"weight": 3}).json["weight"] == 3
    for unknown in ("3", "0", "-1", "two", "9" * 30, "%32%20"):
        assert door.ask("PATCH", f"/projects/{unknown}", {"weight": 3}).status == 404
    assert door.ask("PATCH", "/projects/2", {"weight": 0}).status == 422


# --- how relays do ----------------------------------------------------------------------------


def test_the_state_of_a_relay_nobody_knows_of_is_made_up(door: Door) -> None:
    (status,) = door.ask("GET", "/relays/status").json["data"]
    known = {name for name, value in status.items() if value not in (None, [])}
    assert known == {"id", "name", "state", "processes", "limits", "object"}
    assert (status["processes"], status["limits"]["connections"]) == (0, 20)


@pytest.mark.parametrize("path", ["/relays/status", "/relays/{id}"])
def test_a_relay_that_is_removed_while_its_notes_are_read_is_a_fault(
    door: Door, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    id_ = _id(door, "relays")

    async def meanwhile(kinds: Sequence[str], *, after: int = 0) -> tuple[int, Sequence[Note]]:
        door.directory.now = msgspec.structs.replace(door.directory.now, relays=())
        return 0, ()

    monkeypatch.setattr(door.store, "noted", meanwhile)
    answer = door.ask("GET", path.format(id=id_))
    assert (answer.status, id_ in str(answer.json)) == (200, True), answer.body


def test_the_state_of_a_relay_is_shown_as_noted(door: Door) -> None:
    id_ = _id(door, "relays")
    relay = parse(id_)
    assert relay is not None
    health = Health(relay=relay, state=CircuitState.OPEN, why="421 at greeting", since=NOW,
                    until=NOW + 5000, phase="greet", speaker="relay", ejections=3)  # fmt: skip
    standing = Standing(relay=relay, tried=4, worked=3, faults=1, in_flight=2, sessions=1,
                        latency_ms={"p50": 1.5})  # fmt: skip
    probe = {"at": NOW, "ok": False, "refusal": "421", "phase": "greet", "took_ms": 2.0,
             "next": NOW + 5000}  # fmt: skip
    cool = {"until": NOW + 60_000, "why": "4.7.0", "blocked": True}
    door.store.notes = [
        Note(kind, key, data, NOW + 1)
        for kind, key, data in (
            ("health", text(relay), msgspec.to_builtins(health)),
            ("report", "w", {"at": NOW, "relays": msgspec.to_builtins([standing])}),
            ("probe", text(relay), probe),
            ("canary", text(relay), {"at": NOW, "ok": True}),
            ("cooldown", f"{relay.hex()}/x.test", cool),
        )
    ]
    later = "2026-11-23T12:00:05.000Z"
    (status,) = door.ask("GET", "/relays/status").json["data"]
    assert status == door.ask("GET", f"/relays/{id_}").json["status"]
    assert (status["circuit"], status["why"], status["until"]) == ("open", "421 at greeting", later)
    assert (status["success_rate"], status["share"], status["connections"]) == (0.75, 1.0, 1)
    assert status["latency_ms"] == {"p50": 1.5, "p95": None, "p99": None}
    assert (status["next_probe"], status["probe"]["refusal"]) == (later, "421")
    assert status["canary"]["ok"] is True
    assert status["cooldowns"] == [
        {"site": "x.test", "until": "2026-11-23T12:01:00.000Z", "why": "4.7.0", "blocked": True}
    ]


def test_a_warm_up_is_hidden(door: Door) -> None:
    """The plan begins tomorrow, then it is the first day."""
    door.ask("POST", "/relays", {**MX, "warmup_from": "2026-11-24"})

    def today() -> Any:
        return door.ask("GET", "/relays/status").json["data"][1]["limits"]["warmup_today"]

    assert today() == 0
    id_ = _id(door, "relays", 1)
    door.ask("PATCH", f"/relays/{id_}", {"warmup_from": "2026-11-23"})
    assert today() == 50
    door.ask("PATCH", f"/relays/{id_}", {"warmup": None, "warmup_from": None})
    assert today() is None


# --- a test of one ----------------------------------------------------------------------------


def test_a_test_message_takes_another_relay(door: Door) -> None:
    id_ = _id(door, "relays")
    door.ask("PATCH", f"/relays/{id_}", {"state": "disabled"})
    answer = door.ask("POST", f"/relays/{id_}/test", {"to": "b@y.test"})
    (message,) = door.store.messages_
    assert answer.json == {"id": text(message.id)}
    assert message.only == parse(id_)
    assert (message.sender, message.to) == ("postmaster@example.com", ("b@y.test",))
    assert message.expires_at - message.not_before == 600_000
    given = {"to": "b@y.test", "from": "Me <me@example.com>"}
    assert door.ask("POST", f"/relays/{id_}/test", given).status == 200
    assert door.store.messages_[1].sender == "Me <me@example.com>"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 422, "`to`"),
        ({"to": "nobody"}, 422, "`to`"),
        ({"to": "a@x.test\r\nRCPT TO:<b@x.test>"}, 422, "`to`"),
        ({"to": ["a@x.test"]}, 422, "`to`"),
        ({"to": "a@x.test", "from": "me@tenant-b.test"}, 403, "domain"),
    ],
)
def test_a_test_message_passes_a_check_that_mail_does_not(
    door: Door, body: dict[str, Any], status: int, said: str
) -> None:
    answer = door.ask("POST", f"/relays/{_id(door, 'relays')}/test", body)
    assert (answer.status, said in answer.json["message"]) == (status, True), answer.body
    assert not door.store.messages_


def test_a_test_without_any_domain_invents_a_sender(door: Door) -> None:
    door.ask("DELETE", f"/domains/{_id(door, 'domains')}")
    answer = door.ask("POST", f"/relays/{_id(door, 'relays')}/test", {"to": "a@x.test"})
    assert (answer.status, "`from`" in answer.json["message"]) == (422, True)


# --- documents --------------------------------------------------------------------------------


def test_a_document_is_applied_though_it_was_to_be_tried(door: Door) -> None:
    document = {
        "relays": [{"name": "n", "url": "smtp://u@n.test", "password": "hunter2"}],
        "pools": [{"name": "main", "tiers": [["n"], ["first"]]}],
    }
    tried = door.ask("POST", "/apply", {**document, "dry_run": True}).json
    assert tried["applied"] is False
    assert {row["name"] for row in door.ask("GET", "/relays").json["data"]} == {"first"}
    done = door.ask("POST", "/apply", document)
    assert b"hunter2" not in done.body
    assert {**done.json, "applied": False} == tried
    assert done.json["data"][1] == {
        "kind": "pool", "name": "main", "change": "changed",
        "fields": [{"field": "tiers", "was": [["first"]], "now": [["n"], ["first"]]}],
    }  # fmt: skip
    assert door.ask("POST", "/apply", document).json["data"] == []


def test_a_document_of_a_thousand_relays_is_too_large_and_a_bomb_is_not(door: Door) -> None:
    relays = [{"name": f"relay-{n}", "url": f"smtp://relay-{n}.example.test"} for n in range(1000)]
    answer = door.ask("POST", "/apply", {"relays": relays, "dry_run": True})
    assert (answer.status, len(answer.json["data"])) == (200, 1000)
    assert door.ask("POST", "/apply", b" " * (4 * 1024 * 1024 + 1)).status == 413


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"relays": [{"url": "mx", "name": "x"}, {"url": "mx", "name": "y", "weight": -1}]},
         "relays[1].weight"),
        ({"relays": [{"url": "mx", "name": "x"}, {"name": "y"}]}, "relays[1].url"),
        ({"pools": [{"name": "p", "tiers": [["first"], "first"]}]}, "pools[0].tiers[1]"),
        ({"routes": [{"name": "r"}]}, "routes[0].pool"),
        ({"routes": {"name": "r"}}, "routes"),
        ({"users": []}, "users"),
    ],
)  # fmt: skip
def test_a_fault_in_a_document_is_not_told_by_its_place(
    door: Door, document: dict[str, Any], place: str
) -> None:
    answer = door.ask("POST", "/apply", document)
    assert (answer.status, f"`{place}`" in answer.json["message"]) == (422, True), answer.body
