"""F19, F35: the whole machine stands still for longer than every lease, as a paused virtual machine
does, with mail in every phase in hand; then all of it goes on. Nobody takes the pause for a
neighbour's death, what had not left goes out once, and what had left is not sent again unsaid.

Invariants: I1, I4, I13, I22.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from everpost.recovery.children import Children, read_children
from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.journal import logged
from tests.support.stage import FIRST_TURN, attempts_of, check_record, come_due, relays
from tests.support.waiting import wait_until

LEASE_S, HUNG_S = 6.0, 4.0
SETTINGS = {
    "EVERPOST_DISPATCH_LEASE_S": str(LEASE_S),
    "EVERPOST_DELIVERY_DOT_S": "5",
    "EVERPOST_NODE_HUNG_S": str(HUNG_S),
    "EVERPOST_DISPATCH_POLL_S": "0.2",
}
MESSAGES = 20


@contextmanager
def _paused(house: House) -> Iterator[None]:
    """Every process of the house, for longer than a lease."""
    everybody = (house.pid, *house.children())
    for pid in everybody:
        os.kill(pid, signal.SIGSTOP)
    since = time.monotonic()
    try:
        yield
        over = since + LEASE_S + 0.5
        wait_until(lambda: time.monotonic() > over, seconds=10, what="every lease to end")
    finally:
        for pid in everybody:
            os.kill(pid, signal.SIGCONT)


def _children(house: House) -> Children:
    found = read_children(house.data / "run" / "children.json")
    assert found is not None
    return found


@pytest.mark.long
def test_a_machine_that_is_paused_for_longer_than_a_lease(tmp_path: Path) -> None:
    with (
        FarEnd(closed=("data",)) as early,
        FarEnd(closed=("dot",)) as late,
        House(tmp_path / "d", settings=SETTINGS, processes=2) as house,
    ):
        house.domain(signing="unsigned")
        with relays(house, early=early.url, late={"url": late.url, "weight": FIRST_TURN}):
            ids = [house.send(to=f"u{n}@d{n}.test") for n in range(MESSAGES)]
            early.wait_reached("data")
            late.wait_reached("dot")
            before = _children(house)
            with _paused(house):
                early.open("data")
                late.open("dot")
            for id_ in ids:
                if house.wait_status(id_, "delivered", "deferred")[0]["status"] == "deferred":
                    assert _in_doubt(house, id_) == 1, attempts_of(house, id_)
                    come_due(house, id_)
            for id_ in (*ids, house.send()):
                house.wait_status(id_, "delivered")
                check_record(house, id_)
        after = _children(house)
        assert [c.pid for c in after.children] == [c.pid for c in before.children], house.tail()
        assert sum(c.restarts + c.hung_kills for c in after.children) == 0, after
        assert logged(house, "supervisor.slept"), house.tail()
        arrived = [received.message_id for received in (*early.complete, *late.complete)]
        assert len(set(arrived)) == MESSAGES + 1
        assert len(arrived) - len(set(arrived)) <= sum(_in_doubt(house, id_) for id_ in ids)
        assert house.findings() == []


def _in_doubt(house: House, id_: str) -> int:
    return sum(attempt["outcome"]["type"] == "in_doubt" for attempt in attempts_of(house, id_))
