"""F8: The file system turns read-only under a running server. New mail is refused with 503, what
was accepted can be read, deliveries in hand end as they would and their outcomes wait; an alarm
stands and readiness says so. Where it becomes writable again, all goes on by itself; else a restart
after the repair does. A start on a read-only disk says so in one sentence, and ends.

Invariants: I1, I4, I8, I9, I16.
"""

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.clients import copies, drain, email
from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.journal import logged, wait_logged
from tests.support.power import Host
from tests.support.stage import check_unavailable
from tests.support.tracing import injecting

_READ_ONLY = "pwrite64:error=EROFS"


def test_for_a_while(tmp_path: Path) -> None:
    with FarEnd(closed=("dot",)) as far, House(tmp_path / "d", processes=1) as house:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        ids = [house.send(to=[f"u{n}@receiver.test"]) for n in range(3)]
        far.wait_reached("dot")
        children = house.children()
        with ExitStack() as stack:
            for pid in children:
                stack.enter_context(injecting(pid, _READ_ONLY))
            check_unavailable(house.post("/emails", email("refused")))
            far.open("dot")
            wait_logged(house, "dispatch.settle_waits")
            house.wait_alarm("store_unavailable", stands=True)
            house.wait_ready(503)
            for id_ in ids:
                assert house.get(f"/emails/{id_}").status == 200
        house.wait_ready(200)
        house.wait_alarm("store_unavailable", stands=False)
        ids.append(house.send(to=["after@receiver.test"]))
        for id_ in ids:
            house.wait_status(id_, "delivered")
        assert house.children() == children
        assert copies(far) == {"u0": 1, "u1": 1, "u2": 1, "after": 1}
        assert not logged(house, "http.error")


@pytest.mark.long
def test_for_good_until_it_is_mounted_anew(tmp_path: Path) -> None:
    with (
        FarEnd(closed=("dot",)) as far,
        Host(tmp_path) as host,
        host.house(processes=1) as house,
    ):
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        ids = [house.send(to=[f"u{n}@receiver.test"]) for n in range(3)]
        far.wait_reached("dot")
        host.turn_read_only()
        check_unavailable(house.post("/emails", email("refused")))
        far.open("dot")
        house.wait_alarm("store_unavailable", stands=True)
        check_unavailable(house.post("/emails", email("refused")))
        for id_ in ids:
            assert house.get(f"/emails/{id_}").status == 200
        house.kill()
        house.start(wait=False)
        assert house.wait_end(20) == 1
        assert "read-only" in house.tail().splitlines()[-1].lower(), house.tail()
        host.mount_again()
        house.start()
        assert drain(house)["delivered"] == len(ids)
        came = copies(far)
        assert set(came) == {"u0", "u1", "u2"}
        for n, id_ in enumerate(ids):
            doubts = sum(event["type"] == "in_doubt" for event in house.events(id_))
            assert came[f"u{n}"] - 1 <= doubts
        assert house.findings() == []
