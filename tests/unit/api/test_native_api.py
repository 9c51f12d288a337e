"""Every endpoint of the native API: shape, errors, paths."""

import json
from typing import Any

import msgspec
import pytest

from everpost.api import views
from everpost.api.routes import ADMIN, NATIVE, Route
from everpost.ids import text
from everpost.model.outcome import AttemptRecord
from everpost.store.interface import AttemptRow
from tests.unit.api.conftest import NOW, Door, NoRecords, email

NOBODY = "00000000-0000-7000-8000-000000000000"
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/emails"): email(),
    ("POST", "/emails/batch"): [email()],
    ("PATCH", "/emails/{id}"): {"scheduled_at": "2026-11-24T00:00:00Z"},
    ("POST", "/domains"): {"name": "new.test"},
    ("POST", "/api-keys"): {"name": "new"},
    ("POST", "/relays"): {"url": "smtp://new.test"},
    ("PATCH", "/relays/{id}"): {"state": "draining"},
    ("POST", "/relays/{id}/test"): {"to": "a@good.test"},
    ("POST", "/pools"): {"name": "new", "tiers": [["first"]]},
    ("PATCH", "/pools/{id}"): {"floor": 2},
    ("POST", "/routes"): {"name": "new", "pool": "main"},
    ("PATCH", "/routes/{id}"): {"tag": None},
    ("POST", "/routes/explain"): {"from": "a@example.com", "to": "b@good.test"},
    ("PATCH", "/streams/{name}"): {"weight": 2},
    ("PATCH", "/projects/{number}"): {"weight": 2},
    ("POST", "/apply"): {"projects": []},
}


def _name(route: Route) -> str:
    return f"{route.method} {route.path}"


def _ask(door: Door, route: Route, *, key: str | None = "full", id_: str = NOBODY) -> Any:
    body = BODIES.get((route.method, route.path))
    path = route.path.replace("{id}", id_).replace("{name}", "broadcast").replace("{number}", "2")
    return door.ask(route.method, path, body, key=key)


# --- who may ask ----------------------------------------------------------------------------------

GUARDED = [route for route in NATIVE if route.right is not None]
OPEN = {"/health/live", "/health/ready", "/"}


def test_only_health_and_the_root_answer_strangers() -> None:
    assert {route.path for route in NATIVE if route.right is None} == OPEN


@pytest.mark.parametrize("route", GUARDED, ids=_name)
def test_stranger_gets_the_same_refusal_everywhere(door: Door, route: Route) -> None:
    missing = _ask(door, route, key=None)
    assert (missing.status, missing.json["name"]) == (401, "missing_api_key")
    assert missing.headers["www-authenticate"] == "Bearer"
    wrong = _ask(door, route, key="ep_wrong")
    assert (wrong.status, wrong.json["name"]) == (403, "invalid_api_key")


@pytest.mark.parametrize("route", GUARDED, ids=_name)
def test_sending_key_may_send_and_nothing_else(door: Door, route: Route) -> None:
    answer = _ask(door, route, key="sending")
    if route.path in {"/emails", "/emails/batch"} and route.method == "POST":
        assert answer.status == 200
    else:
        assert (answer.status, answer.json["name"]) == (401, "restricted_api_key")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: t[:-1],
        lambda t: t + "a",
        lambda t: t + " ",
        lambda t: t.swapcase(),
        lambda t: " " + t,
        lambda t: t * 20_000,
        lambda t: "\xff" + t,
    ],
    ids=["cut", "longer", "space", "case", "two spaces", "1 MB", "not ASCII"],
)
def test_key_that_is_almost_right_is_refused(door: Door, spoil: Any) -> None:
    answer = door.ask("GET", "/emails", key=spoil(door.tokens["full"]))
    assert (answer.status, answer.json["name"]) == (403, "invalid_api_key")


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic eDp5", "token"])
def test_no_bearer_is_a_missing_key(door: Door, header: str) -> None:
    answer = door.ask("GET", "/emails", key=None, headers={"authorization": header})
    assert (answer.status, answer.json["name"]) == (401, "missing_api_key")


