"""F61: a relay that worked begins to refuse every MAIL, and nothing probes it. Real outcomes tell:
three messages that another relay took are enough. A sender that every relay refuses tells nothing.

Invariants: I5, I12, I18.
"""

from collections.abc import Iterator

import pytest

from tests.support.hosting import hosted, url_of
from tests.support.house import House
from tests.support.journal import logged, wait_logged
from tests.support.stage import (
    attempts_of,
    check_record,
    come_due,
    over,
    relays,
    serving,
    wait_attempts,
)
from tests.support.tiny_smtp import ScriptedServer

GRAY = {"MAIL": b"451 4.3.0 Mail server temporarily rejected message\r\n"}
BAD_SENDER = {"MAIL": b"550 5.7.1 Sender address rejected: not verified\r\n"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with serving(tmp_path_factory.mktemp("house")) as house:
        yield house


def _mails(server: ScriptedServer) -> int:
    return sum(line.startswith("MAIL") for line in server.log)


def test_mail_goes_on_to_meet_a_relay_that_refuses_all_of_it(house: House) -> None:
    gray, good = ScriptedServer(), ScriptedServer()
    with (
        hosted(gray),
        hosted(good),
        relays(
            house,
            gray={"url": url_of(gray), "probe": False, "weight": 1},
            good={"url": url_of(good), "probe": False},
        ),
    ):
        for id_ in [house.send() for _ in range(10)]:
            house.wait_status(id_, "delivered")
        assert len(gray.mail) > 2
        worked = _mails(gray)
        gray.script = GRAY
        tried = 0
        for _ in range(40):
            id_ = house.send()
            house.wait_status(id_, "delivered")
            (attempt,) = attempts_of(house, id_)
            assert attempt["relay"] == "good" or not attempt["tried"]
            tried += len(attempt["tried"])
            check_record(house, id_)
        assert tried == _mails(gray) - worked == 3
        (opened,) = wait_logged(house, "relay.circuit", relay="gray", state="open")
        assert opened["why"].startswith("451 4.3.0")
        (fault,) = logged(house, "relay.fault", relay="gray")
        assert opened["at"] - fault["at"] < 2.0


def test_one_bad_sender_takes_every_relay_out(house: House) -> None:
    one, two = ScriptedServer(BAD_SENDER), ScriptedServer(BAD_SENDER)
    with (
        hosted(one),
        hosted(two),
        relays(
            house,
            one={"url": url_of(one), "probe": False, "weight": 1},
            two={"url": url_of(two), "probe": False},
        ),
    ):
        id_ = house.send()
        for attempts in range(1, 8):
            house.wait_status(id_, "deferred")
            assert len(attempts_of(house, id_)) == attempts
            assert attempts_of(house, id_)[-1]["outcome"]["speaker"] == "relay"
            come_due(house, id_)
            wait_attempts(house, id_, attempts + 1)
        assert not logged(house, "relay.circuit", relay="one")
        assert not logged(house, "relay.circuit", relay="two")
        over(house, id_)
        one.script = two.script = {}
        house.wait_status(house.send(), "delivered")
