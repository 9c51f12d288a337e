"""F50: a dispatch process is killed between any two steps of a delivery. Each crash point leaves
exactly what it may: W0 and W1 nothing, W2 what was refused, W3 nothing, W4 and W5 a doubt that the
message's policy decides, W6 a delivery; a successor takes over at once.

Invariants: I1, I2, I4, I5, I6.
"""

import fcntl
import os
from pathlib import Path

import pytest

from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.waiting import wait_until

BIG = "x" * 78 + "\n"
FAST_RETRY = {"EVERPOST_DISPATCH_POLL_S": "0.1"}


def _house(tmp_path: Path) -> House:
    return House(tmp_path / "d", settings=FAST_RETRY, processes=1)


def _set_up(house: House, far: FarEnd) -> None:
    house.relay(far.url, tls="none")
    house.domain(signing="unsigned")


def _types(house: House, id_: str) -> list[str]:
    return [e["type"] for e in house.events(id_)]


def _gapless(house: House, id_: str) -> None:
    assert [e["seq"] for e in house.events(id_)] == list(range(1, len(house.events(id_)) + 1))
    assert house.findings() == []


def test_w0_killed_before_the_claim(tmp_path: Path) -> None:
    with FarEnd() as far, _house(tmp_path) as house:
        _set_up(house, far)
        due = "in 1 min"
        id_ = house.send(scheduled_at=due)
        assert house.recipients(id_)[0]["status"] == "scheduled"
        house.kill_role("dispatch")
        assert house.call("PATCH", f"/emails/{id_}", {"scheduled_at": "in 1 seconds"}).status == 200
        house.wait_status(id_, "delivered")
        assert len(far.taken) == 1
        assert _types(house, id_) == ["accepted", "rescheduled", "delivered"]
        _gapless(house, id_)


def test_w1_killed_after_the_claim_before_the_greeting(tmp_path: Path) -> None:
    with FarEnd(closed=("banner",)) as far, _house(tmp_path) as house:
        _set_up(house, far)
        id_ = house.send()
        far.wait_reached("banner")
        house.kill_role("dispatch")
        far.open("banner")
        house.wait_status(id_, "delivered")
        assert len(far.taken) == 1
        assert _types(house, id_) == ["accepted", "abandoned", "delivered"]
        _gapless(house, id_)


def test_w2_killed_after_some_recipients_were_refused(tmp_path: Path) -> None:
    refuse = {"nobody": "550 5.1.1 no such user"}
    with FarEnd(closed=("data",), refuse=refuse) as far, _house(tmp_path) as house:
        _set_up(house, far)
        id_ = house.send(to=["one@receiver.test", "nobody@receiver.test"])
        far.wait_reached("data")
        house.kill_role("dispatch")
        far.open("data")
        house.wait_status(id_, "delivered", "bounced")
        by_address = {r["address"]: r for r in house.recipients(id_)}
        assert by_address["one@receiver.test"]["status"] == "delivered"
        assert by_address["nobody@receiver.test"]["status"] == "bounced"
        assert [r for m in far.taken for r in m.recipients] == ["one@receiver.test"]
        assert sorted(_types(house, id_)) == [
            "abandoned", "abandoned", "accepted", "bounced", "delivered",
        ]  # fmt: skip
        _gapless(house, id_)


def test_w3_killed_inside_the_data_before_the_dot(tmp_path: Path) -> None:
    with FarEnd(closed=("body",)) as far, _house(tmp_path) as house:
        _set_up(house, far)
        id_ = house.send(text=BIG * 150_000)  # larger than every buffer on the way
        far.wait_reached("body")
        house.kill_role("dispatch")
        far.open("body")
        house.wait_status(id_, "delivered", seconds=60)
        assert len(far.taken) == 1
        assert _types(house, id_) == ["accepted", "abandoned", "delivered"]
        _gapless(house, id_)


@pytest.mark.parametrize(
    ("policy", "ending", "copies"),
    [("resend", "delivered", 2), ("hold", "held", 1), ("fail", "failed", 1)],
)
def test_w4_killed_after_the_dot_without_an_answer(
    tmp_path: Path, policy: str, ending: str, copies: int
) -> None:
    with FarEnd(closed=("dot",)) as far, _house(tmp_path) as house:
        _set_up(house, far)
        id_ = house.send(in_doubt=policy)
        far.wait_reached("dot")
        house.kill_role("dispatch")
        far.open("dot")
        house.wait_status(id_, ending)
        assert len(far.complete) == copies
        assert len({m.message_id for m in far.complete}) == 1
        in_doubt = [e for e in house.events(id_) if e["type"] == "in_doubt"]
        assert len(in_doubt) == 1
        assert in_doubt[0]["data"]["policy"] == policy
        attempts = house.recipients(id_)[0]["attempts"]
        assert [a["outcome"]["type"] for a in attempts] == (
            ["in_doubt", "delivered"] if policy == "resend" else ["in_doubt"]
        )
        _gapless(house, id_)


def test_w5_killed_after_the_answer_before_the_commit(tmp_path: Path) -> None:
    with FarEnd(closed=("dot",)) as far, _house(tmp_path) as house:
        _set_up(house, far)
        id_ = house.send()
        far.wait_reached("dot")
        lock = os.open(house.data / "everpost.db.lock", os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # nobody can commit now
            far.open("dot")
            far.wait_taken(1)
            house.kill_role("dispatch")
        finally:
            os.close(lock)
        house.wait_status(id_, "delivered")
        assert len(far.complete) == 2
        assert len({m.message_id for m in far.complete}) == 1
        assert _types(house, id_) == ["accepted", "in_doubt", "delivered"]
        _gapless(house, id_)


def test_w6_killed_after_the_commit(tmp_path: Path) -> None:
    with FarEnd() as far, _house(tmp_path) as house:
        _set_up(house, far)
        id_ = house.send()
        house.wait_status(id_, "delivered")
        house.kill_role("dispatch")
        later = house.send()  # the successor has looked at the queue when this one is out
        house.wait_status(later, "delivered")
        assert len(far.complete) == 2
        assert _types(house, id_) == ["accepted", "delivered"]
        assert house.recipients(id_)[0]["status"] == "delivered"


def test_host_goes_down_everything_claimed_is_in_doubt(tmp_path: Path) -> None:
    """Another boot id stands for another life of the host: the dot log proves nothing then."""
    with FarEnd(closed=("banner",)) as far, _house(tmp_path) as house:
        _set_up(house, far)
        id_ = house.send()
        far.wait_reached("banner")
        house.kill()
        for log in (house.data / "run").glob("dots-*.log"):
            log.unlink()  # a power cut leaves no unsynced file behind
        far.open("banner")
        house.start()
        house.wait_status(id_, "delivered")
        assert _types(house, id_) == ["accepted", "in_doubt", "delivered"]
        wait_until(lambda: len(far.taken) == 1, seconds=10, what="the one copy")