def test_key_in_the_url_is_no_key(door: Door) -> None:
    path = f"/emails?api_key={door.tokens['full']}"
    assert door.ask("GET", path, key=None).status == 401


def test_revoked_key_is_refused_at_once(door: Door) -> None:
    made = door.ask("POST", "/api-keys", {"name": "short-lived"}).json
    assert door.ask("GET", "/emails", key=made["token"]).status == 200
    assert door.ask("DELETE", f"/api-keys/{made['id']}").json["deleted"] is True
    assert door.ask("GET", "/emails", key=made["token"]).status == 403


def test_method_override_changes_nothing(door: Door) -> None:
    """S42."""
    header = {"X-HTTP-Method-Override": "DELETE", "X-Method-Override": "DELETE"}
    row = door.ask("GET", "/relays").json["data"][0]
    assert door.ask("GET", f"/relays/{row['id']}", headers=header).status == 200
    assert door.ask("GET", f"/relays/{row['id']}").status == 200


# --- other tenants (S40) --------------------------------------------------------------------------

OPERATORS = ("/relays", "/pools", "/routes", "/projects", "/apply", "/status", "/audit")
WITH_ID = [r for r in GUARDED if "{id}" in r.path and not r.path.startswith(OPERATORS)]


@pytest.mark.parametrize("route", WITH_ID, ids=_name)
def test_another_tenants_object_is_no_object(door: Door, route: Route) -> None:
    noun = route.path.split("/")[1]
    ids = {
        "emails": door.send(),
        "sandbox": door.ask("POST", "/emails", email(), key="sandbox").json["id"],
        "domains": door.ask("GET", "/domains").json["data"][0]["id"],
        "api-keys": door.ask("GET", "/api-keys").json["data"][0]["id"],
    }
    theirs = _ask(door, route, key="tenant", id_=ids[noun])
    nobody = _ask(door, route, key="tenant", id_=NOBODY)
    malformed = _ask(door, route, key="tenant", id_="%2e%2e%2f'OR'1'='1")
    assert theirs.status == 404
    assert theirs.body == nobody.body == malformed.body
    if route.path.endswith("/release"):
        assert door.ask("POST", f"/emails/{ids[noun]}/hold").status == 200
    assert _ask(door, route, id_=ids[noun]).status == 200


@pytest.mark.parametrize("route", [r for r in GUARDED if r.path.startswith(OPERATORS)], ids=_name)
def test_what_is_the_operators_is_a_tenants(door: Door, route: Route) -> None:
    """S42; and what is there is refused like what is not (S40)."""
    noun = route.path.split("/")[1]
    shelf = {"relays": "RelayRow", "pools": "PoolRow", "routes": "RouteRow"}
    ids = {n: text(next(iter(door.store.rows[kind]))) for n, kind in shelf.items()}
    theirs = _ask(door, route, key="tenant", id_=ids.get(noun, NOBODY))
    nobody = _ask(door, route, key="tenant")
    assert (theirs.status, theirs.body) == (403, nobody.body)
    answer = _ask(door, route, id_=ids.get(noun, NOBODY))
    in_use = route.method == "DELETE" and noun in {"relays", "pools"}
    assert answer.status == (409 if in_use else 200), answer.body


def test_a_tenant_finds_out_which_projects_and_pools_there_are(door: Door) -> None:
    """S40: what is there is refused like what is not, whatever else is wrong with the request."""
    mail = {"from": "a@x.test", "to": "b@y.test"}
    for path, method, bodies in (
        ("/routes/explain", "POST", [{**mail, "project": p} for p in (1, 9, "nobody")]),
        ("/streams/broadcast", "PATCH", [{"pool": p} for p in ("main", "nowhere", "default")]),
    ):
        answers = [door.ask(method, path, body, key="tenant") for body in bodies]
        assert {(answer.status, answer.body) for answer in answers} == {(403, answers[0].body)}


