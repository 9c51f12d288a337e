"""Long queues: they slow neither a start nor anybody else's mail."""

import base64
import os
from pathlib import Path

import pytest

from tests.support.house import House
from tests.support.sink import Sink
from tests.support.waiting import wait_until

HOLE = "rcpt silent domain=hole.test"
QUEUED = 5_000


def _batch(house: House, first: int, n: int, domain: str) -> list[str]:
    drafts = [
        {
            "from": "Sender <sender@example.test>", "to": [f"u{first + i}@{domain}"],
            "subject": "A test", "text": "Hello.\n",
        }
        for i in range(n)
    ]  # fmt: skip
    answer = house.post("/emails/batch", drafts)
    assert answer.status == 200, answer
    return [str(each["id"]) for each in answer.json["data"]]


def _states(house: House) -> dict[str, int]:
    states: dict[str, int] = house.get("/status").json["states"]
    return states


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 2])
def test_a_black_hole_with_thousands_queued_holds_up_another_destination(
    tmp_path: Path, processes: int
) -> None:
    """F51, I17: its server takes every connection and never answers RCPT. After a restart it is
    claimed by the hundred; the other destination shares its relay and its sessions."""
    settings = {"EVERPOST_NODE_DRAIN_S": "0"}
    with (
        Sink(tmp_path, HOLE) as sink,
        House(tmp_path / "d", settings=settings, processes=processes) as house,
    ):
        house.relay(sink.url, tls="none")
        house.domain(signing="unsigned")
        for first in range(0, QUEUED, 100):
            _batch(house, first, 100, "hole.test")
        house.stop()
        house.start()
        # What one destination may hold of the window is full: from here on nothing moves but
        # the others' mail.
        wait_until(
            lambda: _states(house)["claimed"] >= 290 * processes,
            seconds=20,
            what="the hole to hold what it may",
        )
        for n in range(20):
            house.wait_status(house.send(to=f"u{n}@quick.test"), "delivered", seconds=10)
        ids = _batch(house, 0, 100, "quick.test")
        for id_ in ids:
            house.wait_status(id_, "delivered", seconds=20)
        states = _states(house)
        assert states["delivered"] == 120
        assert states["queued"] + states["claimed"] == QUEUED
        house.stop()
        assert len(sink.close()) == 120


def _peak_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmHWM")


@pytest.mark.long
def test_large_messages_stand_in_memory_together(tmp_path: Path) -> None:
    """I16: fourteen of 20 MB. What one of them takes is more than the memory for large ones
    (64 MiB), so that they go one by one, though the relay has a session for each that waits for a
    slow greeting."""
    attachment = base64.b64encode(os.urandom(15_000_000)).decode()
    size_mb = len(attachment) * 78 / 76 / (1 << 20)
    with (
        Sink(tmp_path, "banner delay=2 times=10") as sink,
        House(tmp_path / "d", processes=1) as house,
    ):
        house.relay(sink.url, tls="none")
        house.domain(signing="unsigned")
        (pid,) = house.children("dispatch")
        before = _peak_mb(pid)
        files = [{"filename": "a.bin", "content": attachment}]
        ids = [house.send(to=f"u{n}@r{n}.test", attachments=files) for n in range(14)]
        for id_ in ids:
            house.wait_status(id_, "delivered", seconds=60)
        # Its weight is five times its size; the allocator keeps a little of what it gave back.
        assert _peak_mb(pid) - before < 6 * size_mb
        house.stop()
        assert len(sink.close()) == 14
