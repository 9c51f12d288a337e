"""Idempotency keys that are abused (S51); cursors, filters and ids that are more (S52)."""

import asyncio

import pytest

from everpost.api.routes import NATIVE, Route
from tests.support.hostile import PATH_IDS, QUERIES, HostileQuery, rows
from tests.unit.api.conftest import Door, call, email

LISTS = [route for route in NATIVE if any(p.name == "after" for p in route.parameters)]
BY_ID = [route for route in NATIVE if "{id}" in route.path]


@pytest.mark.parametrize("route", LISTS, ids=lambda r: r.name)
@pytest.mark.parametrize("key", ["full", "tenant"])
def test_hostile_query_is_more_than_a_wrong_query(door: Door, route: Route, key: str) -> None:
    def told(row: HostileQuery) -> str:
        answer = door.ask("GET", f"{route.path}?{row.query}", key=key)
        if answer.status == 403:  # not the tenant's to list, whatever it asks
            return "refused"
        if answer.status == 200:
            return "ignored" if answer.json == plain.json else "something else"
        names = row.fields or ("query string",)
        message: str = answer.json["message"]
        assert answer.status == 422, answer.body
        return "named" if any(name in message for name in names) else message

    plain = door.ask("GET", route.path, key=key)
    expected = {True: {"ignored"}, False: {"named"}}
    for row in QUERIES:
        found = told(row)
        assert found == "refused" or found in expected[row.fields is None], (str(row), found)
        assert (found == "refused") == (plain.status == 403)


@pytest.mark.parametrize("route", BY_ID, ids=lambda r: f"{r.method}-{r.name}")
def test_hostile_id_is_more_than_an_unknown_id(door: Door, route: Route) -> None:
    bodies = {"reschedule": {"scheduled_at": "in 1 hour"}, "test_relay": {"to": "a@good.test"}}
    body = bodies.get(route.name, {}) if route.body else None
    absent = door.ask(route.method, route.path.replace("{id}", PATH_IDS[1]), body)
    assert absent.status == 404
    for text in PATH_IDS:
        answer = door.ask(route.method, route.path.replace("{id}", text), body)
        assert (answer.status, answer.body) == (404, absent.body), text


def test_cursor_of_another_tenants_email_shows_more_than_a_place(door: Door) -> None:
    mine = [door.send() for _ in range(2)]
    foreign = email(sender="x@tenant-b.test")
    theirs = door.ask("POST", "/emails", foreign, key="tenant").json["id"]
    mine.append(door.send())
    for query, found in (("after", mine[:2]), ("before", mine[2:])):
        answer = door.ask("GET", f"/emails?{query}={theirs}")
        assert {item["id"] for item in answer.json["data"]} == set(found)
        assert theirs.encode() not in answer.body


def test_refused_request_uses_its_key_up(door: Door) -> None:
    """What was refused may be mended and sent again with the same key."""
    key = {"Idempotency-Key": "order-1"}
    for row in rows("subject")[:5]:
        assert door.ask("POST", "/emails", email(subject=row.value), headers=key).status == 422
    assert door.ask("POST", "/emails", b"{", headers=key).status == 400
    door.store.full = True
    assert door.ask("POST", "/emails", email(subject="late"), headers=key).status == 503
    door.store.full = False
    assert door.ask("POST", "/emails", email(), headers=key).status == 200
    assert door.ask("POST", "/emails", email(subject="x"), headers=key).status == 409
    assert len(door.store.messages_) == 1


def test_one_key_stands_for_an_email_and_a_batch(door: Door) -> None:
    key = {"Idempotency-Key": "order-1"}
    assert door.ask("POST", "/emails", email(), headers=key).status == 200
    for mode in ("strict", "permissive"):
        both = {**key, "x-batch-validation": mode}
        assert door.ask("POST", "/emails/batch", [email()], headers=both).status == 409
    assert len(door.store.messages_) == 1


def test_key_given_twice_is_one_of_them(door: Door) -> None:
    """The door refuses headers that decide something and are there twice."""
    token = b"Bearer " + door.tokens["full"].encode()
    pairs = [(b"authorization", token), (b"idempotency-key", b"a"), (b"idempotency-key", b"b")]
    answer = asyncio.run(call(door.api, "POST", "/emails", pairs, [b"{}"]))
    assert answer.status == 400
    assert "`idempotency-key`" in answer.json["message"]
