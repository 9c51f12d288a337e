"""The judge of a chaos run finds each kind of violation, and nothing in a clean run."""

import dataclasses
from typing import Any

import pytest

from tests.chaos.checker import BROKEN, check
from tests.chaos.operations import Operations, body_hash, message_of
from tests.chaos.record import Element, Recorded
from tests.chaos.sink import REFUSED, Taken

NAME, ONE = "c0-0.0", "c0-0.0.0"
Events = list[dict[str, Any]]


def sent(*endings: str, elements: tuple[tuple[str, ...], ...] = ((ONE,),), **more: Any) -> Events:
    """One operation, c0-0, with an invoke before each ending but the first."""
    found: Events = []
    for n, kind in enumerate(endings):
        invoke: dict[str, Any] = {"at": 10.0 + n, "kind": "invoke", "op": "send", "key": "c0-0"}
        if n == 0:
            invoke |= {"messages": elements, "due": 0.0, **more}
        end: dict[str, Any] = {"at": 10.5 + n, "kind": kind, "op": "send", "key": "c0-0"}
        if kind == "ok":
            end["ids"] = [f"id-{message_of(each[0])}" for each in elements]
        found += [invoke, end]
    return found


def taken(element: str = ONE, *, at: float = 11.0, message_id: str = "m", body: str = "") -> Taken:
    body = body or body_hash(message_of(element))
    return Taken("s", at, "a@example.test", (f"{element}@receiver.test",), message_id, body, "250")


def kept(
    *elements: str, state: str = "delivered", policy: str = "resend", due: int | None = None,
    id_: str = "", **element: Any,
) -> Recorded:  # fmt: skip
    elements = elements or (ONE,)
    name = message_of(elements[0])
    each = Element(state, **element)
    return Recorded(id_ or f"id-{name}", name, "m", policy, due, dict.fromkeys(elements, each))


def broken(events: Events, copies: list[Taken], record: list[Recorded]) -> set[str]:
    found = check(events, copies, record).broken
    assert set(found) <= set(BROKEN)
    return set(found)


def test_a_clean_run_passes() -> None:
    verdict = check(sent("ok"), [taken()], [kept()])
    assert verdict.good
    assert (verdict.acknowledged, verdict.delivered, verdict.ends) == (1, 1, {"delivered": 1})


def test_what_was_acknowledged_and_is_nowhere_is_lost() -> None:
    assert broken(sent("ok"), [], []) == {"lost", "wrong_id"}


def test_what_arrived_and_is_not_in_the_record_is_lost_too() -> None:
    assert "lost" in broken(sent("ok"), [taken()], [])


def test_what_the_record_calls_delivered_and_no_sink_has_is_lost() -> None:
    assert broken(sent("ok"), [], [kept()]) == {"lost", "phantom_delivery"}


@pytest.mark.parametrize("state", ["queued", "claimed"])
def test_what_is_still_under_way_after_the_drain_is_found(state: str) -> None:
    assert broken(sent("ok"), [], [kept(state=state)]) == {"unended"}


@pytest.mark.parametrize(
    "record",
    [
        kept(state="bounced"),
        kept(state="cancelled"),
        kept(state="expired"),
        kept(state="failed"),
        kept(state="failed", in_doubt=1),
        kept(state="failed", policy="fail"),
        kept(state="held", reason="in_doubt", in_doubt=1),
        kept(state="held", reason="in_doubt", policy="hold"),
        kept(state="held", reason="damaged"),
        kept(state="held", reason="poison"),
    ],
)
def test_an_end_that_nothing_explains_is_found(record: Recorded) -> None:
    assert broken(sent("ok"), [], [record]) == {"wrong_end"}


def test_ends_that_are_explained_pass() -> None:
    assert not broken(sent("ok"), [], [kept(state="failed", policy="fail", in_doubt=1)])
    held = kept(state="held", reason="in_doubt", policy="hold", in_doubt=1)
    assert not broken(sent("ok"), [taken()], [held])
    refused = f"{REFUSED}{ONE}"
    assert not broken(sent("ok", elements=((refused,),)), [], [kept(refused, state="bounced")])
    flip = {"at": 12.0, "kind": "flip", "elements": [ONE]}
    assert not broken([*sent("ok"), flip], [], [kept(state="held", reason="damaged")])


def test_a_copy_that_nobody_sent_is_unexpected() -> None:
    assert broken([], [taken()], []) == {"unexpected"}


def test_what_is_recorded_and_nobody_sent_is_unexpected() -> None:
    other = kept("c9-9.0.0", state="cancelled")
    assert broken(sent("ok"), [taken()], [kept(), other]) == {"unexpected"}


