"""F35: a process stops in mid-life, be it one that accepts or one that delivers. The supervisor
misses its sign of life and replaces it, upkeep takes over what it had in hand, and meanwhile no
connection is refused, also where it held the store's write lock. One that wakes up after another
took over its claims sends nothing of them and writes nothing.

Invariants: I1, I4, I13.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from everpost.ids import parse
from everpost.recovery.children import read_children
from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.waiting import wait_until

HUNG_S = 2.5
"""More than a busy machine keeps a process that is well from saying so."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("stopped")
    with House(folder / "d", settings={"EVERPOST_NODE_HUNG_S": str(HUNG_S)}, processes=1) as house:
        yield house


def _hung_kills(house: House, name: str) -> int:
    facts = read_children(house.data / "run" / "children.json")
    assert facts is not None
    return next(child.hung_kills for child in facts.children if child.name == name)


def test_a_stopped_process_that_accepts_is_never_replaced(house: House) -> None:
    before = _hung_kills(house, "api")
    os.kill(house.children("api")[0], signal.SIGSTOP)
    assert house.get("/health/live").status == 200  # it waited in the socket: nobody was refused
    assert _hung_kills(house, "api") == before + 1


def test_what_a_stopped_process_had_in_hand_stays_there(house: House) -> None:
    with FarEnd(closed=("data",)) as far:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        before = _hung_kills(house, "dispatch-1")
        id_ = house.send()
        far.wait_reached("data")
        os.kill(house.children("dispatch")[0], signal.SIGSTOP)
        wait_until(
            lambda: _hung_kills(house, "dispatch-1") == before + 1,
            seconds=20,
            what=lambda: f"the stopped process to be killed\n{house.tail()}",
        )
        far.open("data")
        house.wait_status(id_, "delivered")
        assert len(far.taken) == 1


@pytest.mark.long
def test_a_process_stops_with_the_write_lock_in_its_hand(tmp_path: Path) -> None:
    order = tmp_path / "order"
    with House(
        tmp_path / "d",
        settings={"EVERPOST_NODE_HUNG_S": str(HUNG_S), "STOP_WITH_LOCK": str(order)},
        processes=1,
        inside=("tests.support.inside.stop_with_lock",),
    ) as house:
        order.touch()
        first = house.send()
        wait_until(lambda: not order.exists(), seconds=10, what="a process to stop with the lock")
        began = time.monotonic()
        second = house.send()
        assert time.monotonic() - began <= HUNG_S + 4
        assert _hung_kills(house, "dispatch-1") == 1
        house.wait_status(first, "delivered")
        house.wait_status(second, "delivered")


LEASE_S = 8
"""A dot leaves only in the first part of a claim's term, which a renewal each third begins anew:
below 7.5 s there may be none."""


@pytest.fixture(scope="module")
def patient_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, FarEnd]]:
    folder = tmp_path_factory.mktemp("patient")
    settings = {
        "EVERPOST_NODE_HUNG_S": "600",
        "EVERPOST_DISPATCH_LEASE_S": str(LEASE_S),
        "EVERPOST_DELIVERY_DOT_S": "5",
        "EVERPOST_DELIVERY_IDLE_S": "0.1",
    }
    with House(folder / "d", settings=settings, processes=2) as house, FarEnd() as far:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        yield house, far


def _holder(house: House, id_: str) -> int:
    """The process that has it in hand."""
    db = apsw.Connection(str(house.data / "everpost.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        rows = db.execute(
            "SELECT w.pid FROM recipients AS r JOIN workers AS w ON w.id = r.owner"
            " WHERE r.message = ?",
            (parse(id_),),
        )
        return int(str(next(rows)[0]))
    finally:
        db.close()


@pytest.mark.long
@pytest.mark.parametrize(
    ("gate", "events", "copies"),
    [
        ("data", ["accepted", "abandoned", "delivered"], 1),
        ("dot", ["accepted", "in_doubt", "delivered"], 2),
    ],
)
def test_a_process_that_wakes_up_after_its_lease_goes_on_with_it(
    patient_house: tuple[House, FarEnd], gate: str, events: list[str], copies: int
) -> None:
    house, far = patient_house
    far.complete.clear()
    far.close(gate)
    id_ = house.send()
    far.wait_reached(gate)
    holder = _holder(house, id_)
    os.kill(holder, signal.SIGSTOP)
    try:
        far.open(gate)  # what it waited for is there; it cannot read it
        house.wait_status(id_, "delivered", seconds=LEASE_S + 20)
        taken_over = house.events(id_)
        assert [event["type"] for event in taken_over] == events
        assert len(far.complete) == copies
    finally:
        os.kill(holder, signal.SIGCONT)
    wait_until(lambda: not far.sessions, seconds=20, what="its session to end")
    assert holder in house.children("dispatch")
    os.kill(holder, signal.SIGTERM)  # it settles what it thinks that it has, and ends
    wait_until(
        lambda: holder not in house.children("dispatch"), seconds=20, what="the process to end"
    )
    assert house.events(id_) == taken_over
    assert len(far.complete) == copies
    assert house.findings() == []
