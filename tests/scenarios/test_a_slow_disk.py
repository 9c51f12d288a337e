"""F7: A flush of the disk takes 200 milliseconds, or seconds. Messages that come meanwhile share
the next flush, so the disk does not bound their number; what needs no write is answered at once; an
alarm stands while commits take more than half a second.

Invariants: I16, I17.
"""

import threading
from pathlib import Path

import pytest

from tests.support.clients import email
from tests.support.house import House
from tests.support.scrape import scrape
from tests.support.tracing import injecting
from tests.support.waiting import wait_until

_CLIENTS = 24
_EACH = 2
_LATER = "in 1 hour"
"""Nothing becomes due, so nobody else writes for these."""


def _post(house: House, name: str, statuses: list[int]) -> None:
    statuses.append(house.post("/emails", email(name, scheduled_at=_LATER)).status)


def _commits(house: House) -> tuple[float, float]:
    """Transactions of the store in all, and accepts that were written."""
    found = scrape(house)
    return (
        found["everpost_store_commit_seconds_count"],
        found['everpost_store_write_seconds_count{verb="accept"}'],
    )


def test_many_messages_share_a_flush(tmp_path: Path) -> None:
    statuses: list[int] = []
    with House(tmp_path / "d", processes=1) as house:
        (pid,) = house.children("api")

        def client(n: int) -> None:
            for m in range(_EACH):
                _post(house, f"c{n}.{m}", statuses)

        _post(house, "first", [])  # metrics have it from the first on
        with injecting(pid, "fdatasync:delay_enter=200000"):
            commits, accepts = _commits(house)
            threads = [threading.Thread(target=client, args=(n,)) for n in range(_CLIENTS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(40)
                assert not thread.is_alive()
            more_commits, more_accepts = _commits(house)
    assert statuses == [200] * (_CLIENTS * _EACH)
    assert more_accepts - accepts == len(statuses)
    assert more_commits - commits < len(statuses) / 2


@pytest.mark.long
def test_what_needs_no_write_does_not_wait_and_an_alarm_stands(tmp_path: Path) -> None:
    statuses: list[int] = []
    with House(tmp_path / "d", processes=1) as house:
        id_ = house.send(scheduled_at=_LATER)
        (pid,) = house.children("api")
        with injecting(pid, "fdatasync:delay_enter=1500000"):
            waiting = threading.Thread(target=_post, args=(house, "slow", statuses))
            waiting.start()
            for path in (f"/emails/{id_}", "/emails", "/health/live", "/status"):
                assert house.get(path).status == 200
            assert waiting.is_alive()  # all these were answered while it waited
            waiting.join(40)
            _post(house, "slow", statuses)
            _post(house, "slow", statuses)
            assert "store_slow" in house.get("/status").json["alarms"]
        # Of itself it looks each second whether the disk is well.
        wait_until(
            lambda: "store_slow" not in house.get("/status").json["alarms"],
            seconds=20,
            what="the end of the alarm",
        )
        assert statuses == [200] * 3
