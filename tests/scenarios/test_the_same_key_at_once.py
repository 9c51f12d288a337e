"""F12: Fifty clients send one idempotency key at once: through two processes on one store, and
while one of them is killed. There is one message with one id, and whoever asks gets that id; of
different requests with one key, one wins and the others are refused and do nothing.

Invariants: I7, I9.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import copies, drain, email, exchange, request
from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.stage import serving
from tests.support.tracing import injecting
from tests.support.waiting import wait_until

_CLIENTS = 50
_TRIES = 400


@pytest.fixture(scope="module")
def far() -> Iterator[FarEnd]:
    with FarEnd() as far:
        yield far


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, far: FarEnd) -> Iterator[House]:
    with serving(tmp_path_factory.mktemp("keys"), relay=far.url) as house:
        yield house


@pytest.fixture(scope="module")
def second(house: House) -> Iterator[int]:
    """The port of another process that serves the API on the same store."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    log = Path(f"{house.data}.second.log").open("wb")  # noqa: SIM115  closed below
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "everpost", "run", "api", "--name", "api-2"),
            *("--data", str(house.data), "--config", os.devnull),
        ],
        env={**os.environ, "EVERPOST_HTTP_LISTEN": f"127.0.0.1:{port}"},
        stdin=subprocess.DEVNULL,
        stderr=log,
    )
    try:
        wait_until(lambda: _listens(port), seconds=20, what="the second process")
        yield port
    finally:
        process.terminate()
        process.wait(timeout=30)
        log.close()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def _at_once(
    do: Callable[[int], tuple[int, Mapping[str, Any]] | None],
) -> list[tuple[int, Mapping[str, Any]] | None]:
    """Fifty clients that start together; their answers."""
    start = threading.Barrier(_CLIENTS)

    def run(n: int) -> tuple[int, Mapping[str, Any]] | None:
        start.wait(20)
        return do(n)

    with ThreadPoolExecutor(_CLIENTS) as clients:
        return list(clients.map(run, range(_CLIENTS)))


def _through_either(
    house: House, second: int, data: bytes, n: int
) -> tuple[int, Mapping[str, Any]] | None:
    return exchange(house, data, port=(0, second)[n % 2])


def test_the_same_request_through_two_processes(house: House, far: FarEnd, second: int) -> None:
    for name in ("same0", "same1", "same2"):
        data = request(house, email(name), key=name)
        answers = _at_once(partial(_through_either, house, second, data))
        assert None not in answers
        assert {answer[0] for answer in answers if answer} == {200}, answers
        assert len({answer[1]["id"] for answer in answers if answer}) == 1
    drain(house)
    assert [copies(far)[name] for name in ("same0", "same1", "same2")] == [1, 1, 1]


def test_different_requests_through_two_processes(house: House, far: FarEnd, second: int) -> None:
    names = [f"rival{n}" for n in range(_CLIENTS)]
    answers = _at_once(
        lambda n: _through_either(house, second, request(house, email(names[n]), key="rivals"), n)
    )
    said = Counter(answer[0] if answer else 0 for answer in answers)
    assert said == {200: 1, 409: _CLIENTS - 1}
    assert {a[1]["name"] for a in answers if a and a[0] == 409} == {"invalid_idempotent_request"}
    winner = next(n for n, answer in enumerate(answers) if answer and answer[0] == 200)
    drain(house)
    came = copies(far)
    assert {name: came[name] for name in names if came[name]} == {names[winner]: 1}


def test_a_batch_and_its_key(house: House, far: FarEnd, second: int) -> None:
    names = [f"batch{n}" for n in range(10)]
    body = [email(name) for name in names]
    data = request(house, body, path="/emails/batch", key="batch")
    answers = _at_once(partial(_through_either, house, second, data))
    assert {answer[0] if answer else 0 for answer in answers} == {200}
    assert len({str(answer[1]) for answer in answers if answer}) == 1
    drain(house)
    assert {copies(far)[name] for name in names} == {1}


@pytest.mark.parametrize("flush", [1, 2])
def test_the_process_is_killed_among_them(house: House, far: FarEnd, flush: int) -> None:
    """At a flush of its store: whether the first of them was committed, nobody knows. Each client
    asks until it is answered."""
    name = f"killed{flush}"
    (pid,) = house.children("api")
    data = request(house, email(name), key=name)

    def ask(_: int) -> tuple[int, Mapping[str, Any]] | None:
        for _ in range(_TRIES):
            answer = exchange(house, data)
            if answer is not None and answer[0] == 200:
                return answer
            assert answer is None or answer[0] == 503, answer
            threading.Event().wait(0.02)  # the process is being started again
        return None

    with injecting(pid, f"fdatasync:signal=KILL:when={flush}"):
        answers = _at_once(ask)
        if flush > 1:  # the first flush may have been all that this needed
            _finish(pid)
    assert None not in answers
    assert len({answer[1]["id"] for answer in answers if answer}) == 1
    assert pid not in house.children("api")
    drain(house)
    assert copies(far)[name] == 1


def _finish(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
