"""A run that failed and is listed as a good one, or that showed nothing and counts."""

import json

from tests.chaos.checker import Verdict
from tests.cluster.gaps import Gap, Outage
from tests.cluster.report import Plan, Result, as_json, idle, summary, table


def result() -> Result:
    verdict = Verdict(messages=9, answered=8, acknowledged=8, delivered=8, copies=8)
    outage = Outage(1, "hostkill", 5, 30, 0.9, 21.5, {"whole_after_s": 4.5})
    return Result(
        Plan(7, 60), verdict, Gap(0.91, 6), Gap(1.1, 6), [outage], {"hostkill": 1}, kills=9
    )


def test_a_sound_run_is_called_a_failure() -> None:
    good = result()
    assert good.good
    assert not idle(good)
    assert summary(good).endswith("nothing broke\n")
    line = table([json.loads(as_json(good))]).splitlines()[2]
    assert line == "| 7 | 0.0 | hostkill 1 | 8 | 0 | 0 | 0, 0 | 0 | 0.91 s | 21.5 s | yes |"


def test_what_broke_is_not_said() -> None:
    for field, value in (
        ("problems", "a client hangs"), ("findings", "content_damaged"), ("owners", "two"),
    ):  # fmt: skip
        bad = result()
        getattr(bad, field).append(value)
        assert not bad.good
        assert value in summary(bad)
        assert table([json.loads(as_json(bad))]).endswith("| **no** |\n")
    bad = result()
    bad.verdict.broken["lost"] = ["c1-0.0.0"]
    assert "BROKEN lost (I1" in summary(bad)
    assert "IT FAILED" in summary(bad)


def test_a_run_in_which_nothing_happened_counts() -> None:
    still = result()
    still.faults = {"hostkill (hit nothing)": 3}
    assert idle(still) == ["no fault was done"]
    still.verdict.acknowledged = 0
    assert len(idle(still)) == 2
