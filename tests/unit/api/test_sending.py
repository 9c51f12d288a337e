"""POST /emails and POST /emails/batch: what is accepted, what is refused, in whose words."""

import base64
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from everpost.api.errors import answer as answer_to
from everpost.intake import Limits
from everpost.model.message import Content, Durability
from everpost.store.interface import StoreCorrupt
from tests.unit.api.conftest import NOW, Door, StoppedClock, email


def _content(door: Door) -> Content:
    return msgspec.msgpack.decode(door.store.messages_[-1].sealed, type=Content)


def test_answer_names_an_accepted_message(door: Door) -> None:
    answer = door.ask("POST", "/emails", email())
    assert answer.status == 200
    assert list(answer.json) == ["id"]
    assert door.ask("GET", f"/emails/{answer.json['id']}").json["subject"] == "Hello"


def test_strings_and_arrays_name_recipients_alike(door: Door) -> None:
    door.send(to="a@good.test", cc="c@good.test", bcc=["b@good.test"], reply_to="r@good.test")
    message = door.store.messages_[-1]
    assert [r.address for r in message.recipients] == [
        "a@good.test", "c@good.test", "b@good.test",
    ]  # fmt: skip
    assert message.reply_to == ("r@good.test",)


def test_nulls_and_unknown_fields_are_ignored(door: Door) -> None:
    """postmarker sends null for every unused field (COMPAT §16)."""
    body = {**email(), "cc": None, "tags": None, "headers": {"X-A": "1", "X-B": None}}
    body.update(tenant_id=2, status="delivered", is_admin=True, topic_id="t", html=None)
    assert door.ask("POST", "/emails", body).status == 200
    assert door.store.messages_[-1].project == 1
    assert _content(door).headers == (("X-A", "1"),)


def test_old_node_spelling_is_understood(door: Door) -> None:
    door.send(
        replyTo="r@good.test",
        scheduledAt="2026-11-24T00:00:00Z",
        html='<img src="cid:a">',
        attachments=[{"filename": "a.png", "contentType": "image/png", "contentId": "a",
                      "content": "AAA="}],
    )  # fmt: skip
    message, content = door.store.messages_[-1], _content(door)
    assert message.reply_to == ("r@good.test",)
    assert message.scheduled_at is not None
    assert (content.attachments[0].content_type, content.attachments[0].content_id) == (
        "image/png", "a",
    )  # fmt: skip


FILE = bytes(range(256)) * 3


@pytest.mark.parametrize(
    "content",
    [
        base64.b64encode(FILE).decode(),
        base64.encodebytes(FILE).decode(),
        list(FILE),
        {"type": "Buffer", "data": list(FILE)},
    ],
    ids=["base64", "base64-lines", "array", "node-buffer"],
)
def test_every_form_of_an_attachment_arrives_byte_for_byte(door: Door, content: Any) -> None:
    door.send(attachments=[{"filename": "f.bin", "content": content}])
    assert _content(door).attachments[0].content == FILE


def test_array_longer_than_one_decoding_step_arrives_whole(door: Door) -> None:
    file = bytes(range(256)) * 300
    body = email(attachments=[{"filename": "f.bin", "content": list(file)}])
    assert door.ask("POST", "/emails", json.dumps(body, indent=1).encode()).status == 200
    message = door.store.messages_[-1]
    assert [sealed for _, sealed in message.parts] == [file]


def test_escaped_slashes_in_base64_are_understood(door: Door) -> None:
    file = b"\xff\xef\xff"
    text = base64.b64encode(file).decode().replace("/", "\\/")
    body = json.dumps(email(attachments=[{"filename": "f", "content": "@"}])).replace(
        '@"}', f'{text}"}}'
    )
    assert door.ask("POST", "/emails", body.encode()).status == 200
    assert _content(door).attachments[0].content == file


