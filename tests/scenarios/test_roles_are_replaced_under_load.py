"""F16: every process is replaced while clients post through HAProxy: by two reloads of the
configuration, and by SIGTERM to one that accepts and one that delivers. No request fails, and every
message goes out once.

Invariants: I1, I3, I8, I9.
"""

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from everpost.recovery.children import read_children
from tests.support.far_end import FarEnd
from tests.support.fronts import Front
from tests.support.house import House
from tests.support.posting import posting, through_socket
from tests.support.waiting import wait_until

CLIENTS = 4


def _pids(house: House) -> dict[str, int]:
    facts = read_children(house.data / "run" / "children.json")
    assert facts is not None
    return {child.name: child.pid for child in facts.children if child.ready}


def _replace_all(house: House) -> None:
    before = _pids(house)
    done = house.cli("config", "reload")
    assert done.returncode == 0, (done, house.tail())
    assert _pids(house).keys() == before.keys()
    assert not set(_pids(house).values()) & set(before.values())


def _replace_one(house: House, name: str) -> None:
    before = _pids(house)[name]
    os.kill(before, signal.SIGTERM)
    wait_until(
        lambda: _pids(house).get(name, before) != before,
        seconds=20,
        what=lambda: f"another {name}\n{house.tail()}",
    )


@pytest.mark.long
def test_a_request_fails_while_processes_are_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "front"
    folder.mkdir()
    with FarEnd() as far, House(tmp_path / "d", processes=1) as house:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        with (
            Front("haproxy", folder, house.port, idle_ms=10_000) as front,
            posting(CLIENTS, through_socket(front.path), house.key) as clients,
        ):
            _replace_all(house)
            _replace_all(house)
            _replace_one(house, "api")
            _replace_one(house, "dispatch-1")
        assert [fault for client in clients for fault in client.failed] == []
        accepted = [id_ for client in clients for id_ in client.accepted]
        assert len(set(accepted)) == len(accepted)
        far.wait_taken(len(accepted), seconds=60)
        wait_until(
            lambda: house.get("/status").json["states"].get("delivered") == len(accepted),
            seconds=20,
            what="all to be recorded",
        )
        copies = Counter(message.message_id for message in far.taken)
        assert len(copies) == copies.total() == len(accepted)
        assert house.findings() == []
