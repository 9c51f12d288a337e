"""Every limit of a request at n-1, n and n+1 (S28, S32, S51): within it is accepted, beyond it is
refused by the name of its field, and nothing is queued."""

import base64
from collections.abc import Callable
from typing import Any

import pytest

from everpost.intake import Limits
from tests.unit.api.conftest import Door, email

LIMITS = Limits()
Build = Callable[[int], dict[str, Any]]


def _file(**changes: Any) -> dict[str, Any]:
    return {"filename": "a.txt", "content": "SGk=", **changes}


def _people(count: int) -> list[str]:
    return [f"u{n}@good.test" for n in range(count)]


def _exactly(count: int) -> dict[str, Any]:
    """Headers of `count` octets in all, each within its own limit."""
    headers = {f"X-{n:02}": "v" * 4092 for n in range(15)}  # 4096 octets each
    rest = count - 15 * 4096
    return {"headers": {**headers, "Y-00": "v" * (rest - 4)}}


SIZES: dict[str, tuple[int, str, Build]] = {
    "recipients in to": (LIMITS.recipients_per_field, "to", lambda n: {"to": _people(n)}),
    "recipients in cc": (LIMITS.recipients_per_field, "cc", lambda n: {"cc": _people(n)}),
    "recipients in bcc": (LIMITS.recipients_per_field, "bcc", lambda n: {"bcc": _people(n)}),
    "addresses in reply_to": (
        LIMITS.recipients_per_field, "reply_to", lambda n: {"reply_to": _people(n)},
    ),
    "local part": (64, "to", lambda n: {"to": "a" * n + "@good.test"}),
    "label": (63, "to", lambda n: {"to": "a@" + "b" * n + ".test"}),
    "address": (
        254, "to", lambda n: {"to": "a@" + ("b" * 62 + ".") * 3 + "e" * (n - 196) + ".test"},
    ),
    "display name": (320, "from", lambda n: {"sender": f"{'n' * n} <news@example.com>"}),
    "subject": (LIMITS.subject_chars, "subject", lambda n: {"subject": "s" * n}),
    "subject in emoji": (LIMITS.subject_chars, "subject", lambda n: {"subject": "\U0001f600" * n}),
    "headers": (
        LIMITS.headers, "headers", lambda n: {"headers": {f"X-{i}": "v" for i in range(n)}},
    ),
    "header name": (76, "headers", lambda n: {"headers": {"X" * n: "v"}}),
    "header value": (
        LIMITS.header_value_bytes, "headers", lambda n: {"headers": {"X-A": "v" * n}},
    ),
    "octets of all headers": (LIMITS.header_bytes, "headers", _exactly),
    "tags": (
        LIMITS.tags, "tags",
        lambda n: {"tags": [{"name": f"t{i}", "value": "v"} for i in range(n)]},
    ),
    "tag name": (256, "tags", lambda n: {"tags": [{"name": "t" * n, "value": "v"}]}),
    "tag value": (256, "tags", lambda n: {"tags": [{"name": "t", "value": "v" * n}]}),
    "metadata": (
        LIMITS.metadata, "metadata", lambda n: {"metadata": {f"k{i}": "v" for i in range(n)}},
    ),
    "metadata name": (
        LIMITS.metadata_key_chars, "metadata", lambda n: {"metadata": {"k" * n: "v"}},
    ),
    "metadata value": (
        LIMITS.metadata_value_chars, "metadata", lambda n: {"metadata": {"k": "v" * n}},
    ),
    "attachments": (
        LIMITS.attachments, "attachments", lambda n: {"attachments": [_file()] * n},
    ),
    "filename": (
        LIMITS.filename_chars, "attachments", lambda n: {"attachments": [_file(filename="f" * n)]},
    ),
    "content id": (
        128, "attachments", lambda n: {"attachments": [_file(content_id="c" * n)]},
    ),
    "content type": (
        127, "attachments", lambda n: {"attachments": [_file(content_type="a/" + "b" * n)]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_one_more_than_the_limit_is_accepted_or_the_limit_is_not(door: Door, name: str) -> None:
    most, field, build = SIZES[name]
    for count in (most - 1, most):
        answer = door.ask("POST", "/emails", email(**build(count)))
        assert answer.status == 200, (count, answer.body)
    accepted = len(door.store.messages_)
    answer = door.ask("POST", "/emails", email(**build(most + 1)))
    assert answer.status == 422, answer.body
    assert f"`{field}`" in answer.json["message"]
    assert len(door.store.messages_) == accepted == 2


def test_longest_idempotency_key_is_refused_or_a_longer_one_is_not(door: Door) -> None:
    for count, status in ((255, 200), (256, 200), (257, 400)):
        answer = door.ask("POST", "/emails", email(), headers={"Idempotency-Key": "k" * count})
        assert answer.status == status
    assert "idempotency key" in answer.json["message"]
    assert len(door.store.messages_) == 2


def test_batch_of_one_more_than_a_hundred_is_accepted(door: Door) -> None:
    for count, status in ((0, 422), (1, 200), (99, 200), (100, 200), (101, 422)):
        before = len(door.store.messages_)
        answer = door.ask("POST", "/emails/batch", [email()] * count)
        assert answer.status == status
        assert len(door.store.messages_) - before == (count if status == 200 else 0)


def test_body_of_one_octet_more_than_the_limit_is_read(make_door: Callable[..., Door]) -> None:
    door = make_door(body_bytes=10_000)
    for size, status in ((9_999, 200), (10_000, 200), (10_001, 413)):
        body = b'{"from":"news@example.com","to":"a@good.test","subject":"x","text":"'
        body += b"y" * (size - len(body) - 2) + b'"}'
        assert len(body) == size
        assert door.ask("POST", "/emails", body).status == status
        assert door.ask("POST", "/emails", chunks=[body[:5], body[5:]]).status == status
    assert len(door.store.messages_) == 4


def test_message_over_the_limit_is_queued(door: Door) -> None:
    """40 MB in all: attachments count as they will be written, in base64."""
    size = 40 * 1024 * 1024
    content = base64.b64encode(bytes(size // 4 * 3)).decode()
    answer = door.ask("POST", "/emails", email(attachments=[_file(content=content)]))
    assert (answer.status, answer.json["name"]) == (413, "message_too_large")
    assert not door.store.messages_


def test_page_of_one_more_than_a_hundred_is_given(door: Door) -> None:
    for path in ("/emails", "/domains", "/audit"):
        for limit, status in ((0, 422), (1, 200), (99, 200), (100, 200), (101, 422)):
            answer = door.ask("GET", f"{path}?limit={limit}")
            assert answer.status == status
            assert status == 200 or "`limit`" in answer.json["message"]