def test_a_copy_at_another_domain_is_unexpected() -> None:
    stray = Taken("s", 11.0, "a@example.test", (f"{ONE}@else.test",), "m", body_hash(NAME), "250")
    assert broken(sent("ok"), [taken(), stray], [kept()]) == {"unexpected"}


def test_delivered_without_an_answer_from_any_sink_is_found() -> None:
    swallowed = dataclasses.replace(taken(), answer="")
    assert broken(sent("ok"), [swallowed], [kept(in_doubt=1)]) == {"phantom_delivery"}
    assert not broken(sent("ok"), [swallowed, taken()], [kept(in_doubt=1)])


@pytest.mark.parametrize("policy", ["hold", "fail"])
def test_mail_that_is_sent_on_against_its_policy_is_found(policy: str) -> None:
    events, twice = sent("ok", policies=[policy]), [taken(), taken()]
    assert broken(events, twice, [kept(policy=policy, in_doubt=1)]) == {"against_policy"}
    release = {"at": 20.0, "kind": "release", "of": f"id-{NAME}"}
    assert not broken([*events, release], twice, [kept(policy=policy, in_doubt=1)])


def test_a_policy_that_the_record_has_changed_is_found() -> None:
    held = kept(state="held", reason="in_doubt", policy="hold", in_doubt=1)
    assert broken(sent("ok", policies=["resend"]), [], [held]) == {"policy_differs"}


def test_a_second_copy_needs_an_attempt_in_doubt() -> None:
    twice = [taken(), taken()]
    assert broken(sent("ok"), twice, [kept()]) == {"copies_unlisted"}
    verdict = check(sent("ok"), twice, [kept(in_doubt=1)])
    assert verdict.good
    assert verdict.duplicates == {ONE: (2, 1)}


def test_a_copy_of_what_was_not_delivered_needs_an_attempt_in_doubt() -> None:
    events = [*sent("ok"), {"at": 9.0, "kind": "invoke", "op": "cancel", "of": "c0-0"}]
    assert broken(events, [taken()], [kept(state="cancelled")]) == {"copies_unlisted"}


def test_copies_with_two_message_ids_are_found() -> None:
    copies = [taken(), taken(message_id="other")]
    assert broken(sent("ok"), copies, [kept(in_doubt=1)]) == {"copies_differ"}


def test_a_message_id_that_is_not_the_records_is_found() -> None:
    for other in ("other", ""):
        copies = [taken(message_id=other)]
        assert broken(sent("ok"), copies, [kept()]) == {"copies_differ"}


def test_a_body_that_changed_on_the_way_is_found() -> None:
    assert broken(sent("ok"), [taken(body="00")], [kept()]) == {"body_differs"}


def test_one_key_answered_with_two_ids_is_found() -> None:
    events = sent("ok", "ok")
    events[-1]["ids"] = ["another"]
    assert broken(events, [taken()], [kept()]) == {"two_ids", "wrong_id"}


def test_an_answer_without_ids_is_found() -> None:
    events = sent("ok")
    events[-1]["ids"] = []
    assert broken(events, [taken()], [kept()]) == {"wrong_id"}


@pytest.mark.parametrize("status", [401, 404, 409, 422])
def test_a_sound_request_that_is_refused_for_good_is_found(status: int) -> None:
    events = sent("info", "fail")
    events[-1]["status"] = status
    assert broken(events, [taken()], [kept()]) == {"sound_refused"}


def test_a_repeat_of_what_was_acknowledged_must_not_be_refused() -> None:
    for op in ("send", "later"):
        events = sent("ok", "fail", op=op)
        events[-1] |= {"op": "repeat", "status": 422}
        assert broken(events, [taken()], [kept()]) == {"sound_refused"}
        events[-1]["status"] = 503
        assert not broken(events, [taken()], [kept()])


def test_what_is_for_later_may_be_refused_when_its_hour_is_past() -> None:
    events = sent("fail", "fail", op="later")
    events[-1]["status"] = 422
    assert not broken(events, [], [])


def test_an_invalid_batch_that_is_taken_is_found() -> None:
    elements = (("c0-0.0.0",), ("c0-0.1.0",))
    both = [kept("c0-0.0.0"), kept("c0-0.1.0")]
    copies = [taken("c0-0.0.0"), taken("c0-0.1.0")]
    for end in ("ok", "info"):
        events = sent(end, elements=elements, op="invalid_batch")
        assert broken(events, copies, both) == {"invalid_accepted"}


