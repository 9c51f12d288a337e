"""JSON bombs (S29), encoded and endless bodies (S28): refused, never a 500."""

import json
from collections.abc import Callable

import pytest

from everpost.api import Admission, AdmissionLimits
from everpost.api.drafts import decode
from everpost.model.errors import Refusal
from tests.unit.api.conftest import Door, email

DEEP = 100_000
PLAIN = json.dumps(email())[1:-1].encode()

BOMBS = {
    "nested arrays": b"[" * DEEP,
    "nested arrays, closed": b"[" * DEEP + b"]" * DEEP,
    "nested in an unknown field": b'{"x":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "nested objects": b'{"x":' * DEEP + b"1" + b"}" * DEEP,
    "nested in an attachment": b'{"attachments":[{"content":' + b"[" * DEEP + b"]" * DEEP + b"}]}",
    "nested in a template": b'{"template":{"a":' + b"[" * DEEP + b"]" * DEEP + b"}}",
    "number of 100,000 digits": b'{"to":' + b"9" * DEEP + b"}",
    "float without end": b'{"to":1e999}',
    "not a number": b'{"to":NaN}',
    "infinity": b'{"to":Infinity}',
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": json.dumps(email()).encode("utf-16"),
    "bad UTF-8": b'{"to":"\xff"}',
    "half a surrogate": b'{"to":"\\ud800"}',
    "encoded surrogate": b'{"to":"\xed\xa0\x80"}',
    "two values": b"{} {}",
    "nothing": b"",
    "cut off": b'{"to":"a@b.test"',
    "trailing comma": b'{"to":"a@b.test",}',
    "single quotes": b"{'to':'a@b.test'}",
    "another type": b'"text"',
    "null": b"null",
    "a million recipients": b'{"to":[' + b",".join([b'"a@b.test"'] * 1_000_000) + b"]," + PLAIN[1:],
    "key of 10 MB": b'{"' + b"k" * 10_000_000 + b'":1}',
    "a thousand attachments": b'{"attachments":[' + b",".join([b"{}"] * 1000) + b"]}",
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("path", ["/emails", "/emails/batch"])
def test_bomb_is_refused_with_400_or_422(door: Door, name: str, path: str) -> None:
    answer = door.ask("POST", path, BOMBS[name])
    assert answer.status in {400, 422}, answer.body[:300]
    assert answer.json["name"] in {"validation_error", "missing_required_field"}
    assert len(answer.body) < 2000
    assert not door.store.messages_


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_in_a_permissive_batch_spoils_its_own_item_at_most(door: Door, name: str) -> None:
    body = b"[" + BOMBS[name] + b"]"
    answer = door.ask("POST", "/emails/batch", body, headers={"x-batch-validation": "permissive"})
    assert answer.status in {200, 400, 422}
    assert not door.store.messages_


def test_duplicate_keys_take_the_last_one(door: Door) -> None:
    body = b'{"subject":"first",' + PLAIN + b"}"
    assert door.ask("POST", "/emails", body).status == 200
    assert door.store.messages_[-1].subject == "Hello"


@pytest.mark.parametrize("path", ["/relays", "/domains", "/api-keys"])
@pytest.mark.parametrize("name", ["nested in an unknown field", "bad UTF-8", "nothing", "null"])
def test_settings_endpoints_refuse_bombs_too(door: Door, path: str, name: str) -> None:
    assert door.ask("POST", path, BOMBS[name]).status in {400, 413, 422}


def test_settings_endpoints_take_small_bodies_only(door: Door) -> None:
    assert door.ask("POST", "/domains", b'{"name":"' + b"a" * 70_000 + b'"}').status == 413


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, gzip"])
def test_compressed_body_is_refused_unread(door: Door, encoding: str) -> None:
    answer = door.ask("POST", "/emails", b"\x1f\x8b", headers={"Content-Encoding": encoding})
    assert answer.status == 415
    assert answer.json["statusCode"] == 415


def test_declared_length_over_the_limit_is_refused_before_reading(
    make_door: Callable[..., Door],
) -> None:
    door = make_door(body_bytes=1000)
    answer = door.ask("POST", "/emails", b"{}", headers={"Content-Length": "1001"})
    assert (answer.status, answer.json["name"]) == (413, "validation_error")


def test_endless_chunked_body_is_cut_at_the_limit(make_door: Callable[..., Door]) -> None:
    door = make_door(body_bytes=1000)
    answer = door.ask("POST", "/emails", chunks=[b" " * 400] * 100)
    assert answer.status == 413


def test_bodies_in_hand_are_bounded_together_and_given_back(
    make_door: Callable[..., Door],
) -> None:
    limits = AdmissionLimits(body_bytes=1000)
    admission = Admission(limits, now=lambda: 1.0, chance=lambda: 0.5)
    door = make_door(admission=admission)
    for _ in range(3):
        refused = door.ask("POST", "/emails", chunks=[b" " * 600, b" " * 600])
        assert refused.status == 503
        assert "retry-after" in refused.headers
    assert door.ask("POST", "/emails", email()).status == 200
    assert admission.held == 0


def test_work_grows_with_the_size_of_a_body_not_faster() -> None:
    """An array of byte values must never become a list of as many integers."""
    import tracemalloc

    def peak(numbers: int) -> int:
        content = ",".join(["255"] * numbers)
        body = f'{{"attachments":[{{"filename":"f","content":[{content}]}}]}}'.encode()
        tracemalloc.start()
        try:
            from everpost.api.drafts import _attachment

            attachments = decode(body).attachments
            assert attachments is not None
            assert len(_attachment(attachments[0]).content) == numbers
            return tracemalloc.get_traced_memory()[1] - numbers * 4
        finally:
            tracemalloc.stop()

    assert peak(400_000) < 400_000 * 5


def test_message_of_a_refusal_stays_short() -> None:
    with pytest.raises(Refusal) as refused:
        decode(b'{"headers":{"' + b"k" * 100_000 + b'":1}}')
    assert len(refused.value.message) < 500