@pytest.mark.parametrize(
    "attachment",
    [
        {"filename": "f", "path": "http://169.254.169.254/latest"},
        {"filename": "f"},
        {"filename": "f", "content": None},
        {"filename": "f", "content": "not base64!"},
        {"filename": "f", "content": "QQ"},
        {"filename": "f", "content": [1, 256]},
        {"filename": "f", "content": [-1]},
        {"filename": "f", "content": [1.5]},
        {"filename": "f", "content": ["a"]},
        {"filename": "f", "content": [[1]]},
        {"filename": "f", "content": 7},
        {"filename": "f", "content": True},
        {"filename": "f", "content": {"type": "Buffer"}},
        {"filename": "f", "content": {"data": "x"}},
    ],
    ids=repr,
)
def test_bad_attachment_is_refused_and_nothing_is_fetched(door: Door, attachment: Any) -> None:
    answer = door.ask("POST", "/emails", email(attachments=[attachment]))
    assert (answer.status, answer.json["name"]) == (422, "invalid_attachment")
    assert not door.store.messages_


@pytest.mark.parametrize(
    ("change", "name", "field"),
    [
        ({"sender": None}, "missing_required_field", "`from`"),
        ({"to": None}, "missing_required_field", "`to`"),
        ({"subject": None}, "missing_required_field", "`subject`"),
        ({"to": 1}, "validation_error", "`to`"),
        ({"to": [1]}, "validation_error", "`to[0]`"),
        ({"tags": [{"name": "a"}]}, "missing_required_field", "`tags[0].value`"),
        ({"headers": {"a": 1}}, "validation_error", "`headers`"),
        ({"template": {"id": "x"}}, "validation_error", "`template`"),
        ({"in_doubt": "maybe"}, "validation_error", "`in_doubt`"),
    ],
    ids=str,
)
def test_wrong_field_is_named_in_backticks(
    door: Door, change: dict[str, Any], name: str, field: str
) -> None:
    answer = door.ask("POST", "/emails", email(**change))
    assert answer.status == 422
    assert answer.json["statusCode"] == 422
    assert answer.json["name"] == name
    assert field in answer.json["message"]


def test_repeated_key_gives_the_first_answer_however_it_is_written(door: Door) -> None:
    header = {"Idempotency-Key": "k"}
    first = door.ask("POST", "/emails", email(headers={"A": "1", "B": "2"}), headers=header)
    other = {"headers": {"B": "2", "A": "1"}, "unknown": 1, "cc": None}
    again = door.ask(
        "POST", "/emails/", {**other, **email(headers={"B": "2", "A": "1"})}, headers=header
    )
    assert again.json == first.json
    assert len(door.store.messages_) == 1


@pytest.mark.parametrize("mode", [None, "strict", "permissive"])
def test_repeated_key_gives_the_first_answer_when_the_hour_is_past(
    door: Door, mode: str | None
) -> None:
    clock = door.services.clock
    assert isinstance(clock, StoppedClock)
    due = {"scheduled_at": datetime.fromtimestamp(clock.at / 1000 + 60, UTC).isoformat()}
    path, body = ("/emails", email(**due)) if mode is None else ("/emails/batch", [email(**due)])
    batch = {} if mode is None else {"x-batch-validation": mode}
    header = {"Idempotency-Key": "k", **batch}
    first = door.ask("POST", path, body, headers=header)
    assert first.status == 200
    clock.at += 180_000
    again = door.ask("POST", path, body, headers=header)
    assert (again.status, again.json) == (200, first.json)
    fresh = door.ask("POST", path, body, headers={**header, "Idempotency-Key": "other"})
    assert fresh.json != first.json
    assert len(door.store.messages_) == 1


def test_repeated_key_with_another_payload_is_a_conflict(door: Door) -> None:
    header = {"Idempotency-Key": "k"}
    door.ask("POST", "/emails", email(), headers=header)
    other = door.ask("POST", "/emails", email(subject="Other"), headers=header)
    assert (other.status, other.json["name"]) == (409, "invalid_idempotent_request")
    batch = door.ask("POST", "/emails/batch", [email()], headers=header)
    assert batch.status == 409


def test_key_of_another_tenant_is_another_key(door: Door) -> None:
    header = {"Idempotency-Key": "k"}
    door.ask("POST", "/emails", email(), headers=header)
    theirs = email(sender="x@tenant-b.test")
    assert door.ask("POST", "/emails", theirs, headers=header, key="tenant").status == 200
    assert len(door.store.messages_) == 2


