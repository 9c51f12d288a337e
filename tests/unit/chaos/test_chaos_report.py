"""A run that failed says so, in the text, in the table and in the exit code's source."""

import json

from tests.chaos.checker import Verdict
from tests.chaos.report import as_json, summary, table
from tests.chaos.run import Plan, Result, idle
from tests.chaos.watching import Peaks


def _result(verdict: Verdict | None = None, **fields: list[str]) -> Result:
    result = Result(Plan(seed=7, seconds=1, faults=("kill_api",)), verdict or Verdict(messages=3))
    for name, value in fields.items():
        setattr(result, name, value)
    return result


def test_a_good_run_says_that_nothing_broke() -> None:
    result = _result()
    assert result.good
    assert summary(result).endswith("nothing broke\n")
    assert json.loads(as_json(result))["good"] is True


def test_each_thing_that_is_wrong_makes_the_run_fail_and_is_named() -> None:
    for result, said in (
        (_result(Verdict(broken={"lost": ["c0-0.0.0"]})), "c0-0.0.0"),
        (_result(problems=["I19: not drained"]), "I19"),
        (_result(findings=["live: tally_off"]), "tally_off"),
    ):
        assert not result.good
        assert said in summary(result)
        assert summary(result).endswith("IT FAILED\n")


def test_the_table_is_made_of_the_file_that_is_kept() -> None:
    result = _result(Verdict(broken={"lost": ["a", "b"]}, messages=1234))
    lines = table(json.loads(as_json(result))).splitlines()
    assert "| lost | 2 |" in lines
    assert any("1,234" in line for line in lines)


def test_all_second_copies_are_in_the_file() -> None:
    twice = {f"c0-{n}.0.0": (2, 1) for n in range(100)}
    kept = json.loads(as_json(_result(Verdict(duplicates=twice))))
    assert kept["verdict"]["duplicates"] == {name: [2, 1] for name in twice}


def test_a_run_in_which_nothing_happened_says_so() -> None:
    result = _result(Verdict(acknowledged=3, delivered=3))
    result.faults, result.peaks = {"kill_api": 1}, Peaks(processes=4)
    assert not idle(result)
    result.faults = {"kill_api (hit nothing)": 9}
    assert idle(result) == ["no fault was done"]
    assert len(idle(_result(Verdict()))) == 3
