"""F17: A client's connection breaks in the middle of a request: at each byte of its head, at each
of the last bytes of its body, with a declared length or in chunks, of one email or a batch. Nothing
is stored, nothing is delivered, and what the request held is given back. (SMTP submission is not
there yet; its row is due with it.)

Invariants: I3, I9, I16.
"""

import socket
from collections.abc import Iterator

import pytest

from tests.support.clients import copies, drain, email, exchange, hang_up, request
from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.scrape import scrape
from tests.support.stage import serving
from tests.support.waiting import wait_until

_TAIL = 48
_HELD = ("everpost_admission_requests", "everpost_admission_bytes")


@pytest.fixture(scope="module")
def far() -> Iterator[FarEnd]:
    with FarEnd() as far:
        yield far


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, far: FarEnd) -> Iterator[House]:
    with serving(tmp_path_factory.mktemp("broken"), relay=far.url) as house:
        yield house


_FORMS = {
    "length": ("/emails", 0),
    "chunks": ("/emails", 40),
    "batch": ("/emails/batch", 0),
    "batch-in-chunks": ("/emails/batch", 100),
}
"""The path, and the size of the chunks if there are any."""


@pytest.mark.parametrize("form", _FORMS)
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_request_is_cut(house: House, far: FarEnd, form: str, *, reset: bool) -> None:
    name = f"{form}-{reset}".lower()
    accepted = house.get("/status").json["accepted"]
    body = [email(f"{name}{n}") for n in range(3)] if "batch" in form else email(f"{name}0")
    path, chunk = _FORMS[form]
    data = request(house, body, path=path, chunk=chunk, key=name)
    head = data.index(b"\r\n\r\n") + 4
    for at in [*range(1, head + 2), *range(max(head + 2, len(data) - _TAIL), len(data))]:
        with socket.create_connection((house.host, house.port), timeout=20) as sock:
            sock.sendall(data[:at])
            hang_up(sock, reset=reset)
    _nothing_is_held(house)
    assert house.get("/status").json["accepted"] == accepted
    answer = exchange(house, data)  # its key was not taken by a part of it
    assert answer is not None
    assert answer[0] == 200, answer
    drain(house)
    came = copies(far)
    sent = [each for each in came if each.startswith(name)]
    assert [came[each] for each in sent] == [1] * (3 if "batch" in form else 1)


def _nothing_is_held(house: House) -> None:
    """The figures are up to a second old: see them show one request's bytes and no more, and then
    nothing."""
    data = request(house, email("held"))
    body = len(data) - data.index(b"\r\n\r\n") - 4
    with socket.create_connection((house.host, house.port), timeout=20) as sock:
        sock.sendall(data[:-1])
        _wait_held(house, [0, body])
    _wait_held(house, [0, 0])


def _wait_held(house: House, expected: list[float]) -> None:
    def held() -> list[float]:
        found = scrape(house)
        return [found[name] for name in _HELD]

    wait_until(lambda: held() == expected, seconds=10, what=lambda: f"{expected}: {held()}")