@pytest.mark.parametrize("key", ["", "k" * 257, "\xe9"])
def test_bad_idempotency_key_is_400(door: Door, key: str) -> None:
    answer = door.ask("POST", "/emails", email(), headers={"Idempotency-Key": key})
    assert (answer.status, answer.json["name"]) == (400, "invalid_idempotency_key")


def test_batch_is_one_accept(door: Door) -> None:
    answer = door.ask("POST", "/emails/batch", [email(subject=str(n)) for n in range(100)])
    assert answer.status == 200
    assert "errors" not in answer.json
    assert len({item["id"] for item in answer.json["data"]}) == 100
    assert door.store.accepts == 1
    assert [m.subject for m in door.store.messages_] == [str(n) for n in range(100)]


@pytest.mark.parametrize("bad", [{"to": "nobody"}, {"to": None}, {"to": 5}], ids=str)
def test_strict_batch_accepts_nothing_when_one_is_bad(door: Door, bad: dict[str, Any]) -> None:
    answer = door.ask("POST", "/emails/batch", [email(), email(**bad)])
    assert answer.status == 422
    assert answer.json["message"].startswith("Item 1: ")
    assert not door.store.messages_


def test_permissive_batch_accepts_the_good_ones(door: Door) -> None:
    items = [email(), email(to=None), email(to=7), email(subject="Last")]
    answer = door.ask("POST", "/emails/batch", items, headers={"x-batch-validation": "permissive"})
    assert answer.status == 200
    assert len(answer.json["data"]) == 2
    assert [error["index"] for error in answer.json["errors"]] == [1, 2]
    assert all("`to`" in error["message"] for error in answer.json["errors"])
    assert door.store.accepts == 1


def test_permissive_batch_of_bad_ones_only_accepts_nothing(door: Door) -> None:
    header = {"x-batch-validation": "permissive"}
    answer = door.ask("POST", "/emails/batch", [email(to=None)], headers=header)
    assert answer.json["data"] == []
    assert not door.store.accepts


@pytest.mark.parametrize(
    "items", [[], [email()] * 101, email(), [[]], None], ids=lambda x: str(x)[:12]
)
def test_batch_of_another_size_or_shape_is_refused(door: Door, items: Any) -> None:
    answer = door.ask("POST", "/emails/batch", json.dumps(items).encode())
    assert answer.status == 422
    assert not door.store.messages_


def test_unknown_batch_mode_is_refused(door: Door) -> None:
    answer = door.ask("POST", "/emails/batch", [email()], headers={"x-batch-validation": "lax"})
    assert answer.status == 422


def test_relaxed_durability_is_shown_in_every_answer(make_door: Callable[..., Door]) -> None:
    door = make_door(Durability.RELAXED)
    sent = door.ask("POST", "/emails", email())
    assert sent.json["durability"] == "relaxed"
    assert list(sent.json) == ["id", "durability"]
    for path in ("/emails", "/domains", "/health/live", "/nowhere"):
        assert door.ask("GET", path).headers["everpost-durability"] == "relaxed"
    assert door.ask("GET", "/emails").json["durability"] == "relaxed"
    assert door.ask("GET", f"/emails/{sent.json['id']}").json["durability"] == "committed"


@pytest.mark.parametrize(
    ("server", "asked", "status"),
    [
        (Durability.RELAXED, "committed", 422),
        (Durability.RELAXED, "relaxed", 200),
        (Durability.COMMITTED, "committed", 200),
        (Durability.COMMITTED, "relaxed", 200),
        (Durability.COMMITTED, "eventual", 422),
        (Durability.COMMITTED, 1, 422),
    ],
)
def test_durability_that_is_asked_for_is_kept_or_refused(
    make_door: Callable[..., Door], server: Durability, asked: Any, status: int
) -> None:
    door = make_door(server)
    answer = door.ask("POST", "/emails", email(durability=asked))
    assert answer.status == status, answer.body
    assert len(door.store.messages_) == (status == 200)
    if status == 422:
        assert "`durability`" in answer.json["message"]
    batch = door.ask("POST", "/emails/batch", [email(), email(durability=asked)])
    assert batch.status == status
    assert len(door.store.messages_) == 3 * (status == 200)


