"""What is printed and drawn of a result, of every kind of result there is."""

import json
import random
import re
import sys
from html.parser import HTMLParser
from typing import Any

import pytest

from everpost.loadtest.generator import Target
from everpost.loadtest.measure import Measure
from everpost.loadtest.mix import Kind
from everpost.loadtest.objective import Objective, Search, Trial
from everpost.loadtest.plan import Arrivals, Step
from everpost.loadtest.report import html
from everpost.loadtest.result import kept, result
from everpost.loadtest.run import Outcome, Setup
from everpost.loadtest.stages import Reading
from everpost.loadtest.summary import WIDTH, summary

_EVIL = '<script>alert(1)</script>"&'


def _metrics(count: int) -> Reading:
    name = "everpost_relay_session_seconds"
    return Reading(
        f'# TYPE {name} histogram\n{name}_bucket{{le="0.5"}} {count}\n'
        f'{name}_bucket{{le="+Inf"}} {count}\n{name}_sum {count * 0.2}\n{name}_count {count}\n'
        f"# TYPE everpost_due gauge\neverpost_due {count}\n"
    )


def _found(
    *, messages: int = 300, arrivals: bool = True, failed: int = 0, missing: int = 0,
    search: bool = False, objective: Objective | None = None, rates: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """A run as it might have been, its times made up."""
    chance = random.Random(5)
    measure = Measure("r1", began=1000.0, arrivals=arrivals)
    at, number = 1000.0, 0
    for n in range(rates):
        step = Step.steady(100 * (n + 1), 3)
        tally = measure.begin(step, at)
        for k in range(messages):
            due = at + 3 * k / messages
            number = measure.number(tally, due, 1)
            tally.lag.add(0.0005)
            measure.was_sent(tally, 1, due)
            answered = due + chance.lognormvariate(-5, 1)
            if k < failed:
                measure.has_failed(tally, number, 1, _EVIL, intended=due, now=answered)
                continue
            measure.was_accepted(tally, number, [_EVIL], intended=due, now=answered)
            if arrivals and k >= failed + missing:
                measure.has_arrived(f"r1.{number}", 1, answered + 0.1)
        at += 3
    looked = Search(100, highest=1000)
    looked.note(Trial(100, ()))
    looked.note(Trial(200, ("p99 is too long",)))
    looked.stop("enough")
    setup = Setup(
        run="r1",
        target=Target(addresses=[], port=1, host="h", authority="h"),
        kinds=[Kind(name=_EVIL)],
        steps=[tally.step for tally in measure.steps],
        arrivals=Arrivals.UNIFORM,
        objective=objective or Objective(),
        messages=1000,
        drain_s=5.0,
        search=looked if search else None,
    )
    outcome = Outcome(measure, 1_700_000_000_000, seconds=at - 1000)
    outcome.before, outcome.after = _metrics(0), _metrics(messages)
    found = result(setup, outcome, target=f"http://{_EVIL}", seed=1)
    return dict(json.loads(json.dumps(found)))


RUNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no sink": {"arrivals": False},
    "failures": {"failed": 150},
    "all failed": {"failed": 300},
    "nothing arrived": {"missing": 300},
    "some missing": {"missing": 120},
    "one message": {"messages": 1},
    "nothing": {"messages": 0},
    "search": {"search": True, "rates": 8},
    "missed": {"objective": Objective(p99=0.001, delivered_p99=0.01, keep_up=True)},
}


class _Page(HTMLParser):
    """Collects what would run, load or stay open."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outward: list[str] = []
        self.charts = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "script":
            self.outward.append(tag)
        self.charts += tag == "svg"
        for name, value in attributes:
            if name.startswith("on") or (name in {"src", "href"} and value):
                self.outward.append(f"{tag} {name}={value}")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", sorted(RUNS))
def test_a_report_runs_something_or_loads_something(name: str) -> None:
    found = _found(**RUNS[name])
    page = _Page()
    text = html(found)
    page.feed(text)
    assert (page.open, page.outward) == ([], [])
    assert page.charts >= 3
    assert "alert(1)</script>" not in text
    assert not re.search(r"@import|url\(", text)


def test_drawing_changes_how_everything_else_is_imported() -> None:
    """pygal puts a finder of its own before all others at its import."""
    html(_found())
    assert "pygal" in sys.modules
    assert not [f for f in sys.meta_path if type(f).__module__.partition(".")[0] == "pygal"]


@pytest.mark.parametrize("name", sorted(RUNS))
def test_a_summary_does_not_fit_the_screen(name: str) -> None:
    lines = summary(_found(**RUNS[name]))
    assert len(lines) <= 24
    assert all(len(line) <= WIDTH or _EVIL in line for line in lines)


def test_a_missed_objective_is_told_nowhere() -> None:
    found = _found(**RUNS["missed"])
    assert not kept(found)
    assert "MISSED  100/s: accepted p99" in "\n".join(summary(found))
    assert "The objective was missed: 100/s: accepted p99" in html(found)


def test_half_the_requests_fail_and_all_is_well() -> None:
    found = _found(failed=150)
    assert found["missed"] == ["100/s: 50.00% of the requests failed (at most 1.00%)"]
    assert found["messages"] == {
        "planned": 300, "sent": 300, "accepted": 150, "failed": 150, "arrived": 150, "missing": 0,
        "duplicates": 0, "unacknowledged": 0, "foreign": 0,
    }  # fmt: skip
    assert found["errors"] == {_EVIL: 150}


def test_missing_mail_is_not_named() -> None:
    found = _found(missing=120)
    assert found["messages"]["missing"] == 120
    assert len(found["missing_messages"]) == 100
    assert found["missing_messages"][0] == {"number": 0, "id": _EVIL, "recipients_left": 1}
    assert "but 120 accepted messages have not arrived" in html(found)


def test_a_search_is_judged_as_a_run() -> None:
    found = _found(**RUNS["search"])
    assert kept(found)
    assert found["search"]["rate"] == 100
    assert "highest rate that keeps the objective: 100/s; 200/s does not" in summary(found)


def test_the_slowest_stage_is_not_named() -> None:
    found = _found()
    assert found["bottleneck"] == "session"
    assert found["queue"] == {"due_before": 0.0, "due_after": 300.0}
    (line,) = [line for line in summary(found) if line.startswith("slowest stage")]
    assert line.startswith("slowest stage: session (MAIL to the final answer), 200 ms each")
