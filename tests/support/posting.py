"""Clients that post one email after the other through whatever is in front, and try nothing twice:
what they got is what a user would have got."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from tests.support.waiting import wait_until

__all__ = ["Poster", "posting", "through_port", "through_socket"]

_PAUSE_S = 0.02
_PAUSE_AFTER_FAILURE_S = 0.25
_ENOUGH = 200
"""Failures after which a client gives up: a test that fails so often need not go on."""


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("everpost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def through_socket(path: str) -> Callable[[], http.client.HTTPConnection]:
    return lambda: _Unix(path)


def through_port(port: int) -> Callable[[], http.client.HTTPConnection]:
    return lambda: http.client.HTTPConnection("127.0.0.1", port, timeout=30)


class Poster(threading.Thread):
    """Posts on one connection, as long as it is kept, until it is told to stop.

    `accepted`: ids of what was answered 200; `failed`: what came instead, a status and words, or an
    error; `longest`: the most seconds that an answer took. The email's subject is the client's name
    and a number, so no two are the same.
    """

    def __init__(
        self, name: str, connect: Callable[[], http.client.HTTPConnection], key: str
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.accepted: list[str] = []
        self.failed: list[str] = []
        self.longest = 0.0
        self._connection = connect()
        self._key = key
        self._sent = 0
        self._halt = threading.Event()

    def run(self) -> None:
        try:
            pause = _PAUSE_S
            while not self._halt.wait(pause) and len(self.failed) < _ENOUGH:
                began, failed = time.monotonic(), len(self.failed)
                self._post()
                self.longest = max(self.longest, time.monotonic() - began)
                pause = _PAUSE_AFTER_FAILURE_S if len(self.failed) > failed else _PAUSE_S
        finally:
            self._connection.close()

    def stop(self) -> None:
        self._halt.set()

    def _post(self) -> None:
        body = {
            "from": "a@example.test",
            "to": ["b@receiver.test"],
            "subject": f"{self.name} {self._sent}",
            "text": "x\n",
        }
        self._sent += 1
        headers: Mapping[str, str] = {
            "Authorization": f"Bearer {self._key}",
            "Content-Type": "application/json",
        }
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


@contextlib.contextmanager
def posting(
    count: int, connect: Callable[[], http.client.HTTPConnection], key: str
) -> Iterator[list[Poster]]:
    """So many clients at work; they have stopped after the block."""
    clients = [Poster(f"c{n}", connect, key) for n in range(count)]
    for client in clients:
        client.start()
    try:
        wait_until(lambda: all(client.accepted for client in clients), seconds=10, what="traffic")
        yield clients
    finally:
        for client in clients:
            client.stop()
        for client in clients:
            client.join(timeout=40)
