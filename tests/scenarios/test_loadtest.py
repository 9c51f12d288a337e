"""`everpost loadtest` against a whole server and a sink: what it says is what happened."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.house import KEY, House
from tests.support.waiting import wait_until


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Place:
    """A server whose one relay leads to `port` of loopback, where a sink may stand."""

    def __init__(self, folder: Path) -> None:
        self.port = _free_port()
        self.house = House(folder / "d")

    def words(self, *words: str, key: str = KEY) -> tuple[list[str], dict[str, str]]:
        found = re.search(rb"metrics +(http://\S+)", self.house.said)
        assert found is not None
        command = [sys.executable, "-m", "everpost", "loadtest", self.house.url, "--json"]
        command += ["--metrics", found[1].decode(), *words]
        return command, {**os.environ, "EVERPOST_API_KEY": key}

    def load(self, *words: str, code: int = 0, key: str = KEY) -> dict[str, Any]:
        """The result of a load test that ends with this exit code."""
        command, environment = self.words(*words, key=key)
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == code, (done.stdout[-2000:], done.stderr, self.house.tail())
        assert done.stderr == ""
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("loadtest"))
    with place.house as house:
        house.relay(f"smtp://127.0.0.1:{place.port}", tls="none")
        house.domain(signing="unsigned")
        yield place


@contextmanager
def _sink(port: int, feed: Path) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "everpost", "sink", "--json", "--feed", str(feed)]
    command += ["--listen", f"127.0.0.1:{port}"]
    sink = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert sink.stdout is not None
    try:
        assert "listening" in sink.stdout.readline()
        yield sink
    finally:
        sink.terminate()
        sink.wait(20)
        sink.stdout.close()


def test_the_load_test_counts_what_the_sink_did_not_take(place: Place, tmp_path: Path) -> None:
    saved, report = tmp_path / "saved.json", tmp_path / "report.html"
    with _sink(place.port, tmp_path / "feed") as sink:
        found = place.load(
            *("--rate", "100", "--duration", "2", "--warm-up", "0", "--p99-ms", "20000"),
            *("--feed", str(tmp_path / "feed"), "--keep-up"),
            *("--save", str(saved), "--report", str(report)),
        )
        sink.terminate()
        assert sink.stdout is not None
        counts = json.loads(sink.stdout.read().splitlines()[-1])
    messages = found["messages"]
    assert counts["messages"] == messages["arrived"] == messages["accepted"] == 200
    assert (messages["planned"], messages["missing"], messages["duplicates"]) == (200, 0, 0)
    lines = [json.loads(line) for line in (tmp_path / "feed").read_text().splitlines()]
    marks = {line["mark"] for line in lines if "mark" in line}
    assert marks == {f"{found['run']}.{n}" for n in range(200)}
    for part in ("latency", "from_start", "from_accept"):
        assert found[part]["count"] == 200
        assert sum(count for _, count in found[part]["histogram"]["cells"]) == 200
    assert found["from_start"]["p50"] >= found["from_accept"]["p50"]
    assert sum(second["arrived"] for second in found["series"]) == 200
    stages = {stage["name"]: stage for stage in found["stages"]}
    for name in ("parse", "auth", "prepare", "intake wait", "commit", "compose", "session"):
        assert stages[name]["count"] == 200, name
    assert stages["claim wait"]["count"] == stages["slot wait"]["count"] == 200
    assert 1 <= stages["settle"]["count"] <= 200
    assert stages["connect"]["count"] >= 1
    assert json.loads(saved.read_text()) == found
    assert report.read_text().startswith("<!DOCTYPE html>")


@pytest.mark.long
@pytest.mark.parametrize(
    ("rule", "stage"), [("dot delay=0.4", "session"), ("banner delay=1", "connect")]
)
def test_a_fast_stage_is_blamed_for_a_slow_one(place: Place, rule: str, stage: str) -> None:
    found = place.load(
        *("--rate", "30", "--duration", "2", "--warm-up", "0", "--max-errors", "0"),
        *("--sink", f"127.0.0.1:{place.port}", "--sink-rule", rule),
    )
    assert (found["messages"]["arrived"], found["bottleneck"]) == (60, stage)
    slow = next(each for each in found["stages"] if each["name"] == stage)
    assert slow["mean_ms"] >= 400


def test_refusals_count_as_accepted(place: Place) -> None:
    words = ("--rate", "50", "--duration", "1", "--warm-up", "0")
    found = place.load(*words, code=1, key="ep_wrong")
    assert found["errors"] == {"status 403": 50}
    assert (found["messages"]["accepted"], found["messages"]["failed"]) == (0, 50)
    assert "100.00% of the requests failed" in found["missed"][0]


def test_mail_that_the_sink_refuses_is_not_missed(place: Place) -> None:
    found = place.load(
        *("--rate", "20", "--duration", "1", "--warm-up", "0", "--drain", "2", "--keep-up"),
        *("--sink", f"127.0.0.1:{place.port}"),
        *("--sink-rule", 'rcpt refuse="550 5.1.1 No" every=2'),
        code=1,
    )
    messages = found["messages"]
    assert (messages["accepted"], messages["arrived"], messages["missing"]) == (20, 10, 10)
    ids = [each["id"] for each in found["missing_messages"]]
    for id_ in ids:
        assert place.house.recipients(id_)[0]["status"] == "bounced"
    assert "10 accepted messages had not arrived 2 s later" in found["missed"]


def test_an_interrupted_test_says_nothing(place: Place, tmp_path: Path) -> None:
    feed = tmp_path / "feed"
    with _sink(place.port, feed):
        command, environment = place.words(
            *("--rate", "50", "--duration", "60", "--warm-up", "0", "--feed", str(feed))
        )
        test = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            wait_until(lambda: feed.read_text().count("\n") > 20, seconds=20, what="mail to arrive")
        finally:
            test.send_signal(signal.SIGINT)
            said, _ = test.communicate(timeout=30)
    found = json.loads(said)
    messages = found["messages"]
    assert (test.returncode, found["interrupted"]) == (130, True)
    assert 20 <= messages["sent"] < 3000
    assert messages["planned"] == messages["sent"] == messages["accepted"] + messages["failed"]


@pytest.mark.long
def test_the_search_goes_beyond_its_bounds(place: Place) -> None:
    found = place.load(
        *("--find-rate", "--rate", "20", "--highest", "40", "--duration", "1", "--warm-up", "0"),
        *("--p99-ms", "20000", "--sink", f"127.0.0.1:{place.port}", "--messages", "60"),
    )
    assert [trial["rate"] for trial in found["search"]["trials"]][:2] == [20.0, 40.0]
    assert found["search"]["rate"] in (20.0, 40.0)
    assert found["messages"]["planned"] <= 60
