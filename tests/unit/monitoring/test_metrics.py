"""Metrics across processes, in processes of their own: they attach to the whole process."""

import json
import re
import subprocess
import sys
from pathlib import Path

from everpost.monitoring import Metrics

PRELUDE = """
import sys, pathlib
from everpost import telemetry
from everpost.monitoring import Metrics
SENT = telemetry.counter("everpost_test_sent_total", "Sent", ("kind",))
PLAIN = telemetry.counter("everpost_test_plain_total", "Plain")
OPEN = telemetry.gauge("everpost_test_open", "Open")
TOOK = telemetry.histogram("everpost_test_seconds", "Took", ("kind",), buckets=(0.1, 1.0))
directory = pathlib.Path(sys.argv[1])
"""


def _run(directory: Path, code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + code, str(directory)],
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.stdout


WORK = """
metrics = Metrics(directory, {name!r})
for _ in range({count}):
    SENT.add(1, "a")
    TOOK.observe(0.05, "a")
TOOK.observe(0.1, "a"); TOOK.observe(0.5, "a"); TOOK.observe(5, "a")
PLAIN.add(2)
OPEN.set({count})
metrics.flush()
"""
SHOW = """
print(Metrics(directory, "reader").exposition().decode())
"""


def _samples(text: str) -> dict[str, float]:
    lines = (line.rpartition(" ") for line in text.splitlines() if line and line[0] != "#")
    return {name: float(value) for name, _, value in lines}


def test_counts_of_several_processes_add_up(tmp_path: Path) -> None:
    _run(tmp_path, WORK.format(name="api-0", count=3))
    _run(tmp_path, WORK.format(name="dispatch-0", count=4))
    shown = _samples(_run(tmp_path, SHOW))
    assert shown['everpost_test_sent_total{kind="a"}'] == 7
    assert shown["everpost_test_plain_total"] == 4
    assert shown["everpost_test_open"] == 7
    assert shown['everpost_test_seconds_bucket{kind="a",le="0.1"}'] == 9
    assert shown['everpost_test_seconds_bucket{kind="a",le="1.0"}'] == 11
    assert shown['everpost_test_seconds_bucket{kind="a",le="+Inf"}'] == 13
    assert shown['everpost_test_seconds_count{kind="a"}'] == 13
    assert abs(shown['everpost_test_seconds_sum{kind="a"}'] - (7 * 0.05 + 11.2)) < 1e-9


def test_restarted_process_goes_on_counting_and_forgets_its_gauges(tmp_path: Path) -> None:
    _run(tmp_path, WORK.format(name="dispatch-0", count=3))
    _run(tmp_path, 'Metrics(directory, "dispatch-0"); SENT.add(1, "a")')  # killed before a flush
    _run(tmp_path, 'm = Metrics(directory, "dispatch-0"); SENT.add(1, "a"); m.flush()')
    shown = _samples(_run(tmp_path, SHOW))
    assert shown['everpost_test_sent_total{kind="a"}'] == 4
    assert shown["everpost_test_open"] == 0
    names = {re.sub(r".*_", "", path.name) for path in tmp_path.iterdir()}
    assert names <= {"dispatch-0.db", "reader.db"}


def test_alarm_of_any_process_is_seen_by_all(tmp_path: Path) -> None:
    raising = """
m = Metrics(directory, "a")
telemetry.set_log(None)
telemetry.alarm("disk").raise_()
m.flush()
"""
    _run(tmp_path, raising)
    show = """
import json
m = Metrics(directory, "b")
telemetry.alarm("calm").clear()
print(json.dumps(m.alarms()))
"""
    assert json.loads(_run(tmp_path, show)) == ["disk"]
    _run(tmp_path, raising.replace("raise_()", "clear()"))
    assert json.loads(_run(tmp_path, show)) == []


def test_queue_facts_are_those_of_the_moment(tmp_path: Path) -> None:
    code = """
from everpost.store.interface import QueueFacts
m = Metrics(directory, "api-0")
facts = QueueFacts(states={"queued": 5}, accepted=9, oldest_due_ms=2500, due=4)
print(m.exposition(facts).decode())
"""
    shown = _samples(_run(tmp_path, code))
    assert shown['everpost_recipients{state="queued"}'] == 5
    assert shown["everpost_oldest_due_seconds"] == 2.5
    assert shown["everpost_recipients_accepted_total"] == 9


def test_metric_declared_after_the_start_is_attached(tmp_path: Path) -> None:
    code = """
m = Metrics(directory, "api-0")
LATE = telemetry.counter("everpost_late_total", "Late")
m.attach()
LATE.add(3)
print(m.exposition().decode())
"""
    assert _samples(_run(tmp_path, code))["everpost_late_total"] == 3


def test_process_name_cannot_leave_the_directory(tmp_path: Path) -> None:
    for name in ("../x", "a_b", "", "A"):
        try:
            Metrics(tmp_path, name)
        except ValueError:
            continue
        raise AssertionError(name)