def test_a_tenant_sees_or_changes_the_streams_of_another(door: Door) -> None:
    changed = door.ask("PATCH", "/streams/broadcast", {"weight": 7}, key="tenant")
    assert (changed.status, changed.json["weight"]) == (200, 7)
    mine = {row["name"]: row["weight"] for row in door.ask("GET", "/streams").json["data"]}
    assert mine == {"broadcast": 1, "transactional": 1}
    assert door.ask("PATCH", "/streams/broadcast", {"pool": "main"}, key="tenant").status == 403
    assert door.ask("PATCH", "/streams/none", {"weight": 2}).status == 404


def test_lists_hold_the_callers_own_objects(door: Door) -> None:
    door.send()
    for path in ("/emails", "/domains", "/api-keys"):
        mine = {item["id"] for item in door.ask("GET", path).json["data"]}
        theirs = {item["id"] for item in door.ask("GET", path, key="tenant").json["data"]}
        assert mine
        assert not mine & theirs


# --- paths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../emails", "//emails", "/emails//", "/./emails", "/%65mails", "/emails%2f",
        "/EMAILS", "/emails/x/y/z", "/metrics", "/health/detail", "/health", "/emails;a=b",
    ],
)  # fmt: skip
def test_other_spellings_of_a_path_lead_nowhere(door: Door, path: str) -> None:
    answer = door.ask("GET", path)
    assert (answer.status, answer.json["name"]) == (404, "not_found")


@pytest.mark.parametrize("route", NATIVE, ids=_name)
def test_slash_at_the_end_makes_no_difference(door: Door, route: Route) -> None:
    path = route.path.replace("{id}", NOBODY)
    body = BODIES.get((route.method, route.path))
    plain = door.ask(route.method, path, body).status
    if route.method == "POST" and plain == 200:
        return  # made; the next one is another
    assert door.ask(route.method, path + "/" if path != "/" else path, body).status == plain


@pytest.mark.parametrize("route", NATIVE, ids=_name)
def test_other_methods_are_405_with_those_allowed(door: Door, route: Route) -> None:
    answer = door.ask("PUT", route.path.replace("{id}", NOBODY), {})
    assert (answer.status, answer.json["name"]) == (405, "method_not_allowed")
    assert route.method in answer.headers["allow"].split(", ")


def test_head_is_answered_like_get(door: Door) -> None:
    assert door.ask("HEAD", "/health/ready", key=None).status == 200
    assert door.ask("HEAD", "/docs", key=None).status == 200


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=101", "limit=x", "limit=", "limit=1&limit=2", "after=x", "before=' OR 1=1",
     f"after={NOBODY}&before={NOBODY}", "limit=%00", "limit=-1", "limit=1e2"],
)  # fmt: skip
def test_edited_cursors_are_refused(door: Door, query: str) -> None:
    """S52."""
    for path in ("/emails", "/domains", "/sandbox"):
        assert door.ask("GET", f"{path}?{query}").status == 422


def test_two_authorization_headers_are_refused() -> None:
    from everpost.api.errors import Malformed
    from everpost.api.requests import Request

    async def receive() -> Any:
        raise AssertionError

    pair = (b"authorization", b"Bearer a")
    with pytest.raises(Malformed):
        Request({"headers": [pair, pair]}, receive, ())
    Request({"headers": [(b"x", b"1"), (b"x", b"2")]}, receive, ())


# --- shapes ---------------------------------------------------------------------------------------


def test_get_has_resends_fields_in_their_order_then_ours(door: Door) -> None:
    id_ = door.send(
        to=["A <a@good.test>"], cc="c@good.test", bcc="b@good.test", html="<b>x</b>",
        tags=[{"name": "k", "value": "v"}], metadata={"order": "7"},
        scheduled_at="2026-11-23T13:00:00Z",
    )  # fmt: skip
    answer = door.ask("GET", f"/emails/{id_}").json
    assert answer["object"] == "email"
    assert answer["id"] == id_
    assert answer["from"] == "Acme <news@example.com>"
    assert answer["to"] == ["A <a@good.test>"]
    assert (answer["cc"], answer["bcc"], answer["reply_to"]) == (
        ["c@good.test"],
        ["b@good.test"],
        [],
    )
    assert answer["message_id"].startswith("<")
    assert answer["html"] == "<b>x</b>"
    assert answer["created_at"] == "2026-11-23T12:00:00.000Z"
    assert answer["scheduled_at"] == "2026-11-23T13:00:00.000Z"
    assert answer["last_event"] == answer["status"] == "scheduled"
    assert answer["tags"] == [{"name": "k", "value": "v"}]
    assert answer["metadata"] == {"order": "7"}
    assert answer["recipients"] == {"scheduled": 3}
    assert answer["stream"] == "transactional"


