"""Metrics across processes, in processes of their own: they attach to the whole process."""

import json
import os
import re
import signal
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


def _on_small_disk(folder: Path, code: str, *, kib: int) -> subprocess.CompletedProcess[str]:
    """As `_run`, with the directory on a disk of its own; may fail."""
    folder.mkdir()
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    mount = f"mount -t tmpfs -o size={kib}k none '{folder}' && exec \"$@\""
    return subprocess.run(
        [
            *("unshare", "--mount", *user, "--", "sh", "-c", mount, "sh"),
            *(sys.executable, "-W", "error", "-c", PRELUDE + code, str(folder)),
        ],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


HOLES = """
import mmap
with open(directory / "hole", "a+b") as file:
    file.truncate(1 << 20)
    m = mmap.mmap(file.fileno(), 1 << 20)
    for at in range(0, 1 << 20, 4096):
        m[at] = 1
"""


def test_a_full_disk_kills_who_writes_into_a_hole(tmp_path: Path) -> None:
    """What all the care is for; on this machine, too."""
    assert _on_small_disk(tmp_path / "m", HOLES, kib=256).returncode == -signal.SIGBUS


def test_a_full_disk_stops_the_counting_and_nothing_else(tmp_path: Path) -> None:
    """More series than the disk has room for: the file grows once, the rest is uncounted."""
    code = """
telemetry.set_log(None)
m = Metrics(directory, "api")
PLAIN.add(1)
for n in range(8000):
    SENT.add(1, f"{n:0200d}")
m.flush()
print(telemetry.raised(), [round(p.stat().st_blocks / 2) for p in directory.glob("counter*")])
PLAIN.add(1)
m.flush()
samples = m.exposition().decode()
print("everpost_test_plain_total 2.0" in samples, samples.count("everpost_test_sent_total{") > 500)
"""
    done = _on_small_disk(tmp_path / "m", code, kib=2560)
    assert done.returncode == 0, done
    assert done.stdout.splitlines() == ["('metrics_off',) [1024]", "True True"]


def test_no_room_at_the_start_is_made_up_for_later(tmp_path: Path) -> None:
    code = """
telemetry.set_log(None)
filler = directory / "filler"
filler.write_bytes(bytes(2 << 20))
m = Metrics(directory, "api")
print(telemetry.raised())
OPEN.set(3)
filler.unlink()
m.attach()
OPEN.set(4)
SENT.add(2, "a")
print(telemetry.raised())
shown = m.exposition().decode()
print("everpost_test_open 4.0" in shown, 'everpost_test_sent_total{kind="a"} 2.0' in shown)
"""
    done = _on_small_disk(tmp_path / "m", code, kib=2560)
    assert done.returncode == 0, done
    assert done.stdout.splitlines() == ["('metrics_off',)", "()", "True True"]


def test_the_directory_is_removed_or_a_file_lies_in_its_place(tmp_path: Path) -> None:
    """Counts begin at 0 in new files, gauges are as they were."""
    code = """
import shutil
telemetry.set_log(None)
m = Metrics(directory, "api")
OPEN.set(3)
PLAIN.add(5)
m.flush()
shutil.rmtree(directory)
directory.write_text("")
m.attach(); m.flush()
print(telemetry.raised(), m.alarms(), m.exposition())
directory.unlink()
PLAIN.add(1)
shown = m.exposition().decode()
print(m.alarms(), "everpost_test_open 3.0" in shown, "everpost_test_plain_total 1.0" in shown)
"""
    shown = _run(tmp_path / "m", code).splitlines()
    assert shown == ["('metrics_off',) ('metrics_off',) b''", "() True True"]
