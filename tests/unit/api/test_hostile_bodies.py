"""JSON bombs (S29), encoded and endless bodies (S28): refused, never a 500."""

from collections.abc import Callable

import pytest

from everpost.api import Admission, AdmissionLimits
from everpost.api.drafts import decode
from everpost.model.errors import Refusal
from tests.support.hostile import REQUESTS, HostileRequest
from tests.unit.api.conftest import Door, email

BODIES = [row for row in REQUESTS if row.row in {"S9", "S29", "S32"}]


def own(row: HostileRequest) -> bytes:
    """The row's body with the sender that this door's tenant may use."""
    return row.body.replace(b"sender@example.test", b"sender@example.com")


@pytest.mark.parametrize("row", REQUESTS, ids=str)
def test_hostile_body_is_refused_with_4xx_that_says_why(door: Door, row: HostileRequest) -> None:
    answer = door.ask("POST", "/emails", own(row), headers=row.headers)
    assert answer.status == row.status, answer.body[:300]
    if row.status == 200:
        assert len(door.store.messages_) == 1
        return
    assert answer.json["statusCode"] == row.status
    assert row.said in answer.json["message"]
    assert len(answer.body) < 2000
    assert answer.json["message"].isascii()
    assert not door.store.messages_


@pytest.mark.parametrize("row", BODIES, ids=str)
@pytest.mark.parametrize("mode", ["strict", "permissive"])
def test_hostile_body_in_a_batch_spoils_its_own_item_at_most(
    door: Door, row: HostileRequest, mode: str
) -> None:
    body = b"[" + own(row) + b"]"
    answer = door.ask("POST", "/emails/batch", body, headers={"x-batch-validation": mode})
    accepted = answer.status == 200 and bool(answer.json["data"])
    assert accepted == bool(door.store.messages_)
    assert answer.status in {200, 400, 422}
    if row.status != 200:
        assert not accepted
        errors = answer.json.get("errors") or [answer.json]
        assert errors[0]["message"].isascii()


@pytest.mark.parametrize(
    "path",
    ["/relays", "/domains", "/api-keys", "/pools", "/routes", "/routes/explain", "/apply"],
)
@pytest.mark.parametrize("row", [r for r in BODIES if r.said == "not valid JSON"], ids=str)
def test_settings_endpoints_refuse_bombs_too(door: Door, path: str, row: HostileRequest) -> None:
    assert door.ask("POST", path, row.body).status in {400, 413, 422}


def test_settings_endpoints_take_small_bodies_only(door: Door) -> None:
    assert door.ask("POST", "/domains", b'{"name":"' + b"a" * 70_000 + b'"}').status == 413


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