def test_list_goes_forward_and_back(door: Door) -> None:
    made = [door.send(subject=str(n)) for n in range(5)][::-1]
    first = door.ask("GET", "/emails?limit=2").json
    assert first["object"] == "list"
    assert [item["id"] for item in first["data"]] == made[:2]
    assert first["has_more"] is True
    rest = door.ask("GET", f"/emails?limit=10&after={made[1]}").json
    assert [item["id"] for item in rest["data"]] == made[2:]
    assert rest["has_more"] is False
    back = door.ask("GET", f"/emails?before={made[1]}").json
    assert [item["id"] for item in back["data"]] == made[:1]


def test_recipients_show_every_attempt(door: Door) -> None:
    answer = door.ask("GET", f"/emails/{door.send()}/recipients").json
    (row,) = answer["data"]
    assert (row["address"], row["status"], row["kind"]) == ("a@good.test", "queued", "to")
    assert row["attempts"][0]["outcome"]["reply"]["text"] == "later"
    assert row["attempts"][0]["started_at"] == "2026-11-23T12:00:00.000Z"
    assert (row["attempts"][0]["bounce_type"], row["attempts"][0]["throttled"]) == (None, False)


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        ({"type": "bounced", "hard": True, "rule": "bad-mailbox"}, ("hard", False)),
        ({"type": "bounced", "hard": False}, ("soft", False)),
        ({"type": "bounced"}, ("soft", False)),
        ({"type": "deferred", "throttle": True}, (None, True)),
        ({"type": "delivered"}, (None, False)),
    ],
)
def test_an_attempt_that_does_not_say_what_it_means_for_the_address(
    outcome: dict[str, Any], told: tuple[str | None, bool]
) -> None:
    record = AttemptRecord(started_at=0, ended_at=1)
    row = AttemptRow(n=0, attempt=1, outcome=outcome, record=record)
    shown = views._attempt(row)
    assert (shown.bounce_type, shown.throttled, shown.outcome) == (*told, outcome)


def test_events_tell_the_timeline(door: Door) -> None:
    line = door.ask("GET", f"/emails/{door.send()}/events").json["data"][0]
    assert (line["seq"], line["type"]) == (1, "accepted")


def test_times_in_the_timeline_are_written_like_all_others(door: Door) -> None:
    lines = door.ask("GET", f"/emails/{door.send()}/events").json["data"]
    assert [line["data"] for line in lines] == [
        {},
        {"next_attempt_at": "2026-11-23T12:01:00.000Z", "attempt": 1, "reason": "busy"},
        {"at": "2026-11-23T12:00:00.001Z"},
        {"at": "elsewhere", "next_attempt_at": None},
    ]


def test_reschedule_moves_and_cancel_ends(door: Door) -> None:
    id_ = door.send(scheduled_at="2026-11-24T00:00:00Z")
    moved = door.ask("PATCH", f"/emails/{id_}", {"id": id_, "scheduled_at": "2026-11-25T00:00:00Z"})
    assert moved.json == {"id": id_, "object": "email"}
    assert list(door.store.moved.values()) == [NOW + 36 * 3_600_000]
    assert door.ask("POST", f"/emails/{id_}/cancel", {}).json == {"id": id_, "object": "email"}
    assert door.ask("GET", f"/emails/{id_}").json["last_event"] == "canceled"
    assert door.ask("POST", f"/emails/{id_}/cancel").status == 422
    again = {"scheduled_at": "2026-11-26T00:00:00Z"}
    assert door.ask("PATCH", f"/emails/{id_}", again).status == 422


