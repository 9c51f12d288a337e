"""Long queues: they slow neither a start nor anybody else's mail."""

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