ENGLISH = "tomorrow at 9am"


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads in which dateparser was asked."""
    threads: list[str] = []

    def parse(text: str, **_: Any) -> datetime | None:
        threads.append(threading.current_thread().name)
        return datetime(2026, 11, 24, 9, tzinfo=UTC) if text == ENGLISH else None

    monkeypatch.setattr("everpost.intake.schedule._dateparser", lambda: parse)
    return threads


def test_time_in_english_does_not_stop_the_event_loop(door: Door, reader: list[str]) -> None:
    door.send(scheduled_at=ENGLISH)
    assert door.store.messages_[-1].scheduled_at == NOW + 21 * 3_600_000
    body = [email(scheduled_at=ENGLISH), email(scheduled_at="in 1 min"), email()]
    for header in ("strict", "permissive"):
        answer = door.ask("POST", "/emails/batch", body, headers={"x-batch-validation": header})
        assert answer.status == 200
        assert [m.scheduled_at for m in door.store.messages_[-3:]] == [
            NOW + 21 * 3_600_000, NOW + 60_000, None,
        ]  # fmt: skip
    path = f"/emails/{answer.json['data'][0]['id']}"
    assert door.ask("PATCH", path, {"scheduled_at": ENGLISH}).status == 200
    assert len(reader) == 4
    assert all(name.startswith("words") for name in reader)


def test_english_that_names_no_time_is_refused_in_its_place(door: Door, reader: list[str]) -> None:
    answer = door.ask("POST", "/emails", email(scheduled_at="tomorrow at dawn"))
    assert (answer.status, answer.json["name"]) == (422, "validation_error")
    assert "`scheduled_at`" in answer.json["message"]
    items = [email(), email(scheduled_at="tomorrow at dawn")]
    strict = door.ask("POST", "/emails/batch", items)
    assert strict.json["message"].startswith("Item 1: Invalid `scheduled_at`")
    header = {"x-batch-validation": "permissive"}
    permissive = door.ask("POST", "/emails/batch", items, headers=header).json
    assert [each["index"] for each in permissive["errors"]] == [1]
    assert len(reader) == 3


def test_body_with_a_byte_order_mark_is_read(door: Door) -> None:
    def marked(body: Any) -> bytes:
        return b"\xef\xbb\xbf" + json.dumps(body).encode()

    assert door.ask("POST", "/emails", marked(email())).status == 200
    assert door.ask("POST", "/emails/batch", marked([email()])).status == 200
    assert door.ask("POST", "/domains", marked({"name": "new.test"})).status == 200
    twice = b"\xef\xbb\xbf" + marked(email())
    assert door.ask("POST", "/emails", twice).status == 400


def test_message_over_the_limit_is_413_like_a_body_over_it(door: Door) -> None:
    door.services.intake._limits = Limits(message_bytes=1000)
    answer = door.ask("POST", "/emails", email(text="x" * 2000))
    assert (answer.status, answer.json["name"]) == (413, "message_too_large")
    assert answer.json["statusCode"] == 413


def test_store_that_cannot_write_is_503_with_a_time_to_wait(door: Door) -> None:
    door.store.full = True
    answer = door.ask("POST", "/emails", email())
    assert (answer.status, answer.json["name"]) == (503, "service_unavailable")
    assert int(answer.headers["retry-after"]) >= 1


def test_store_that_is_damaged_is_503_with_a_name(door: Door) -> None:
    door.store.damaged = True
    answer = door.ask("POST", "/emails", email())
    assert (answer.status, answer.json["name"]) == (503, "store_corrupt")
    assert int(answer.headers["retry-after"]) >= 1
    assert "path" not in answer.json["message"]


def test_whatever_meets_a_damaged_store_is_503_with_its_name() -> None:
    answer = answer_to(StoreCorrupt("a path of this machine"), request_id="r")
    assert (answer.status, json.loads(answer.body)["name"]) == (503, "store_corrupt")
    assert dict(answer.headers)[b"retry-after"] == b"60"
    assert b"path" not in answer.body


def test_unexpected_fault_shows_no_detail(door: Door) -> None:
    door.store.broken = True
    answer = door.ask("POST", "/emails", email())
    assert (answer.status, answer.json["name"]) == (500, "application_error")
    assert b"secret-detail" not in answer.body
    assert answer.headers["x-request-id"] in answer.json["message"]
