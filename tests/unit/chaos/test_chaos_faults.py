"""A fault that is not healed, that the history does not tell of, that meets one which it excludes,
or whose failure nobody hears of."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from everpost.recovery.children import ChildFacts, Children, Reload, write_children
from tests.chaos.faults import Faults
from tests.chaos.history import History
from tests.chaos.nemesis import Fault
from tests.chaos.sink import Sink
from tests.support.faketime import WallClock
from tests.support.house import House
from tests.support.power import Host
from tests.support.waiting import wait_until


class _Machine:
    """In the place of a house and of its host; its children are processes that do nothing."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "d"
        self.pid = os.getpid()
        self.fails = False
        self.processes = [subprocess.Popen(["sleep", "60"]) for _ in range(3)]

    def children(self, role: str = "") -> list[int]:
        alive = [p.pid for p in self.processes if p.poll() is None]
        return alive[1:] if role == "dispatch" else alive[:1] if role == "api" else alive

    def cut(self, _: object) -> None:
        if self.fails:
            raise AssertionError("no power cut here")

    def start(self, **_: bool) -> None:
        pass

    def states(self) -> str:
        """One letter a process: S sleeps, T stands still, Z is dead."""
        return "".join("Z" if p.poll() is not None else _state(p.pid) for p in self.processes)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


class _Mute:
    def __init__(self) -> None:
        self.name = "sink0"
        self.told: list[str] = []

    def behave(self, name: str) -> None:
        self.told.append(name)


class _Stage:
    def __init__(self, folder: Path) -> None:
        self.machine = _Machine(folder)
        self.sink = _Mute()
        self.clock = WallClock(folder)
        self.history = History(folder / "history.jsonl")
        self.faults = Faults(
            cast(House, self.machine),
            cast(Host, self.machine),
            [cast(Sink, self.sink)],
            self.clock,
            self.history,
        )

    def told(self, phase: str) -> list[dict[str, Any]]:
        return [event for event in self.history.events if event.get("phase") == phase]


@contextmanager
def _staged(folder: Path) -> Iterator[_Stage]:
    stage = _Stage(folder)
    try:
        yield stage
    finally:
        stage.history.close()
        for process in stage.machine.processes:
            process.kill()
            process.wait()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Stage]:
    monkeypatch.setattr("tests.chaos.playing._BREATH_S", 0.01)
    with _staged(tmp_path) as stage:
        yield stage


def test_the_history_does_not_tell_who_was_killed(stage: _Stage) -> None:
    pids = stage.machine.children()
    stage.faults.do(Fault(0, "kill_dispatch", 0.5, 0.1))
    wait_until(lambda: stage.machine.states() == "SZS", seconds=5, what="the kill")
    stage.faults.do(Fault(0, "kill_children", 0.5, 0.1))
    wait_until(lambda: stage.machine.states() == "ZZZ", seconds=5, what="the kills")
    assert [event["killed"] for event in stage.told("end")] == [[pids[1]], [pids[0], pids[2]]]
    assert (stage.faults.kills, stage.faults.done["kill_children"]) == (3, 1)
    assert [event["fault"] for event in stage.told("begin")] == [1, 2]


def test_a_paused_process_is_never_woken(stage: _Stage) -> None:
    stage.faults.do(Fault(0, "pause_short", 0.9, 0.05))
    assert stage.told("end")[0]["paused"] == stage.machine.children("api")
    wait_until(lambda: stage.machine.states() == "SSS", seconds=5, what="all to go on")


def test_a_paused_process_is_killed_meanwhile(stage: _Stage) -> None:
    plan = [Fault(0, "pause_short", 0.9, 0.4), Fault(0.1, "kill_children", 0.1, 0.1)]
    stage.faults.play(plan, seconds=5)
    assert len(stage.told("end")) == 2
    assert stage.faults.kills == 3


