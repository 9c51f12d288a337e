"""F16: every process is replaced while clients post through HAProxy: by two reloads of the
configuration, and by SIGTERM to one that accepts and one that delivers. No request fails, and every
message goes out once.

Invariants: I1, I3, I8, I9.
"""

import http.client
import json
import os
import signal
import socket
import threading
from collections import Counter
from pathlib import Path

import pytest

from everpost.recovery.children import read_children
from tests.support.far_end import FarEnd
from tests.support.fronts import Front
from tests.support.house import House
from tests.support.waiting import wait_until

CLIENTS = 4
PAUSE_S = 0.02


class _Connection(http.client.HTTPConnection):
    """To the front's socket."""

    def __init__(self, path: str) -> None:
        super().__init__("everpost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _Client(threading.Thread):
    """Posts on one connection until it is told to stop; tries nothing twice."""

    def __init__(self, name: str, path: str, key: str, stop: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.accepted: list[str] = []
        self.failed: list[str] = []
        self._connection = _Connection(path)
        self._key = key
        self._halt = stop

    def run(self) -> None:
        try:
            while not self._halt.wait(PAUSE_S) and len(self.failed) < 5:
                self._post()
        finally:
            self._connection.close()

    def _post(self) -> None:
        n = len(self.accepted)
        body = {
            "from": "a@example.test",
            "to": ["b@receiver.test"],
            "subject": f"{self.name} {n}",
            "text": "x\n",
        }
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        try:
            self._connection.request("POST", "/emails", json.dumps(body), headers)
            answer = self._connection.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            self.failed.append(repr(error))
            return
        if answer.status == 200:
            self.accepted.append(json.loads(said)["id"])
        else:
            self.failed.append(f"{answer.status} {said!r}")


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
    stop = threading.Event()
    folder = tmp_path / "front"
    folder.mkdir()
    with FarEnd() as far, House(tmp_path / "d", processes=1) as house:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        with Front("haproxy", folder, house.port, idle_ms=10_000) as front:
            clients = [_Client(f"c{n}", front.path, house.key, stop) for n in range(CLIENTS)]
            for client in clients:
                client.start()
            try:
                wait_until(
                    lambda: all(client.accepted for client in clients), seconds=10, what="traffic"
                )
                _replace_all(house)
                _replace_all(house)
                _replace_one(house, "api")
                _replace_one(house, "dispatch-1")
            finally:
                stop.set()
                for client in clients:
                    client.join(timeout=40)
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
