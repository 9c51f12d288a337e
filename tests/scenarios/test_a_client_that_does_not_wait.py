"""F11, F18: A client hangs up right behind its request, or the answer is lost on the wire. A retry
with the same idempotency key finds the first message, if there is one; without a key there may be
two, and both are on record and delivered once.

Invariants: I1, I4, I7, I9.
"""

import socket
from collections.abc import Iterator

import pytest

from tests.support.clients import copies, drain, email, exchange, hang_up, request
from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.stage import serving

_TIMES = 12


@pytest.fixture(scope="module")
def far() -> Iterator[FarEnd]:
    with FarEnd() as far:
        yield far


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, far: FarEnd) -> Iterator[House]:
    with serving(tmp_path_factory.mktemp("hasty"), relay=far.url) as house:
        yield house


def _leave(house: House, data: bytes, how: str) -> None:
    """Send a request and do not wait for its answer."""
    sock = socket.create_connection((house.host, house.port), timeout=20)
    sock.sendall(data)
    if how == "half-closed":
        sock.shutdown(socket.SHUT_WR)
    hang_up(sock, reset=how == "reset")


@pytest.mark.parametrize("how", ["closed", "half-closed", "reset"])
def test_who_hung_up_asks_again_with_its_key(house: House, far: FarEnd, how: str) -> None:
    names = [f"{how}{n}" for n in range(_TIMES)]
    for name in names:
        data = request(house, email(name), key=name)
        _leave(house, data, how)
        first, again = exchange(house, data), exchange(house, data)
        assert first is not None
        assert first[0] == 200
        assert again == first
    drain(house)
    came = copies(far)
    assert {came[name] for name in names} == {1}


def test_the_answer_is_lost_on_the_wire(house: House, far: FarEnd) -> None:
    """The client gives up when the mail has long been delivered, and asks again."""
    before = len(far.taken)
    data = request(house, email("lost"), key="lost")
    sock = socket.create_connection((house.host, house.port), timeout=20)
    sock.sendall(data)
    far.wait_taken(before + 1)
    hang_up(sock, reset=True)
    answer = exchange(house, data)
    assert answer is not None
    assert answer[0] == 200
    (mail,) = (each for each in far.complete if "lost@receiver.test" in each.recipients)
    assert mail.message_id == f"{answer[1]['id']}@example.test"
    drain(house)
    assert copies(far)["lost"] == 1


def test_who_hung_up_asks_again_without_a_key(house: House, far: FarEnd) -> None:
    accepted = house.get("/status").json["accepted"]
    names = [f"bare{n}" for n in range(_TIMES)]
    for name in names:
        data = request(house, email(name))
        _leave(house, data, "closed")
        answer = exchange(house, data)
        assert answer is not None
        assert answer[0] == 200
    drain(house)
    came = copies(far)
    assert {came[name] for name in names} <= {1, 2}
    ids = {mail.message_id for mail in far.complete if mail.recipients[0].startswith("bare")}
    assert len(ids) == sum(came[name] for name in names)  # each is a message, none came twice
    assert house.get("/status").json["accepted"] - accepted == len(ids)
