"""The judge of a chaos run finds each kind of violation, and nothing in a clean history."""

from typing import Any

from tests.chaos.checker import Copy, Element, check
from tests.chaos.nemesis import FAULTS, schedule


def _sent(key: str, id_: str = "m1") -> list[dict[str, Any]]:
    return [{"kind": "invoke", "key": key}, {"kind": "ok", "key": key, "id": id_}]


def test_a_clean_history_passes() -> None:
    assert check(_sent("a"), [Copy("a", "x")], {}).good


def test_an_acknowledged_message_that_is_nowhere_is_lost() -> None:
    assert check(_sent("a"), [], {}).lost == ["a"]


def test_a_message_recorded_as_delivered_that_no_sink_has_is_lost() -> None:
    assert check(_sent("a"), [], {"a": Element("delivered", 0)}).lost == ["a"]


def test_a_bounced_message_is_not_lost() -> None:
    assert check(_sent("a"), [], {"a": Element("bounced", 0)}).good


def test_a_copy_that_nobody_sent_is_unexpected() -> None:
    assert check([], [Copy("a", "x")], {}).unexpected == ["a"]


def test_a_second_copy_needs_an_attempt_in_doubt() -> None:
    twice = [Copy("a", "x"), Copy("a", "x")]
    assert check(_sent("a"), twice, {"a": Element("delivered", 0)}).copies_unlisted == ["a"]
    assert check(_sent("a"), twice, {"a": Element("delivered", 1)}).good


def test_copies_must_carry_one_message_id() -> None:
    copies = [Copy("a", "x"), Copy("a", "y")]
    assert check(_sent("a"), copies, {"a": Element("delivered", 1)}).copies_differ == ["a"]


def test_one_key_answered_with_two_ids_is_found() -> None:
    events = _sent("a", "m1") + _sent("a", "m2")
    assert check(events, [Copy("a", "x")], {}).two_ids == ["a"]


def test_a_refused_message_must_not_arrive() -> None:
    events: list[dict[str, Any]] = [
        {"kind": "invoke", "key": "a"},
        {"kind": "fail", "key": "a", "status": 503},
    ]
    assert check(events, [Copy("a", "x")], {}).refused_delivered == ["a"]


def test_a_message_of_unknown_fate_that_arrived_is_recovered() -> None:
    events: list[dict[str, Any]] = [{"kind": "invoke", "key": "a"}, {"kind": "info", "key": "a"}]
    verdict = check(events, [Copy("a", "x")], {})
    assert verdict.good
    assert verdict.recovered == 1


def test_a_seed_gives_the_same_schedule_with_every_fault_in_it() -> None:
    plan = schedule(7, 60)
    assert plan == schedule(7, 60)
    assert plan != schedule(8, 60)
    assert {f.name for f in plan} == set(FAULTS)
