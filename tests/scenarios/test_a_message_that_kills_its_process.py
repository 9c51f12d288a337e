"""F36: a message whose composing kills its process, or never ends. Other mail goes on meanwhile,
the message is held after three deaths, with an alarm that outlives every process; what was composed
beside it is not held with it; released, it is tried again.

Invariants: I1, I2, I4, I16.
"""

import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.waiting import wait_until

INSIDE = ("tests.support.inside.poison",)
SOON_S = 20.0
"""Some restarts of a process on a slow machine, after hangs."""


def _poisoned(tmp_path: Path, processes: int, **more: str) -> House:
    settings = {"EVERPOST_NODE_HUNG_S": "2", "CURED": str(tmp_path / "cured"), **more}
    return House(tmp_path / "d", settings=settings, processes=processes, inside=INSIDE)


def _alarmed(house: House) -> bool:
    return "poison" in house.get("/status").json["alarms"]


def _is(house: House, id_: str, status: str) -> bool:
    return all(row["status"] == status for row in house.recipients(id_))


def _innocent_until_held(house: House, poison: str) -> list[str]:
    """Mail one after the other until the poison is held; each must arrive soon."""
    sent: list[str] = []
    deadline = time.monotonic() + 60
    while not _is(house, poison, "held"):
        assert time.monotonic() < deadline, f"not held\n{house.tail()}"
        sent.append(house.send(subject=f"other {len(sent)}"))
        house.wait_status(sent[-1], "delivered", seconds=SOON_S)
    return sent


def _poison_is_found_out(house: House, kind: str) -> tuple[str, list[str]]:
    """Its id, and that of the mail that went its way meanwhile."""
    beside = [house.send(subject=f"beside {n}") for n in range(3)]
    poison = house.send(subject=f"poison: {kind}")
    others = _innocent_until_held(house, poison)
    for id_ in beside:
        house.wait_status(id_, "delivered")
    assert [event["type"] for event in house.events(poison)] == [
        "accepted",
        *("abandoned",) * 3,
        "held",
    ]
    return poison, [*beside, *others]


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "processes", "more"),
    [
        ("killed", 2, {"SUSPECT_MS": "300"}),
        ("killed", 1, {}),
        ("loops", 1, {}),
        ("loops", 2, {}),
    ],
)
def test_a_message_that_kills_stops_all_mail(
    kind: str, processes: int, more: dict[str, str], tmp_path: Path
) -> None:
    with _poisoned(tmp_path, processes, **more) as house, FarEnd() as far:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        poison, sent = _poison_is_found_out(house, kind)
        wait_until(lambda: _alarmed(house), seconds=10, what="the alarm")
        copies = Counter(message.message_id for message in far.taken)
        doubts = sum(event["type"] == "in_doubt" for id_ in sent for event in house.events(id_))
        assert len(copies) == len(sent)
        assert copies.total() <= len(sent) + doubts
        (tmp_path / "cured").touch()
        assert house.post(f"/emails/{poison}/release", {}).status == 200
        house.wait_status(poison, "delivered")
        wait_until(lambda: not _alarmed(house), seconds=10, what="the alarm to be cleared")
        assert house.findings() == []


@pytest.mark.long
def test_the_alarm_goes_with_the_process_that_held_the_message(tmp_path: Path) -> None:
    with _poisoned(tmp_path, 1) as house:
        house.wait_status(house.send(subject="poison: killed"), "held", seconds=60)
        house.stop()
        house.start()
        wait_until(lambda: _alarmed(house), seconds=10, what="the alarm")