def test_hold_stops_and_release_lets_go(door: Door) -> None:
    id_ = door.send()
    assert door.ask("POST", f"/emails/{id_}/release").status == 422  # nothing is held
    assert door.ask("POST", f"/emails/{id_}/hold").json == {"id": id_, "object": "email"}
    assert len(door.store.held) == 1
    assert door.ask("POST", f"/emails/{id_}/hold").status == 422  # nothing waits
    assert door.ask("POST", f"/emails/{id_}/release", {}).json == {"id": id_, "object": "email"}
    assert not door.store.held


@pytest.mark.parametrize("body", [{}, {"scheduled_at": None}, {"scheduled_at": "never"}, []])
def test_reschedule_to_no_time_is_refused(door: Door, body: Any) -> None:
    assert door.ask("PATCH", f"/emails/{door.send()}", body).status == 422


def test_sandbox_shows_what_it_caught_and_nothing_else(door: Door) -> None:
    sent = door.send()
    caught = door.ask("POST", "/emails", email(), key="sandbox").json["id"]
    assert [item["id"] for item in door.ask("GET", "/sandbox").json["data"]] == [caught]
    assert (
        door.ask("GET", f"/sandbox/{caught}").json["raw"] == "Subject: caught\r\n\r\nbody\ufffd\r\n"
    )
    assert door.ask("GET", f"/sandbox/{sent}").status == 404


def test_domain_lives_and_ends(door: Door) -> None:
    made = door.ask("POST", "/domains", {"name": "new.test", "region": "us-east-1"})
    assert made.status == 200
    domain = made.json
    assert (domain["object"], domain["name"], domain["status"]) == ("domain", "new.test", "pending")
    assert {"record", "name", "type", "ttl", "status", "value"} <= set(domain["records"][0])
    path = f"/domains/{domain['id']}"
    assert door.ask("GET", path).json == domain
    assert door.ask("POST", f"{path}/verify").json["id"] == domain["id"]
    assert door.ask("POST", "/domains", {"name": "new.test"}).status == 409
    gone = {"object": "domain", "id": domain["id"], "deleted": True}
    assert door.ask("DELETE", path).json == gone
    assert door.ask("GET", path).status == 404


def test_domain_below_somebody_elses_is_a_conflict_when_it_is_verified(door: Door) -> None:
    theirs = door.ask("POST", "/domains", {"name": "mail.new.test"}, key="tenant").json
    ours = door.ask("POST", "/domains", {"name": "new.test"})
    assert ours.status == 200
    rows = door.store.rows["DomainRow"]
    for id_, row in rows.items():
        if row.name == "new.test":
            rows[id_] = msgspec.structs.replace(row, status="verified")
    resolver = door.services.domains._resolver
    assert isinstance(resolver, NoRecords)
    resolver.texts = {record["name"]: record["value"] for record in theirs["records"]}
    answer = door.ask("POST", f"/domains/{theirs['id']}/verify", key="tenant")
    assert (answer.status, answer.json["name"]) == (409, "conflict")
    assert door.ask("GET", f"/domains/{theirs['id']}", key="tenant").json["status"] == "pending"


def test_secrets_go_in_and_never_come_out(door: Door) -> None:
    body = {"url": "smtp://u:hunter2@second.test:2525", "name": "second"}
    made = door.ask("POST", "/relays", body)
    assert made.status == 200, made.body
    assert made.json["has_password"] is True
    token = door.ask("POST", "/api-keys", {"name": "k"}).json["token"]
    for route in NATIVE:
        if route.method == "GET":
            path = route.path.replace("{id}", made.json["id"])
            answer = door.ask("GET", path)
            assert b"hunter2" not in answer.body, path
            assert token.encode() not in answer.body, path


def test_our_own_endpoints_refuse_unknown_fields(door: Door) -> None:
    answer = door.ask("POST", "/relays", {"url": "smtp://x.test", "is_admin": True})
    assert answer.status == 422
    assert "`is_admin`" in answer.json["message"]
    relay = door.ask("GET", "/relays").json["data"][0]["id"]
    assert door.ask("PATCH", f"/relays/{relay}", {"state": "draining", "url": "x"}).status == 422


