"""The balancers' files of deploy/, with the real programs: what they refuse to do twice, where they
send what can still be sent, and when they leave a node."""

import contextlib
import http.client
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.scripted import Scripted
from tests.support.deployed import DEPLOY, Balancer, free_ports, nginx_settings
from tests.support.waiting import wait_until

KINDS = ("haproxy", "nginx")
KEY = {"Idempotency-Key": "k1"}
ANYWHERE = {
    **{f"EVERPOST_{n}": f"127.0.0.1:{n}" for n in (1, 2, 3)},
    **{f"POSTGRES_{n}": f"127.0.0.1:{n}" for n in (1, 2, 3)},
    **{f"PATRONI_{n}": "8008" for n in (1, 2, 3)},
    "EVERPOST_BIND": "127.0.0.1:8080",
    "EVERPOST_STATUS": "127.0.0.1:8404",
    "POSTGRES_BIND": "127.0.0.1:5000",
}


def _ask(
    port: int, method: str = "POST", body: bytes = b"mail", headers: dict[str, str] | None = None
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, "/emails", body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read(), {k.lower(): v for k, v in answer.headers.items()}
    finally:
        connection.close()


@contextlib.contextmanager
def _two(kind: str, tmp_path: Path, does: str) -> Iterator[tuple[Balancer, Scripted, Scripted]]:
    """A first node that `does` so, a second one that takes; both looked at and found ready."""
    with (
        Scripted(does) as bad,
        Scripted() as good,
        Balancer(kind, tmp_path / "front", [bad.port, good.port]) as front,
    ):
        if kind == "haproxy":
            wait_until(lambda: min(bad.looks, good.looks) > 1, seconds=10, what="looks")
        yield front, bad, good


def _until_it_met(
    bad: Scripted, front: Balancer, headers: dict[str, str] | None
) -> list[tuple[int, bytes]]:
    """Ask until the first node has had a request."""
    answers: list[tuple[int, bytes]] = []
    while not bad.taken:
        assert len(answers) < 20, "the first node is never asked"
        answers.append(_ask(front.port, headers=headers)[:2])
    return answers


@pytest.mark.parametrize("file", sorted((DEPLOY / "haproxy").glob("*.cfg")), ids=lambda f: f.name)
def test_haproxy_refuses_a_file(file: Path) -> None:
    done = subprocess.run(
        ["/usr/sbin/haproxy", "-c", "-f", str(file)],
        env={**os.environ, **ANYWHERE},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


@pytest.mark.parametrize("nodes", [1, 3])
def test_nginx_refuses_the_file(nodes: int, tmp_path: Path) -> None:
    values = {f"EVERPOST_{n}": f"127.0.0.1:{n}" for n in range(1, nodes + 1)}
    settings = nginx_settings(tmp_path, {**values, "EVERPOST_LISTEN": "127.0.0.1:8080"})
    done = subprocess.run(
        ["/usr/sbin/nginx", "-t", "-p", str(tmp_path), "-e", "stderr", "-c", str(settings)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_nodes_are_gone_but_one(kind: str, tmp_path: Path) -> None:
    """A refused connection costs nobody a request, with a key or without."""
    with Scripted() as good:
        nodes = [*free_ports(2), good.port]
        with Balancer(kind, tmp_path / "front", nodes) as front:
            answers = [_ask(front.port)[:2] for _ in range(20)]
            answers += [_ask(front.port, "GET", b"")[:2] for _ in range(5)]
            answers += [_ask(front.port, headers=KEY)[:2] for _ in range(5)]
    assert answers == [(200, b"taken")] * 30
    assert len(good.taken) == 30


@pytest.mark.parametrize("kind", KINDS)
def test_node_dies_with_a_request_that_has_no_key(kind: str, tmp_path: Path) -> None:
    """Nobody knows whether it was accepted: the client hears so, and no other node gets it."""
    with _two(kind, tmp_path, "reset") as (front, bad, good):
        answers = _until_it_met(bad, front, None)
        assert answers[-1][0] == 502, answers
        assert len(bad.taken) == 1
        assert len(good.taken) == len(answers) - 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("does", ["reset", "refuse"])
def test_node_fails_a_request_that_has_a_key(kind: str, does: str, tmp_path: Path) -> None:
    """Another node gets it: were it accepted already, its key would say so."""
    with _two(kind, tmp_path, does) as (front, bad, good):
        answers = _until_it_met(bad, front, KEY)
        assert answers == [(200, b"taken")] * len(answers)
        assert len(good.taken) == len(answers)


@pytest.mark.parametrize("kind", KINDS)
def test_node_fails_a_letter_of_forty_kilobytes_that_has_a_key(kind: str, tmp_path: Path) -> None:
    """To be sent again it must be kept: HAProxy keeps what fits in tune.bufsize."""
    with _two(kind, tmp_path, "reset") as (front, bad, good):
        for n in range(10):
            letter = b"%d" % n * 40_000
            assert _ask(front.port, body=letter, headers=KEY)[0] == 200
            assert good.taken[-1] == letter
        assert bad.taken


@pytest.mark.parametrize("kind", KINDS)
def test_node_refuses_a_request_that_has_no_key(kind: str, tmp_path: Path) -> None:
    """Its own words reach the client."""
    with _two(kind, tmp_path, "refuse") as (front, bad, _good):
        assert _until_it_met(bad, front, None)[-1] == (503, b"node says no")


@pytest.mark.parametrize("kind", KINDS)
def test_key_of_no_characters_is_taken_for_one(kind: str, tmp_path: Path) -> None:
    """Everpost answers 400 to it; a balancer that repeats it does no harm either way. What counts
    is that an empty one does not make a request safe that is not."""
    with _two(kind, tmp_path, "reset") as (front, bad, good):
        answers = _until_it_met(bad, front, {"X-Idempotency-Key": "k", "Idempotency": "k"})
        assert answers[-1][0] == 502
        assert len(good.taken) == len(answers) - 1


def test_node_says_that_it_is_not_ready(tmp_path: Path) -> None:
    """HAProxy leaves it well within http.linger_s of the nodes, and comes back."""
    with _two("haproxy", tmp_path, "take") as (front, leaving, good):
        leaving.ready = False

        def left() -> bool:
            before = len(leaving.taken)
            for _ in range(6):
                assert _ask(front.port)[0] == 200
            return len(leaving.taken) == before

        wait_until(left, seconds=4, what="HAProxy to leave it")
        assert len(good.taken) > 5
        leaving.ready, before = True, len(leaving.taken)

        def back() -> bool:
            assert _ask(front.port)[0] == 200
            return len(leaving.taken) > before

        wait_until(back, seconds=10, what="HAProxy to come back")


def test_no_node_is_there(tmp_path: Path) -> None:
    """HAProxy says in Everpost's words that nothing was accepted, and to its own watcher that it
    has nobody."""
    with Balancer("haproxy", tmp_path / "front", []) as front:

        def down() -> bool:
            connection = http.client.HTTPConnection("127.0.0.1", front.status_port, timeout=5)
            connection.request("GET", "/up")
            status = connection.getresponse().status
            connection.close()
            return status == 503

        wait_until(down, seconds=10, what="it to find all nodes gone")
        status, body, headers = _ask(front.port)
    assert status == 503
    assert b'"name":"service_unavailable"' in body
    assert (headers["retry-after"], headers["content-type"]) == ("1", "application/json")


class _Database(Scripted):
    """Patroni's REST API, and beside it a port where PostgreSQL would be: it says its name."""

    def __init__(self, name: bytes, *, ready: bool) -> None:
        super().__init__(ready=ready)
        self._name = name
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.database = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []

    def __enter__(self) -> "_Database":
        super().__enter__()
        import threading

        threading.Thread(target=self._greet, daemon=True).start()
        return self

    def _greet(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = self._listener.accept()[0]
                self._open.append(connection)
                connection.sendall(self._name)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()


def _greeting(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        return sock.recv(16)


def test_primary_moves_and_sessions_stay_behind(tmp_path: Path) -> None:
    """The port follows Patroni's word; who was connected to the old primary is cut off, though it
    still listens (an orphan's clients would write to a dead branch)."""
    with _Database(b"one", ready=True) as one, _Database(b"two", ready=False) as two:
        (bind,) = free_ports(1)
        (nobody,) = free_ports(1)
        environment = {
            **os.environ,
            "POSTGRES_BIND": f"127.0.0.1:{bind}",
            "POSTGRES_1": f"127.0.0.1:{one.database}",
            "POSTGRES_2": f"127.0.0.1:{two.database}",
            "POSTGRES_3": f"127.0.0.1:{nobody}",
            "PATRONI_1": str(one.port),
            "PATRONI_2": str(two.port),
            "PATRONI_3": str(nobody),
        }
        log = tmp_path / "log"
        with log.open("wb") as said:
            process = subprocess.Popen(
                ["/usr/sbin/haproxy", "-db", "-f", str(DEPLOY / "haproxy" / "postgresql.cfg")],
                env=environment,
                stdout=said,
                stderr=said,
            )
        try:

            def leads_to(name: bytes) -> bool:
                with contextlib.suppress(OSError):
                    return _greeting(bind) == name
                return False

            # HAProxy takes all for primaries until it has looked.
            wait_until(lambda: two.looks > 2, seconds=10, what=log.read_text)
            wait_until(lambda: leads_to(b"one"), seconds=10, what=log.read_text)
            held = socket.create_connection(("127.0.0.1", bind), timeout=10)
            assert held.recv(16) == b"one"
            two.ready, one.ready = True, False
            wait_until(lambda: leads_to(b"two"), seconds=10, what=log.read_text)
            assert held.recv(16) == b"", "the session with the old primary is not cut"
            held.close()
        finally:
            process.terminate()
            process.wait(timeout=10)
