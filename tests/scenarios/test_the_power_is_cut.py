"""F2: The host's power is cut: while clients post and mail is under way, during the very first
start, during the recovery from the cut before. What was acknowledged is there with all its
recipients and is delivered, a retry with its key finds it, and a second copy exists only where the
record says that an attempt was in doubt. A key that was printed works; a first start that was cut
short begins anew.

Invariants: I1, I4, I7, I8.
"""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.clients import copies, drain, email, exchange, request
from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.power import Host
from tests.support.waiting import wait_until

_MOST = 2_000
_RECIPIENTS = 3
_PRINTED = re.compile(rb"ep_[0-9a-z]{12}_[A-Za-z0-9_-]{43}")


@dataclass
class Client:
    """Posts under keys of its own until its connection breaks; `answered` has the ids."""

    name: str
    posted: dict[str, bytes] = field(default_factory=dict)
    answered: dict[str, str] = field(default_factory=dict)

    def post(self, house: House) -> None:
        for n in range(_MOST):
            key = f"{self.name}.{n}"
            self.posted[key] = request(house, email(*self.recipients(key)), key=key)
            answer = exchange(house, self.posted[key])
            if answer is None:
                return
            if answer[0] == 200:
                self.answered[key] = str(answer[1]["id"])

    def recipients(self, key: str) -> tuple[str, ...]:
        return tuple(f"{key}.{r}" for r in range(_RECIPIENTS))

    def ask_again(self, house: House) -> None:
        """Each key leads to what was answered before, or to an answer now."""
        for key, data in self.posted.items():
            answer = exchange(house, data)
            assert answer is not None, key
            assert answer[0] == 200, answer
            assert self.answered.setdefault(key, str(answer[1]["id"])) == answer[1]["id"]


def _in_doubt(house: House, id_: str) -> int:
    """Attempts at recipients that may have left a copy nobody knows of."""
    return sum(event["type"] == "in_doubt" for event in house.events(id_))


def _cut_under_load(host: Host, house: House, far: FarEnd, name: str) -> list[Client]:
    """With mail at the far end's gate; returns who has posted."""
    clients = [Client(f"{name}{n}") for n in range(4)]
    threads = [threading.Thread(target=each.post, args=(house,), daemon=True) for each in clients]
    for thread in threads:
        thread.start()
    wait_until(
        lambda: sum(len(each.answered) for each in clients) >= 30, seconds=20, what="30 answers"
    )
    far.wait_reached("dot")
    host.cut(house)
    for thread in threads:
        thread.join(40)
        assert not thread.is_alive()
    return clients


def _check(house: House, far: FarEnd, clients: list[Client]) -> None:
    states = drain(house)
    ids = {key: id_ for each in clients for key, id_ in each.answered.items()}
    assert states["delivered"] == len(ids) * _RECIPIENTS
    came = copies(far)
    for each in clients:
        for key in each.posted:
            counts = [came[to] for to in each.recipients(key)]
            assert min(counts) >= 1, (key, counts)
            if (more := sum(counts) - _RECIPIENTS) > 0:
                assert more <= _in_doubt(house, ids[key]), (key, counts)
    assert set(came) == {
        to for each in clients for key in each.posted for to in each.recipients(key)
    }
    assert house.findings() == []


def test_while_clients_post_and_mail_is_under_way(tmp_path: Path) -> None:
    with (
        FarEnd(closed=("dot",)) as far,
        Host(tmp_path) as host,
        host.house(processes=1) as house,
    ):
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        clients = _cut_under_load(host, house, far, "a")
        far.open("dot")
        house.start()
        for each in clients:
            each.ask_again(house)
        _check(house, far, clients)


@pytest.mark.long
def test_again_and_again_and_during_the_recovery(tmp_path: Path) -> None:
    everyone: list[Client] = []
    with (
        FarEnd() as far,
        Host(tmp_path) as host,
        host.house(processes=1) as house,
    ):
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        for name in ("a", "b", "c"):
            far.close("dot")
            everyone += _cut_under_load(host, house, far, name)
            recovered = house.log.read_bytes().count(b"from WAL file")
            house.start(wait=False)
            wait_until(
                lambda: house.log.read_bytes().count(b"from WAL file") > recovered,  # noqa: B023
                seconds=20,
                what=house.tail,
            )
            host.cut(house)
            far.open("dot")
            house.start()
        for each in everyone:
            each.ask_again(house)
        _check(house, far, everyone)


@pytest.mark.long
def test_right_after_each_of_five_answers(tmp_path: Path) -> None:
    with (
        FarEnd() as far,
        Host(tmp_path) as host,
        host.house(processes=1) as house,
    ):
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        ids = []
        for n in range(5):
            ids.append(house.send(to=[f"u{n}.{r}@receiver.test" for r in range(_RECIPIENTS)]))
            host.cut(house)
            house.start()
        for id_ in ids:
            assert len(house.wait_status(id_, "delivered")) == _RECIPIENTS
        came = copies(far)
        for n, id_ in enumerate(ids):
            extra = sum(came[f"u{n}.{r}"] for r in range(_RECIPIENTS)) - _RECIPIENTS
            assert 0 <= extra <= _in_doubt(house, id_), house.events(id_)


def _there(name: str) -> Callable[[Path], bool]:
    return lambda data: (data / name).exists()


def _written(name: str) -> Callable[[Path], bool]:
    return lambda data: (data / name).exists() and (data / name).stat().st_size > 0


_MOMENTS = {
    "lock": _there("lock"),
    "file": _there("everpost.db"),
    "schema": _written("everpost.db-wal"),
    "key": _there("master.key"),
    "roles": _there("run/children.json"),
}


@pytest.mark.parametrize("moment", [pytest.param(m, marks=pytest.mark.long) for m in _MOMENTS])
def test_during_the_first_start(tmp_path: Path, moment: str) -> None:
    """Nobody was told anything: the next start begins anew or goes on, and says a key that works
    if none was said before."""
    with Host(tmp_path) as host:
        house = host.house(processes=1, key=None)
        house.start(wait=False)
        try:
            wait_until(
                lambda: _MOMENTS[moment](host.data),
                seconds=20,
                what=lambda: f"{moment}{house.tail()}",
            )
            host.cut(house)
            house.start()
            printed = _PRINTED.search(house.said)
            if moment != "roles":  # by then the key may be there, and was lost with its reader
                assert printed is not None, house.said
                house.key = printed[0].decode()
                house.wait_status(house.send(to="a@receiver.test"), "delivered")
            assert house.findings() == []
        finally:
            house.stop()


@pytest.mark.long
def test_right_after_the_first_start_said_its_key(tmp_path: Path) -> None:
    """The key that was printed and the master key are on the disk by then: without the one nobody
    can use the server, without the other nobody can read the mail."""
    with Host(tmp_path) as host, host.house(processes=1, key=None) as house:
        printed = _PRINTED.search(house.said)
        assert printed is not None, house.said
        house.key = printed[0].decode()
        host.cut(house)
        house.start()
        assert not _PRINTED.search(house.said)
        id_ = house.send(subject="sealed")
        house.wait_status(id_, "delivered")  # in the sandbox
        host.cut(house)
        house.start()
        assert house.get(f"/emails/{id_}").json["subject"] == "sealed"