def test_relay_changes_state_and_goes(door: Door) -> None:
    relay = door.ask("GET", "/relays").json["data"][0]
    path = f"/relays/{relay['id']}"
    assert door.ask("PATCH", path, {"state": "draining"}).json["state"] == "draining"
    assert door.ask("PATCH", path, {"state": "gone"}).status == 422
    in_use = door.ask("DELETE", path)
    assert (in_use.status, in_use.json["name"]) == (409, "conflict")
    route = door.ask("GET", "/routes").json["data"][0]["id"]
    assert door.ask("DELETE", f"/routes/{route}").json["deleted"] is True
    assert door.ask("DELETE", path).json["deleted"] is True
    assert door.ask("DELETE", path).status == 404


def test_short_lists_are_paged_when_asked(door: Door) -> None:
    keys = door.ask("GET", "/api-keys").json["data"]
    names = [key["name"] for key in keys]
    first = door.ask("GET", "/api-keys?limit=2").json
    assert ([k["name"] for k in first["data"]], first["has_more"]) == (names[:2], True)
    rest = door.ask("GET", f"/api-keys?limit=2&after={keys[1]['id']}").json
    assert ([k["name"] for k in rest["data"]], rest["has_more"]) == (names[2:4], len(names) > 4)
    back = door.ask("GET", f"/api-keys?before={keys[1]['id']}").json
    assert [k["name"] for k in back["data"]] == names[:1]


def test_cursor_of_a_row_that_has_gone_still_means_its_place(door: Door) -> None:
    keys = door.ask("GET", "/api-keys").json["data"]
    gone = keys[1]["id"]
    door.ask("DELETE", f"/api-keys/{gone}")
    after = door.ask("GET", f"/api-keys?after={gone}").json
    assert [k["id"] for k in after["data"]] == [k["id"] for k in keys[2:]]
    before = door.ask("GET", f"/api-keys?limit=1&before={gone}").json
    assert ([k["id"] for k in before["data"]], before["has_more"]) == ([keys[0]["id"]], False)
    for path in ("/api-keys", "/domains", "/relays", "/pools"):
        every = door.ask("GET", path).json["data"]
        assert door.ask("GET", f"{path}?after={NOBODY}").json["data"] == every
        assert door.ask("GET", f"{path}?before={NOBODY}").json["data"] == []


def test_audit_is_read_to_its_end_page_by_page(door: Door) -> None:
    every = [line["position"] for line in door.ask("GET", "/audit?limit=100").json["data"]]
    assert len(every) > 6
    pages, query = [], "limit=3"
    while True:
        page = door.ask("GET", f"/audit?{query}").json
        pages += [line["position"] for line in page["data"]]
        if not page["has_more"]:
            break
        query = f"limit=3&after={pages[-1]}"
    assert pages == every
    back = door.ask("GET", f"/audit?limit=3&before={every[5]}").json
    assert [line["position"] for line in back["data"]] == every[2:5]
    assert back["has_more"] is True
    back = door.ask("GET", f"/audit?limit=3&before={every[3]}").json
    assert ([line["position"] for line in back["data"]], back["has_more"]) == (every[:3], False)


@pytest.mark.parametrize("query", ["after=x", "before=-1", f"after={NOBODY}", "after=" + "9" * 19])
def test_edited_position_is_refused(door: Door, query: str) -> None:
    assert door.ask("GET", f"/audit?{query}").status == 422


