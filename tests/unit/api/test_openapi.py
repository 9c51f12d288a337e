"""The OpenAPI document and the pages made of it."""

import asyncio
import re
from typing import Any

import msgspec
import pytest

from everpost.api import openapi_document
from everpost.api.bodies import EmailBody
from everpost.api.routes import NATIVE
from everpost.intake import Limits
from tests.unit.api.conftest import Door, call, email

DOCUMENT: Any = openapi_document("http://api.test")


def _references(value: Any) -> set[str]:
    if isinstance(value, dict):
        found = {value["$ref"]} if "$ref" in value else set()
        return found.union(*map(_references, value.values()))
    if isinstance(value, list):
        return set().union(*map(_references, value))
    return set()


def test_every_route_is_in_the_document() -> None:
    shown = {(m.upper(), p) for p, operations in DOCUMENT["paths"].items() for m in operations}
    assert shown == {(route.method, route.path) for route in NATIVE if not route.hidden}


def test_every_reference_leads_somewhere() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert _references(DOCUMENT) <= {f"#/components/schemas/{name}" for name in schemas}


def test_operations_are_named_once_and_described() -> None:
    operations = [o for path in DOCUMENT["paths"].values() for o in path.values()]
    names = [o["operationId"] for o in operations]
    assert len(set(names)) == len(names)
    for operation in operations:
        assert operation["summary"]
        assert operation["description"]
        assert {"200", "500", "503"} <= set(operation["responses"])
        if operation["security"]:
            assert {"401", "403"} <= set(operation["responses"])


def test_request_schema_shows_resends_words() -> None:
    properties = DOCUMENT["components"]["schemas"]["EmailBody"]["properties"]
    assert {"from", "to", "reply_to", "scheduled_at", "attachments"} <= set(properties)
    assert "sender" not in properties
    content = DOCUMENT["components"]["schemas"]["AttachmentBody"]["properties"]["content"]
    assert len(content["anyOf"]) == 3


def test_request_schema_says_what_is_required_and_how_much() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    body = schemas["EmailBody"]
    assert body["required"] == ["from", "to", "subject"]
    assert body["properties"]["to"]["maxItems"] == Limits().recipients_per_field
    assert body["properties"]["subject"]["maxLength"] == Limits().subject_chars
    assert body["properties"]["headers"]["maxProperties"] == Limits().headers
    assert body["properties"]["attachments"]["maxItems"] == Limits().attachments
    assert body["properties"]["tags"]["maxItems"] == Limits().tags
    assert body["properties"]["metadata"]["maxProperties"] == Limits().metadata
    assert {"type": "null"} not in body["properties"]["to"]["anyOf"]


def test_document_is_served_as_built(door: Door) -> None:
    assert door.ask("GET", "/openapi.json", key=None).json == msgspec.json.decode(
        msgspec.json.encode(DOCUMENT)
    )


@pytest.mark.parametrize("route", [r for r in NATIVE if not r.hidden], ids=lambda r: r.name)
def test_statuses_that_a_route_gives_are_declared(door: Door, route: Any) -> None:
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    path = route.path.replace("{id}", "00000000-0000-7000-8000-000000000000")
    for body, key in ((b"{", "full"), (b"{}", "full"), (b"{}", None), (b"{}", "x"), (b"7", "full")):
        status = door.ask(route.method, path, body, key=key).status
        assert str(status) in operation["responses"], (body, key)
    encoded = door.ask(route.method, path, b"x", headers={"content-encoding": "gzip"}).status
    assert str(encoded) in operation["responses"]


@pytest.mark.parametrize("route", [r for r in NATIVE if not r.hidden], ids=lambda r: r.name)
def test_contradiction_is_refused_with_a_status_that_is_not_declared(
    door: Door, route: Any
) -> None:
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    path = route.path.replace("{id}", "00000000-0000-7000-8000-000000000000")
    twice = [(b"content-type", b"application/json"), (b"content-type", b"text/plain")]
    answer = asyncio.run(call(door.api, route.method, path, twice, [b""]))
    assert answer.status == 400
    assert "400" in operation["responses"]


def test_example_of_the_documentation_is_accepted(door: Door) -> None:
    page = door.ask("GET", "/docs", key=None).body.decode()
    found = re.search(r"-d '(\{.*?\})'", page)
    assert found is not None
    body = msgspec.json.decode(found[1], type=EmailBody)
    assert body.subject == "Hello"
    assert email()["to"]


def test_small_screen_is_not_filled_with_the_contents(door: Door) -> None:
    page = door.ask("GET", "/docs", key=None).body.decode()
    top = re.search(r'<nav class="top"[^>]*>.*?<details><summary>.*?</details></nav>', page)
    side = re.search(r'<nav class="side"[^>]*>.*?</nav>', page)
    assert top is not None
    assert side is not None
    assert re.findall(r'href="[^"]*"', top[0]) == re.findall(r'href="[^"]*"', side[0])
    assert ".top{display:none}" in page
    assert "@media(max-width:50rem){body{display:block}.side{display:none}.top{" in page


def test_audit_cursors_are_described() -> None:
    parameters = DOCUMENT["paths"]["/audit"]["get"]["parameters"]
    assert [p["name"] for p in parameters] == ["limit", "after", "before"]
    assert {p["schema"]["type"] for p in parameters} == {"integer"}


def test_page_runs_nothing_and_fetches_nothing(door: Door) -> None:
    answer = door.ask("GET", "/docs", key=None)
    page = answer.body.decode()
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "<script" not in page
    tags = " ".join(
        re.findall(r"<[^>]*>", re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL))
    )
    assert not re.findall(r"(?:src|href)=[\"'](?!#|/openapi\.json)", tags)
    assert not re.findall(r"\son\w+=|\sstyle=|url\(", tags)
    for route in NATIVE:
        assert route.hidden or f'id="{route.name}"' in page


def test_page_hash_fits_its_style(door: Door) -> None:
    import base64
    import hashlib

    answer = door.ask("GET", "/docs", key=None)
    style = re.search(r"<style>(.*?)</style>", answer.body.decode(), re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in answer.headers["content-security-policy"]
