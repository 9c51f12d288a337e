"""F59: relays that are real servers (Postfix) die one after the other: the next of the tier carries
the mail, then the spare tier; who comes back gets mail again. Nothing is lost, nothing twice.

Invariants: I1, I4, I18, I19.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import pytest

from tests.support.house import House
from tests.support.postfix import Postfix
from tests.support.waiting import wait_until

_SUBJECT = re.compile(rb"^Subject: (number \d+)", re.MULTILINE)


def _subjects(server: Postfix) -> list[str]:
    return [m[1].decode() for raw in server.messages() if (m := _SUBJECT.search(raw))]


class _Mail:
    """Messages with numbers, each sent once."""

    def __init__(self, house: House, servers: Collection[Postfix]) -> None:
        self._house = house
        self._servers = servers
        self.sent: list[str] = []

    def send(self, count: int) -> None:
        """Send so many, and wait until all are in mailboxes: a server says yes before that."""
        ids: list[str] = []
        for _ in range(count):
            subject = f"number {len(self.sent)}"
            self.sent.append(subject)
            ids.append(self._house.send(subject=subject, to=[f"{len(ids)}@receiver.test"]))
        for id_ in ids:
            self._house.wait_status(id_, "delivered")
        wait_until(
            lambda: sum(len(_subjects(s)) for s in self._servers) >= len(self.sent),
            seconds=20,
            what="all mail in the mailboxes",
        )


@pytest.mark.long
def test_one_server_after_the_other_dies(tmp_path: Path) -> None:
    settings = {"EVERPOST_DELIVERY_EJECT_S": "0.5"}
    with contextlib.ExitStack() as stack:
        first, second, spare = (stack.enter_context(Postfix()) for _ in range(3))
        house = stack.enter_context(House(tmp_path / "d", settings=settings))
        house.domain(signing="unsigned")
        servers = {"first": first, "second": second, "spare": spare}
        for name, server in servers.items():
            house.relay(server.url, name=name, tls="none", connections=4)
        pool = {"name": "default", "tiers": [["first", "second"], ["spare"]]}
        assert house.post("/pools", pool).status in {200, 201}
        mail = _Mail(house, servers.values())

        mail.send(12)
        assert _subjects(first)
        assert _subjects(second)
        assert not _subjects(spare), "the spare is for sickness"

        first.down()
        before = len(_subjects(second))
        mail.send(8)
        assert len(_subjects(second)) - before == 8, "half of the weight is enough"

        second.down()
        mail.send(8)
        assert len(_subjects(spare)) == 8

        first.up()
        had = len(_subjects(first))

        def returned() -> bool:
            mail.send(1)
            return len(_subjects(first)) > had

        wait_until(returned, seconds=30, what=lambda: f"mail to return\n{house.tail()}")
        arrived = Counter(subject for server in servers.values() for subject in _subjects(server))
        assert arrived == Counter(mail.sent)
