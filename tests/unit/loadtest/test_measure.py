"""What is counted of a message: from its intended start, and until it has arrived in full."""

from everpost.loadtest.measure import Measure
from everpost.loadtest.plan import Step


def _measure(recipients: int = 1, intended: float = 100.5) -> tuple[Measure, int]:
    measure = Measure("r1", began=100.0, arrivals=True)
    tally = measure.begin(Step.steady(1, 10), 100.0)
    return measure, measure.number(tally, intended, recipients)


def test_time_counts_from_when_the_request_was_sent() -> None:
    measure, n = _measure()
    tally = measure.steps[0]
    measure.was_sent(tally, 1, 103.0)
    measure.was_accepted(tally, n, ["id"], intended=100.5, now=104.5)
    measure.has_arrived("r1.0", 1, 105.0)
    assert (tally.latency.at(1), tally.from_start.at(1)) == (4.0, 4.5)
    assert tally.from_accept.at(1) == 0.5
    assert (measure.arrived, measure.backlog, measure.missing()) == (1, 0, (0, []))
    assert [s.planned for s in measure.seconds] == [1, 0, 0, 0, 0, 0]
    assert measure.seconds[0].latency.count == 1
    assert (measure.seconds[3].sent, measure.seconds[4].accepted) == (1, 1)


def test_mail_that_arrives_before_its_answer_is_lost() -> None:
    measure, n = _measure()
    measure.has_arrived("r1.0", 1, 101.0)
    assert measure.arrived == 0
    measure.was_accepted(measure.steps[0], n, ["id"], intended=100.5, now=101.5)
    assert measure.arrived == 1
    assert measure.steps[0].from_accept.at(1) == 0.0


def test_a_message_counts_as_arrived_when_half_its_recipients_have_it() -> None:
    measure, n = _measure(recipients=3)
    measure.was_accepted(measure.steps[0], n, ["id-1"], intended=100.5, now=101.0)
    measure.has_arrived("r1.0", 2, 102.0)
    count, (missing,) = measure.missing()
    assert (count, missing.id, missing.recipients) == (1, "id-1", 1)
    measure.has_arrived("r1.0", 1, 103.0)
    assert measure.steps[0].from_start.at(1) == 2.5


def test_a_second_copy_is_not_noticed() -> None:
    measure, n = _measure()
    measure.was_accepted(measure.steps[0], n, ["id"], intended=100.5, now=101.0)
    measure.has_arrived("r1.0", 1, 102.0)
    measure.has_arrived("r1.0", 1, 102.5)
    assert (measure.arrived, measure.duplicates) == (1, 1)


def test_mail_of_a_failed_request_arrives_and_nobody_tells() -> None:
    measure, n = _measure()
    measure.has_failed(measure.steps[0], n, 1, "timeout", intended=100.5, now=130.5)
    measure.has_arrived("r1.0", 1, 131.0)
    assert (measure.unacknowledged, measure.arrived, measure.missing()[0]) == (1, 0, 0)


def test_what_waited_in_vain_makes_the_server_look_fast() -> None:
    measure, n = _measure()
    tally = measure.steps[0]
    measure.has_failed(tally, n, 1, "timeout", intended=100.5, now=130.5)
    assert tally.latency.at(1) == 30.0
    second = measure.number(tally, 101.0, 1)
    measure.has_failed(tally, second, 1, "status 503", intended=101.0, now=101.1)
    assert tally.latency.count == 1  # an answer, but none that accepts
    assert tally.errors == {"timeout": 1, "status 503": 1}
    assert tally.error_share == 1.0


def test_mail_of_another_run_is_counted_as_ours() -> None:
    measure, _ = _measure()
    for mark in ("r2.0", "r1.x", "", "r1.-1", "0"):
        measure.has_arrived(mark, 1, 101.0)
    assert (measure.foreign, measure.duplicates, measure.arrived) == (5, 0, 0)


def test_the_rate_of_a_step_that_took_longer_than_planned() -> None:
    measure, n = _measure()
    tally = measure.steps[0]
    measure.was_accepted(tally, n, ["id"], intended=100.5, now=120.0)
    assert tally.per_second(tally.accepted, tally.last_accepted) == 1 / 20
    assert tally.per_second(10, 105.0) == 1.0