def test_the_clock_or_a_sink_stays_wrong(stage: _Stage, tmp_path: Path) -> None:
    for name in ("clock_ahead", "clock_back", "clock_strobe"):
        stage.faults.do(Fault(0, name, 0.5, 0.02))
        assert float((tmp_path / "faketime").read_text()) == 0
    for name in ("swallow", "refuse_421", "refuse_451", "reset_in_data", "slow_dot", "down"):
        stage.faults.do(Fault(0, f"sink_{name}", 0.5, 0.01))
        assert stage.sink.told[-2:] == [name, "ok"]


def test_faults_meet_that_exclude_each_other(stage: _Stage) -> None:
    """The first takes longer than the schedule thought."""
    plan = [Fault(0.0, "clock_ahead", 0.5, 0.3), Fault(0.01, "clock_back", 0.5, 0.01)]
    plan.append(Fault(0.02, "sink_down", 0.5, 0.01))
    stage.faults.play(plan, seconds=5)
    told = [(event["name"], event["phase"]) for event in stage.history.events]
    assert told.index(("clock_ahead", "end")) < told.index(("clock_back", "begin"))
    assert len(told) == 6


def test_what_is_too_late_is_done_all_the_same(stage: _Stage) -> None:
    plan = [Fault(0.0, "clock_ahead", 0.5, 0.2), Fault(0.0, "clock_back", 0.5, 0.2)]
    stage.faults.play(plan, seconds=0.3)
    assert stage.faults.done == {"clock_ahead": 1}


def test_the_process_is_gone_before_its_calls_fail(
    stage: _Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is no failure of the run; a tracer that cannot be had is one."""

    def injecting(pid: int, *_: str) -> None:
        if not stage.faults.done:
            os.kill(pid, signal.SIGKILL)
        raise AssertionError("strace could not attach")

    monkeypatch.setattr("tests.chaos.faults.injecting", injecting)
    stage.faults.do(Fault(0, "io_error", 0.5, 0.1))
    assert "strace could not attach" in stage.told("end")[0]["missed"]
    assert stage.faults.done == {"io_error (hit nothing)": 1}
    with pytest.raises(AssertionError, match="could not attach"):
        stage.faults.do(Fault(0, "io_error", 0.9, 0.1))


def test_a_kill_that_finds_nobody_is_not_counted_as_done(
    stage: _Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("there is none")

    monkeypatch.setattr("tests.chaos.faults.wait_until", never)
    for process in stage.machine.processes:
        process.kill()
        process.wait()
    stage.faults.do(Fault(0, "kill_api", 0.5, 0.1))
    assert stage.faults.done["kill_api (hit nothing)"] == 1
    assert stage.faults.done["kill_api"] == 0


def test_nobody_hears_that_a_fault_failed(stage: _Stage) -> None:
    stage.machine.fails = True
    plan = [Fault(0.0, "power", 0.5, 0.2), Fault(60.0, "kill_api", 0.5, 0.1)]
    with pytest.raises(AssertionError, match="no power cut here"):
        stage.faults.play(plan, seconds=90)
    assert "no power cut here" in stage.told("end")[0]["error"]
    assert stage.faults.kills == 0


def test_what_is_still_starting_is_always_killed(stage: _Stage) -> None:
    """Most kills wait until the children are ready."""
    children = [ChildFacts("api", 1, ready=False)]
    file = stage.machine.data / "run" / "children.json"
    file.parent.mkdir(parents=True)
    write_children(file, Children(1, tuple(children), Reload(), None, {}))
    ready = Children(1, (ChildFacts("api", 1, ready=True),), Reload(), None, {})
    timer = threading.Timer(0.3, write_children, (file, ready))
    timer.start()
    began = time.monotonic()
    plan = [Fault(0.0, "kill_api", 0.1, 0.1), Fault(0.0, "kill_dispatch", 0.9, 0.1)]
    stage.faults.play(plan, seconds=20)
    timer.join()
    assert stage.faults.kills == 2
    assert stage.told("begin")[0]["at"] < began + 0.25
    assert began + 0.25 < stage.told("begin")[1]["at"] < began + 6
