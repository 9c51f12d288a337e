"""F3: A flush of the store fails, once or for a while, or a read does; in the process that accepts,
in one that delivers, in the upkeep that copies the log back. What cannot be flushed is refused with
503 and is never found or delivered; an alarm stands and readiness says so; outcomes wait until they
can be written. When the disk is well again all goes on by itself. What was acknowledged survives a
power cut right after the fault, what was refused does not come back.

Invariants: I1, I4, I8, I9, I16.
"""

import os
import signal
from pathlib import Path

import pytest

from tests.support.clients import copies, drain, email
from tests.support.far_end import FarEnd
from tests.support.house import Answer, House
from tests.support.journal import logged, wait_logged
from tests.support.power import Host
from tests.support.stage import check_unavailable
from tests.support.tracing import injecting
from tests.support.waiting import wait_until

_ALARM = "store_unavailable"
_QUIET = {"EVERPOST_STORE_CHECKPOINT_S": "10", "EVERPOST_DISPATCH_POLL_S": "0.1"}
"""Upkeep keeps out of the way of counted flushes."""


def _post(house: House, name: str) -> Answer:
    return house.post("/emails", email(name))


def _kill_children(house: House) -> None:
    """Nobody lives on who knows where the log ends."""
    for pid in house.children():
        os.kill(pid, signal.SIGKILL)


def test_in_the_process_that_accepts(tmp_path: Path) -> None:
    with (
        FarEnd() as far,
        Host(tmp_path) as host,
        host.house(processes=1, settings=_QUIET) as house,
    ):
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        known = house.send(to=["known@receiver.test"])
        house.wait_status(known, "delivered")
        (pid,) = house.children("api")
        with injecting(pid, "fdatasync:error=EIO"):
            for n in range(3):
                check_unavailable(_post(house, f"refused{n}"))
            house.wait_alarm(_ALARM, stands=True)
            house.wait_ready(503)
            assert house.get(f"/emails/{known}").status == 200
        house.wait_ready(200)  # nobody has posted meanwhile
        house.wait_alarm(_ALARM, stands=False)
        assert _post(house, "between").status == 200
        with injecting(pid, "fdatasync:error=EIO:when=1"):
            check_unavailable(_post(house, "once"))
            assert _post(house, "after").status == 200
        host.cut(house)
        house.start()
        states = drain(house)
        assert states["delivered"] == 3
        came = copies(far)
        assert set(came) == {"known", "between", "after"}
        assert house.children("api") != [pid]
        assert house.findings() == []


@pytest.mark.long
def test_and_everything_is_killed_before_it_is_well_again(tmp_path: Path) -> None:
    """The refused message's last page is in the log, where whoever comes next would take it for
    committed."""
    with FarEnd() as far, House(tmp_path / "d", processes=1, settings=_QUIET) as house:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        (pid,) = house.children("api")
        with injecting(pid, "fdatasync:error=EIO"):
            check_unavailable(_post(house, "refused"))
            house.kill()
        house.start()
        assert _post(house, "after").status == 200
        assert drain(house)["delivered"] == 1
        assert set(copies(far)) == {"after"}


def test_in_a_process_that_delivers(tmp_path: Path) -> None:
    with FarEnd(closed=("dot",)) as far, House(tmp_path / "d", processes=1) as house:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        names = [f"u{n}" for n in range(5)]
        ids = [str(_post(house, name).json["id"]) for name in names]
        far.wait_reached("dot")
        (pid,) = house.children("dispatch")
        with injecting(pid, "fdatasync:error=EIO"):
            far.open("dot")
            wait_logged(house, "dispatch.settle_waits")
            house.wait_alarm(_ALARM, stands=True)
            ids.append(str(_post(house, "meanwhile").json["id"]))
        for id_ in ids:
            house.wait_status(id_, "delivered")
        house.wait_alarm(_ALARM, stands=False)
        assert house.children("dispatch") == [pid]
        came = copies(far)
        doubts = sum(e["type"] == "in_doubt" for id_ in ids for e in house.events(id_))
        assert set(came) == {*names, "meanwhile"}
        assert sum(came.values()) - len(ids) <= doubts


@pytest.mark.long
def test_in_upkeep_which_copies_the_log_back(tmp_path: Path) -> None:
    with FarEnd() as far, House(tmp_path / "d", processes=1) as house:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        ids = []
        (pid,) = house.children("api")
        with injecting(pid, "fdatasync:error=EIO", paths=[house.data / "everpost.db"]):
            ids.append(str(_post(house, "copied").json["id"]))  # there is something to copy back
            house.wait_alarm("upkeep_failing", stands=True)
            ids.append(str(_post(house, "beside").json["id"]))
        house.wait_alarm("upkeep_failing", stands=False)
        assert house.children("api") == [pid]
        _kill_children(house)
        house.kill()
        house.start()
        for id_ in ids:
            house.wait_status(id_, "delivered")
        assert house.findings() == []


def test_and_when_it_fails_to_read(tmp_path: Path) -> None:
    with FarEnd() as far, House(tmp_path / "d", processes=1) as house:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        known = house.send(to=["known@receiver.test"])
        house.wait_status(known, "delivered")
        (pid,) = house.children("api")
        taken: list[str] = []
        with injecting(pid, "pread64:error=EIO"):

            def unread() -> bool:
                answer = _post(house, f"t{len(taken)}")
                assert answer.status in (200, 503), house.tail()
                if answer.status == 200:
                    taken.append(str(answer.json["id"]))
                answer = house.get(f"/emails/{known}")
                assert answer.status in (200, 503), house.tail()
                return answer.status == 503

            wait_until(unread, seconds=20, what="a refusal")
        wait_until(
            lambda: house.get(f"/emails/{known}").status == 200, seconds=20, what="an answer again"
        )
        # SQLite calls it damage. The whole file is read again, and is sound.
        house.wait_ready(200, seconds=30)
        house.wait_alarm("store_corrupt", stands=False)
        assert _post(house, "after").status == 200
        assert drain(house)["delivered"] == len(taken) + 2
        assert not logged(house, "http.error")
        assert house.children("api") == [pid]
