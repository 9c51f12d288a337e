"""Two owners of one claim that nobody notices, and a further name of a message that is taken for
another message."""

from typing import Any
from uuid import UUID

from tests.cluster.record import not_yet_shown, overlapping, resolved, two_owners

MESSAGE = UUID(int=7).bytes
OTHER = UUID(int=8).bytes


def test_a_claim_has_two_owners() -> None:
    owners = {(MESSAGE, 0, 1): {b"a"}, (MESSAGE, 0, 2): {b"b"}, (OTHER, 0, 1): {b"a", b"b"}}
    assert two_owners(owners) == [f"{UUID(int=8)}/0 term 1: 2 owners"]


def test_two_attempts_run_at_one_time() -> None:
    rows = [(MESSAGE, 0, 100, 200), (MESSAGE, 0, 200, 300), (MESSAGE, 1, 250, 400)]
    assert not overlapping(rows)
    assert overlapping([*rows, (MESSAGE, 1, 390, 500)]) == [
        f"{UUID(int=7)}/1: an attempt began 10 ms too soon"
    ]


def test_a_key_is_answered_with_a_further_name() -> None:
    events: list[dict[str, Any]] = [{"kind": "ok", "ids": ["b", "c"]}, {"kind": "invoke"}]
    assert resolved(events, {"b": "a"}) == [{"kind": "ok", "ids": ["a", "c"]}, {"kind": "invoke"}]
    assert events[0]["ids"] == ["b", "c"]


def test_a_read_too_early_hides_a_message_that_is_gone() -> None:
    def missed(at: float, of: str) -> dict[str, Any]:
        return {"at": at, "kind": "fail", "op": "get", "key": of, "of": of, "status": 404}

    early, late, lost = missed(6, "a"), missed(90, "a"), missed(6, "b")
    events = [
        {"at": 5, "kind": "ok", "op": "send", "ids": ["a"], "durability": ["journal+peer"]},
        {"at": 5, "kind": "ok", "op": "send", "ids": ["b"], "durability": ["replicated"]},
        early, late, lost,
    ]  # fmt: skip
    assert not_yet_shown(events) == [early]
