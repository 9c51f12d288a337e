"""The bench's table: what it says when rounds differ, cases fail, bars are missed."""

import json

import pytest

from bench.__main__ import measure
from bench.bars import BARS, ratio, verdicts
from bench.cases import CASES, DEFAULT, QUICK, Case, select
from bench.figures import Failure, Figures, Round, Work
from bench.report import as_json, as_markdown, as_text


def figures(delivered: float, **others: float) -> Figures:
    return Figures(
        messages=1000,
        accepted_per_s=others.get("accepted", delivered),
        delivered_per_s=delivered,
        cpu_s_per_1000=others.get("cpu", 0.5),
        peak_mb=others.get("peak", 140.0),
        generator_cpu_s_per_1000=0.02,
        sink_cpu_s_per_1000=0.05,
        p50_ms=others.get("p50"),
        p99_ms=others.get("p99"),
    )


def case(name: str, delivered: float | str, **facts: str) -> Case:
    """A case that gives this rate, or fails with these words."""

    def run(work: Work) -> Figures:
        if isinstance(delivered, str):
            raise RuntimeError(delivered)
        return figures(work.rate or delivered)

    return Case(name, name, run, Work(0), 1.0, **facts)


def test_a_case_that_fails_says_why_and_the_rest_goes_on() -> None:
    rounds: list[Round] = []
    cases = [case("postfix", "nothing listened on port 25"), case("single", 2000.0)]
    measure(cases, messages=100, rounds=2, into=rounds)
    assert [list(row) for row in rounds] == [["postfix", "single"]] * 2
    assert isinstance(rounds[1]["single"], Figures)
    text = as_text({}, rounds, verdicts(rounds))
    assert "round 1: postfix failed: RuntimeError: nothing listened on port 25" in text
    assert "round 2: postfix failed" in text
    assert "2,000" in text


def test_ratios_are_of_one_round_however_the_machine_drifts() -> None:
    rounds: list[Round] = [
        {"postfix": figures(1000), "single": figures(4000)},
        {"postfix": figures(100), "single": figures(500)},
        {"postfix": figures(500), "single": figures(3000)},
        {"postfix": Failure("gone"), "single": figures(9000)},  # no pair, no ratio
    ]
    assert [ratio(row, "single", "postfix") for row in rounds] == [4, 5, 6, None]
    found = {verdict.bar.label: verdict for verdict in verdicts(rounds)}
    times = found["single posts, x Postfix"]
    assert (times.measured.low, times.measured.median, times.measured.high) == (4, 5, 6)
    assert (times.measured.rounds, times.reached) == (3, "full strength")


def test_a_bar_that_is_missed_is_said() -> None:
    rounds: list[Round] = [{"postfix": figures(1000), "single": figures(2000, cpu=0.4)}]
    reached = {verdict.bar.label: verdict.reached for verdict in verdicts(rounds)}
    assert reached["single posts, x Postfix"] == ""
    assert reached["CPU s per 1,000, single posts"] == "goal"
    lines = as_text({}, rounds, verdicts(rounds)).splitlines()
    assert [line.startswith("single posts, x Postfix") for line in lines if "NONE" in line] == [
        True
    ]
    assert "| NONE |" in as_markdown({}, rounds, verdicts(rounds))


def test_half_the_rate_of_what_failed_is_not_guessed() -> None:
    rounds: list[Round] = []
    half = case("half-rate", 1.0, half_of="single")
    measure([case("single", "no"), half], messages=100, rounds=1, into=rounds)
    assert rounds[0]["half-rate"] == Failure("RuntimeError: single gave no rate in this round")
    measure([case("single", 3000.0), half], messages=100, rounds=1, into=rounds)
    measured = rounds[1]["half-rate"]
    assert isinstance(measured, Figures)
    assert measured.delivered_per_s == 1500.0


def test_cases_that_need_another_bring_it_along() -> None:
    assert [row.name for row in select(["half-rate"])] == ["single", "half-rate"]
    with pytest.raises(ValueError, match="no such case: singel"):
        select(["singel"])
    for names in (DEFAULT, QUICK):
        assert {row.name for row in select(names)} == set(names)


def test_every_yardstick_is_a_case_and_stands_before_those_it_measures() -> None:
    order = list(CASES)
    for row in CASES.values():
        if row.yardstick:
            assert order.index(row.yardstick) < order.index(row.name)
    for bar in BARS:
        first, full, goal = bar.steps
        assert (first < full < goal) if bar.more else (first > full > goal)


def test_json_keeps_every_round_beside_the_medians() -> None:
    rounds: list[Round] = [
        {"postfix": figures(500), "single": figures(2000, p50=20.0, p99=60.0)},
        {"postfix": figures(400), "single": Failure("gone")},
    ]
    document = json.loads(as_json({"machine": "two cores"}, rounds, verdicts(rounds)))
    assert document["rounds"][1]["single"] == {"reason": "gone"}
    assert document["rounds"][0]["postfix"]["p50_ms"] is None
    single = document["cases"]["single"]
    assert single["ratio"] == {"median": 4.0, "low": 4.0, "high": 4.0, "rounds": 1}
    assert single["figures"]["generator_cpu_s_per_1000"]["median"] == 0.02
    assert "p50_ms" not in document["cases"]["postfix"]["figures"]
