"""F37: twenty thousand messages wait for their time, and as many that are due wait behind a
destination that hangs. New mail, a message whose time comes, `/status` and `everpost verify` take
about as long as with an empty queue.

Invariants: I17, I19.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import apsw
import pytest

from everpost.clock import SystemClock
from tests.support.filling import filling, queue
from tests.support.house import House
from tests.support.sink import Sink
from tests.support.stage import come_due
from tests.support.waiting import wait_until

EACH = 20_000
TIMES, SLACK_S = 4, 0.3
"""How much longer it may take; a busy machine's part of that."""
SETTINGS = {
    "EVERPOST_NODE_DRAIN_S": "0.5",
    "EVERPOST_DELIVERY_RCPT_S": "300",
    "EVERPOST_DISPATCH_POLL_S": "0.2",
}


def _fill(house: House) -> None:
    async def run() -> None:
        async with filling(house.data) as node:
            await queue(node, EACH, *(f"d{n}.later.test" for n in range(500)))
            await queue(node, EACH, "hole.test")

    asyncio.run(run())
    db = apsw.Connection(str(house.data / "everpost.db"))
    with db:
        db.execute(
            "UPDATE recipients SET due = 0, not_before = ? + abs(random()) % 3600000"
            " WHERE state = 'queued' AND destination LIKE '%.later.test'",
            (SystemClock().now() + 3_600_000,),
        )
        assert db.changes() == EACH
    db.close()


def _took(work: Callable[[], object], times: int = 9) -> float:
    """Seconds, as a rule."""
    found = []
    for _ in range(times):
        began = time.monotonic()
        work()
        found.append(time.monotonic() - began)
    return median(found)


def _states(house: House) -> dict[str, int]:
    states: dict[str, int] = house.get("/status").json["states"]
    return states


@pytest.mark.long
def test_what_waits_makes_nothing_slower(tmp_path: Path) -> None:
    def deliver() -> None:
        house.wait_status(house.send(to="u@quick.test"), "delivered")

    def put_off() -> str:
        return house.send(to="u@quick.test", scheduled_at="in 1 hour")

    house = House(tmp_path / "d", settings=SETTINGS, processes=2)
    with Sink(tmp_path, "rcpt silent domain=hole.test") as sink, house:
        house.relay(sink.url, tls="none")
        house.domain(signing="unsigned")
        alone = _took(deliver), _took(lambda: _states(house))
        house.stop()
        _fill(house)
        house.start()
        wait_until(
            lambda: _states(house)["claimed"] >= 500,
            seconds=20,
            what=lambda: f"the hole to hold what it may: {_states(house)}",
        )
        beside = _took(deliver), _took(lambda: _states(house))
        for one, other in zip(alone, beside, strict=True):
            assert other <= TIMES * one + SLACK_S, (alone, beside)
        waits = put_off()
        come_due(house, waits)
        house.wait_status(waits, "delivered")
        states = _states(house)
        assert states["queued"] + states["claimed"] == 2 * EACH
        began = time.monotonic()
        assert house.findings() == []
        assert time.monotonic() - began < 30  # a million take less than a minute