def test_sandbox_key_manages_nothing_of_production(door: Door) -> None:
    relay = door.ask("GET", "/relays").json["data"][0]["id"]
    domain = door.ask("GET", "/domains").json["data"][0]["id"]
    key = door.ask("GET", "/api-keys").json["data"][0]["id"]
    for method, path, body in (
        ("POST", "/relays", {"url": "smtp://evil.test"}),
        ("PATCH", f"/relays/{relay}", {"state": "disabled"}),
        ("DELETE", f"/relays/{relay}", None),
        ("POST", f"/relays/{relay}/test", {"to": "a@good.test"}),
        ("POST", "/pools", {"name": "p", "tiers": [["first"]]}),
        ("POST", "/routes", {"name": "r", "pool": "main"}),
        ("PATCH", "/streams/broadcast", {"weight": 2}),
        ("POST", "/apply", {"relays": []}),
        ("POST", "/domains", {"name": "more.test"}),
        ("POST", f"/domains/{domain}/verify", None),
        ("DELETE", f"/domains/{domain}", None),
        ("DELETE", f"/api-keys/{key}", None),
        ("GET", "/status", None),
        ("GET", "/audit", None),
    ):
        answer = door.ask(method, path, body, key="sandbox")
        assert (answer.status, answer.json["name"]) == (401, "restricted_api_key"), (method, path)
    made = door.ask("POST", "/api-keys", {"name": "n", "sandbox": False}, key="sandbox").json["id"]
    rows = {row["id"]: row for row in door.ask("GET", "/api-keys").json["data"]}
    assert rows[made]["sandbox"] is True


def test_status_shows_the_queue(door: Door) -> None:
    door.send()
    answer = door.ask("GET", "/status").json
    assert answer["states"] == {"queued": 1}
    assert answer["oldest_due_seconds"] == 1.5
    assert answer["alarms"] == ["disk_low"]
    assert answer["durability"] == "committed"
    assert answer["ready"] is True
    assert answer["dispatchers"] == [{"pid": 7, "started_at": "2026-11-23T12:00:00.000Z"}]


def test_audit_names_who_did_it(door: Door) -> None:
    door.ask("POST", "/domains", {"name": "new.test"})
    lines = door.ask("GET", "/audit?limit=5").json["data"]
    assert any(line["actor"].startswith("key:") for line in lines)


def test_full_disk_takes_the_node_out_but_a_missing_relay_does_not(door: Door) -> None:
    door.facts["relays"] = 0
    assert door.ask("GET", "/health/ready", key=None).json == {"status": "ready"}
    door.facts["free_bytes"] = 1
    answer = door.ask("GET", "/health/ready", key=None)
    assert answer.status == 503
    assert "disk" in answer.json["message"]
    assert door.ask("GET", "/health/live", key=None).status == 200


def test_admin_listener_has_metrics_and_detail_and_no_mail(door: Door) -> None:
    assert door.ask("GET", "/metrics", app=door.admin).body == b"# metrics\n"
    detail = door.ask("GET", "/health/detail", app=door.admin)
    assert {check["name"] for check in detail.json["checks"]} >= {"store", "disk", "clock"}
    for route in NATIVE:
        if route.path not in {each.path for each in ADMIN}:
            path = route.path.replace("{id}", NOBODY)
            assert door.ask(route.method, path, app=door.admin).status == 404


def test_operators_socket_needs_no_key(door: Door) -> None:
    assert door.ask("GET", "/status", key=None, app=door.operator).status == 200
    made = door.ask("POST", "/emails", email(), key=None, app=door.operator)
    assert made.status == 200
    assert door.ask("GET", f"/emails/{made.json['id']}").status == 200


def test_browser_at_the_root_is_sent_to_the_documentation(door: Door) -> None:
    answer = door.ask("GET", "/", key=None, headers={"accept": "text/html,*/*"})
    assert (answer.status, answer.headers["location"]) == (307, "/docs")
    assert door.ask("GET", "/", key=None).json["documentation"] == "/docs"


def test_every_answer_is_json_even_when_nothing_fits(door: Door) -> None:
    for method, path in (
        ("GET", "/x"),
        ("TRACE", "/emails"),
        ("POST", "/docs"),
        ("GET", "/emails"),
    ):
        answer = door.ask(method, path, key=None)
        assert json.loads(answer.body)["statusCode"] == answer.status
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


def test_too_many_requests_at_once_are_told_to_wait(door: Door) -> None:
    from tests.unit.api.conftest import new_door

    busy = new_door(requests=0)
    answer = busy.ask("GET", "/emails")
    assert answer.status == 503
    assert busy.ask("GET", "/health/live").status == 200
