"""F16, F90: nodes are restarted while clients post through the balancers' files of deploy/. With
another node there, or with HAProxy's file for one machine, no request fails. Alone behind the
others a node leaves a gap, in which nothing is in doubt: what failed was not accepted.

Where there are two nodes they have a store each: what is tested is who gets which request.

Invariants: I1, I3, I8, I9.
"""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.deployed import Balancer
from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.journal import wait_logged
from tests.support.posting import Poster, posting, through_port
from tests.support.waiting import wait_until

CLIENTS = 4
LINGER = {"EVERPOST_HTTP_LINGER_S": "3"}
"""Above the 1.25 s and two answers that HAProxy needs."""


def _open(house: House, far: FarEnd) -> House:
    house.relay(far.url, tls="none")
    house.domain(signing="unsigned")
    return house


def _restart(house: House) -> None:
    assert house.stop() == 0, house.tail()
    house.start()


def _wait_more(house: House) -> None:
    """Until the balancer has come back to it."""

    def there() -> int:
        return sum(house.get("/status").json["states"].values())

    before = there()
    wait_until(lambda: there() > before, seconds=20, what="it to get mail again")


def _judge(far: FarEnd, clients: list[Poster], *houses: House) -> None:
    """All that was accepted went out once, and nothing else did."""
    accepted = [id_ for client in clients for id_ in client.accepted]
    assert len(set(accepted)) == len(accepted)
    far.wait_taken(len(accepted), seconds=60)
    wait_until(
        lambda: (
            sum(h.get("/status").json["states"].get("delivered", 0) for h in houses)
            == len(accepted)
        ),
        seconds=20,
        what="all to be recorded",
    )
    copies = Counter(message.message_id for message in far.taken)
    assert len(copies) == copies.total() == len(accepted)
    for house in houses:
        assert house.findings() == []


def _failed(clients: list[Poster]) -> list[str]:
    return [fault for client in clients for fault in client.failed]


@pytest.mark.long
def test_the_only_node_restarts(tmp_path: Path) -> None:
    """Requests wait for it, in HAProxy."""
    with FarEnd() as far, House(tmp_path / "d", processes=1) as house:
        _open(house, far)
        with (
            Balancer("haproxy-one", tmp_path / "front", [house.port]) as front,
            posting(CLIENTS, through_port(front.port), house.key) as clients,
        ):
            _restart(house)
            before = sum(len(client.accepted) for client in clients)
            wait_until(
                lambda: sum(len(client.accepted) for client in clients) > before + 20,
                seconds=10,
                what="traffic after the restart",
            )
        assert _failed(clients) == []
        _judge(far, clients, house)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
def test_two_nodes_restart_one_after_the_other(kind: str, tmp_path: Path) -> None:
    with (
        FarEnd() as far,
        House(tmp_path / "one", processes=1, settings=LINGER) as one,
        House(tmp_path / "two", processes=1, settings=LINGER) as two,
    ):
        _open(one, far)
        _open(two, far)
        with (
            Balancer(kind, tmp_path / "front", [one.port, two.port]) as front,
            posting(CLIENTS, through_port(front.port), one.key) as clients,
        ):
            for house in (one, two):
                _restart(house)
                _wait_more(house)
        assert _failed(clients) == []
        _judge(far, clients, one, two)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
def test_the_only_node_restarts_behind_a_balancer_for_three(kind: str, tmp_path: Path) -> None:
    """Nobody else could take what comes meanwhile: it fails, at once, and was not accepted."""
    with FarEnd() as far, House(tmp_path / "d", processes=1, settings=LINGER) as house:
        _open(house, far)
        with (
            Balancer(kind, tmp_path / "front", [house.port]) as front,
            posting(CLIENTS, through_port(front.port), house.key) as clients,
        ):
            _restart(house)
            before = sum(len(client.accepted) for client in clients)
            wait_until(
                lambda: sum(len(client.accepted) for client in clients) > before,
                seconds=20,
                what="traffic after the restart",
            )
        failed = _failed(clients)
        assert failed
        assert {fault[:3] for fault in failed} == {"503" if kind == "haproxy" else "502"}, failed
        _judge(far, clients, house)


def _leave(port: int, ready: Callable[[], int], tell: Callable[[], None]) -> float:
    """Tell it to end. It says that it is not ready, while it still answers all else; then it
    closes. The seconds between."""
    assert ready() == 200
    tell()
    wait_until(lambda: ready() == 503, seconds=5, what="it to say that it leaves")
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = sock.recv(4096)
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert b"connection: close" in answer

    def refused() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0

    wait_until(refused, seconds=20, what="its door to close")
    return time.monotonic() - began


def _ready(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.long
def test_node_closes_before_it_has_said_that_it_leaves(tmp_path: Path) -> None:
    """The whole of it, by its supervisor; a request that is in hand is answered, and accepted mail
    is there afterwards."""
    with House(tmp_path / "d", processes=1, settings={"EVERPOST_HTTP_LINGER_S": "1"}) as house:
        took = _leave(
            house.port, lambda: _ready(house.port), lambda: os.kill(house.pid, signal.SIGTERM)
        )
        assert 0.5 < took < 5, took
        assert house.stop() == 0, house.tail()
        house.start()
        assert house.get("/health/ready").status == 200


def test_signal_comes_twice(tmp_path: Path) -> None:
    """Whoever is in a hurry does not wait."""
    with House(tmp_path / "d", processes=1, settings={"EVERPOST_HTTP_LINGER_S": "60"}) as house:
        assert _ready(house.port) == 200
        os.kill(house.pid, signal.SIGTERM)
        wait_logged(house, "supervisor.leaving")
        wait_until(lambda: _ready(house.port) == 503, seconds=5, what="it to leave")
        began = time.monotonic()
        assert house.stop() == 0, house.tail()
        assert time.monotonic() - began < 30


def test_role_that_was_started_by_hand_closes_at_once(tmp_path: Path) -> None:
    """It has no supervisor that keeps the time."""
    with House(tmp_path / "d", processes=1) as house:
        port = house.port
    environment = {
        **os.environ,
        "EVERPOST_HTTP_LISTEN": f"127.0.0.1:{port}",
        "EVERPOST_HTTP_ADMIN_LISTEN": "",
        "EVERPOST_HTTP_LINGER_S": "1",
        "EVERPOST_DNS_SERVERS": "127.0.0.1",
    }
    with (tmp_path / "run.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "everpost", "run", "api", "--data", str(tmp_path / "d")],
            env=environment,
            stderr=log,
        )
    try:

        def ready() -> int:
            with contextlib.suppress(OSError):
                return _ready(port)
            return 0

        wait_until(lambda: ready() == 200, seconds=30, what="the role to serve")
        took = _leave(port, ready, process.terminate)
        assert 0.5 < took < 5, took
        assert process.wait(timeout=30) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
