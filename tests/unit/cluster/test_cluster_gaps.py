"""A time without answers that is measured too short, or laid at the wrong fault's door."""

from typing import Any

from tests.cluster.gaps import Gap, accept_gap, client_gap, false_promises, outages


def asked(at: float, key: str, **fields: Any) -> dict[str, Any]:
    return {"at": at, "kind": "invoke", "op": "send", "key": key, **fields}


def answered(at: float, key: str, **fields: Any) -> dict[str, Any]:
    return {"at": at, "kind": "ok", "op": "send", "key": key, "ids": ["x"], **fields}


def fault(at: float, phase: str, **fields: Any) -> dict[str, Any]:
    return {"at": at, "kind": "fault", "phase": phase, "fault": 1, "name": "hostkill", **fields}


def test_the_first_request_is_never_answered_and_does_not_count() -> None:
    events = [
        asked(1, "c1000-0"),
        asked(4, "c1000-1"),
        answered(5, "c1000-1"),
        answered(6, "c1001-0"),
    ]
    assert accept_gap(events) == Gap(4, 1)


def test_nothing_was_ever_asked() -> None:
    assert accept_gap([]) == Gap()
    assert client_gap([]) == Gap()


def test_one_client_waits_while_others_are_served() -> None:
    events = [
        asked(1, "c1000-0"), asked(1, "c1001-0"), answered(1.5, "c1001-0"), asked(2, "c1001-1"),
        answered(2.5, "c1001-1"), asked(3, "c1000-1"), answered(4, "c1000-1"),
    ]  # fmt: skip
    assert accept_gap(events) == Gap(1.5, 2.5)
    assert client_gap(events) == Gap(3, 1)


def test_the_pause_between_two_operations_counts_as_waiting() -> None:
    events = [
        asked(1, "c1000-0"),
        answered(2, "c1000-0"),
        asked(9, "c1000-1"),
        answered(9.5, "c1000-1"),
    ]
    assert client_gap(events) == Gap(1, 1)


def test_a_repeat_or_a_read_hides_that_nothing_new_is_accepted() -> None:
    events = [
        asked(1, "c1000-0"), answered(2, "c1000-0"), {**answered(3, "c1000-0"), "op": "repeat"},
        {**answered(4, "c1000-0"), "op": "get"}, answered(9, "c1000-1"),
    ]  # fmt: skip
    assert accept_gap(events) == Gap(7, 2)


def test_a_silence_from_before_a_fault_is_laid_at_its_door() -> None:
    events = [
        asked(0, "c1000-0"), answered(1, "c1000-0"), fault(5, "begin"), answered(8, "c1000-1"),
        fault(9, "end", host="h1"), answered(9.5, "c1000-2"), answered(40, "c1000-3"),
    ]  # fmt: skip
    (found,) = outages(events, [2.0, 7.0, 7.5, 30.0, 31.0])
    assert (found.name, found.begin, found.end) == ("hostkill", 5, 9)
    assert found.told == {"host": "h1"}
    assert found.accept_s == 30.5  # of the last silence, which began within it
    assert found.deliver_s == 22.5
    assert outages(events, [])[0].deliver_s == 0


def test_an_answer_says_replicated_while_no_standby_is_there() -> None:
    gone = fault(20, "end", gone_from=10.0, gone_until=15.0)
    journal = {"durability": ["journal+peer"]}
    events = [
        asked(9, "c1-0"), asked(9.5, "c1-1"), answered(11, "c1-0"),  # asked before
        asked(11, "c1-1"), answered(11.5, "c1-1"),  # again
        asked(11, "c1-2"), answered(12, "c1-2", **journal),
        asked(12, "c1-3"), answered(13, "c1-3"),
        {**answered(13.5, "c1-3"), "op": "repeat"}, {**answered(13.5, "x"), "op": "get"},
        asked(14, "c1-4"), answered(16, "c1-4"),  # answered after
        fault(8, "begin"), gone,
    ]  # fmt: skip
    assert false_promises(events) == ["c1-3"]


def test_a_client_that_rests_after_a_batch_counts_as_one_that_waits() -> None:
    events = [asked(1, "c1-0"), answered(2, "c1-0"), asked(30, "c1-1"), answered(31, "c1-1")]
    assert accept_gap(events) == client_gap(events) == Gap()
