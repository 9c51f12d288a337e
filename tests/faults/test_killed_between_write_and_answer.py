"""F1: The API's process is killed at its first flush of the store, its second, and so on, while
several clients post. What was answered is there and is delivered once; a retry with its key finds
the first message; what was not answered is in doubt for its client, and never half there: all
recipients of a message or none, all messages of a batch or none.

Invariants: I1, I7, I8.
"""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import copies, drain, email, exchange, request
from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.tracing import injecting
from tests.support.waiting import wait_until

_MOST = 30
"""Requests of a client until its server is killed, at most."""
_TRIES = 400


@dataclass
class Client:
    """Posts under names of its own until its connection breaks. `posted` has every request by its
    name, `answered` the JSON of those with 200."""

    name: str
    path: str = "/emails"
    keyed: bool = False
    messages: int = 1
    recipients: int = 1
    posted: dict[str, bytes] = field(default_factory=dict)
    answered: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def post(self, house: House) -> None:
        for n in range(_MOST):
            name = f"{self.name}.{n}"
            self.posted[name] = self._request(house, name)
            answer = exchange(house, self.posted[name])
            if answer is None:
                return
            assert answer[0] == 200, answer
            self.answered[name] = answer[1]

    def _request(self, house: House, name: str) -> bytes:
        body = [email(*each) for each in self.recipients_of(name)]
        return request(
            house,
            body if self.path.endswith("batch") else body[0],
            path=self.path,
            key=name if self.keyed else None,
        )

    def recipients_of(self, name: str) -> list[tuple[str, ...]]:
        """Of each of the request's messages."""
        return [
            tuple(f"{name}.{m}.{r}" for r in range(self.recipients)) for m in range(self.messages)
        ]

    def ask_again(self, house: House) -> None:
        """Its keys must lead to what was answered before, or to an answer now."""
        for name, data in self.posted.items():
            for _ in range(_TRIES):
                answer = exchange(house, data)
                if answer is not None:
                    break
                threading.Event().wait(0.02)  # the process is being started again
            assert answer is not None, name
            assert answer[0] == 200, answer
            assert self.answered.setdefault(name, answer[1]) == answer[1]

    def check(self, came: Counter[str]) -> None:
        for name in self.posted:
            counts = {came[to] for message in self.recipients_of(name) for to in message}
            if name in self.answered:
                assert counts == {1}, (name, counts)
            else:
                assert counts in ({0}, {1}), (name, counts)


@pytest.mark.parametrize("flushes", [(1, 2), pytest.param((3, 4, 5), marks=pytest.mark.long)])
def test_a_kill_at_any_flush_loses_or_doubles_or_halves_mail(
    tmp_path: Path, flushes: tuple[int, ...]
) -> None:
    settings = {"EVERPOST_DISPATCH_POLL_S": "0.1"}
    everyone: list[Client] = []
    with FarEnd() as far, House(tmp_path / "d", settings=settings, processes=1) as house:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        for flush in flushes:
            clients = _clients(flush)
            everyone += clients
            _post_until_killed(house, clients, flush)
            for client in clients:
                if client.keyed:
                    client.ask_again(house)
        states = drain(house)
        came = copies(far)
        for client in everyone:
            client.check(came)
        assert set(states) <= {"delivered"} | {s for s, count in states.items() if not count}
        assert states["delivered"] == house.get("/status").json["accepted"] == sum(came.values())
    broken = [name for each in everyone for name in each.posted if name not in each.answered]
    assert broken  # somebody met the kill


def _clients(flush: int) -> list[Client]:
    return [
        Client(f"key{flush}", keyed=True),
        Client(f"keys{flush}", keyed=True, recipients=3),
        Client(f"bare{flush}", recipients=3),
        Client(f"batch{flush}", path="/emails/batch", messages=4),
        Client(f"kept{flush}", path="/emails/batch", messages=4, keyed=True),
    ]


def _post_until_killed(house: House, clients: list[Client], flush: int) -> None:
    assert house.get("/health/live").status == 200  # a new process has begun to serve
    (pid,) = house.children("api")
    with injecting(pid, f"fdatasync:signal=KILL:when={flush}"):
        threads = [threading.Thread(target=client.post, args=(house,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        wait_until(lambda: pid not in house.children("api"), seconds=10, what="the kill")