def test_an_answer_of_500_is_found() -> None:
    events = sent("fail", "ok")
    events[1]["status"] = 500
    assert broken(events, [taken()], [kept()]) == {"crashed"}


def test_one_message_recorded_twice_is_found() -> None:
    assert "accepted_twice" in broken(sent("ok"), [taken()], [kept(), kept(id_="another")])


def test_what_was_refused_for_certain_must_not_be_there() -> None:
    found = broken(sent("fail"), [taken()], [kept()])
    assert found == {"refused_delivered", "refused_recorded"}


def test_what_was_refused_after_an_unknown_try_may_be_there() -> None:
    assert not broken(sent("info", "fail"), [taken()], [kept()])


def test_what_is_of_unknown_fate_and_arrived_is_recovered() -> None:
    verdict = check(sent("info"), [taken()], [kept()])
    assert verdict.good
    assert verdict.recovered == 1


def test_half_a_batch_is_found_even_if_nobody_was_answered() -> None:
    elements = (("c0-0.0.0",), ("c0-0.1.0",))
    found = broken(sent("info", elements=elements), [taken()], [kept()])
    assert found == {"partial"}
    assert not broken(sent("info", elements=elements), [], [])


def test_a_message_without_one_of_its_recipients_is_found() -> None:
    elements = (("c0-0.0.0", "c0-0.0.1"),)
    found = broken(sent("ok", elements=elements), [taken()], [kept()])
    assert found == {"partial", "lost"}


def test_mail_before_its_time_is_found_by_the_sinks_clock_and_by_the_record() -> None:
    events = sent("ok", due=12.0)
    assert broken(events, [taken(at=11.0)], [kept(due=5_000)]) == {"early"}
    assert broken(events, [taken(at=12.5)], [kept(due=5_000, first_ms=4_999)]) == {"early"}
    assert not broken(events, [taken(at=12.5)], [kept(due=5_000, first_ms=5_000)])


def test_mail_after_an_acknowledged_cancel_is_found() -> None:
    cancel = {"at": 11.0, "kind": "ok", "op": "cancel", "of": "c0-0"}
    held = kept(state="cancelled", in_doubt=1)
    assert broken([*sent("ok"), cancel], [taken(at=12.0)], [held]) == {"after_cancel"}
    assert not broken([*sent("ok"), cancel], [taken(at=10.9)], [held])


def test_an_acknowledged_cancel_that_did_not_hold_is_found() -> None:
    cancel = {"at": 11.0, "kind": "ok", "op": "cancel", "of": "c0-0"}
    assert broken([*sent("ok"), cancel], [taken(at=10.9)], [kept()]) == {"cancel_undone"}
    held = kept(state="cancelled", in_doubt=1)
    assert not broken([*sent("ok"), cancel], [taken(at=10.9)], [held])


def test_a_cancel_that_was_refused_explains_no_cancellation() -> None:
    asked = {"at": 11.0, "kind": "invoke", "op": "cancel", "of": "c0-0"}
    for status, found in ((422, {"wrong_end"}), (503, set())):
        answer = {"at": 11.1, "kind": "fail", "op": "cancel", "of": "c0-0", "status": status}
        events = [*sent("ok"), asked, answer]
        assert broken(events, [], [kept(state="cancelled")]) == found


def test_an_acknowledged_message_that_a_read_does_not_find_is_reported() -> None:
    get = {"at": 11.0, "kind": "fail", "op": "get", "of": f"id-{NAME}", "status": 404}
    assert broken([*sent("ok"), get], [taken()], [kept()]) == {"unreadable"}
    assert not broken([*sent("ok"), {**get, "status": 503}], [taken()], [kept()])


def test_what_a_client_chooses_afterwards_changes_nothing_of_what_comes_next() -> None:
    one, other = Operations(7, 1), Operations(7, 1)
    for n in range(50):
        assert one.next() == other.next()
        chosen = one.pick(1000)
        for _ in range(n):
            one.choice(0.5)
        assert other.pick(1000) == chosen


def test_a_seed_gives_the_same_operations_of_every_kind() -> None:
    one, same, other = Operations(7, 1), Operations(7, 1), Operations(8, 1)
    first = [one.next() for _ in range(200)]
    assert first == [same.next() for _ in range(200)]
    assert first != [other.next() for _ in range(200)]
    assert len({operation.kind for operation in first}) == 8
    elements = [e for o in first for m in o.messages for e in m.recipients]
    assert len(set(elements)) == len(elements)
    assert any(e.startswith(REFUSED) for e in elements)
    assert all(message_of(e) == m.name for o in first for m in o.messages for e in m.recipients)
