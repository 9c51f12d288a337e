"""F52: a relay resets the connection in the middle of the message. The next relay carries it in the
same attempt, whole and once; without another one it waits.

Invariants: I4, I5, I12, I18.
"""

from collections.abc import Iterator

import pytest

from tests.support.far_end import FarEnd
from tests.support.hosting import hosted, url_of
from tests.support.house import House
from tests.support.smtp_sink import SmtpSink
from tests.support.stage import attempts_of, check_record, come_due, put_off, relays, serving, types
from tests.support.tiny_smtp import Reset, ScriptedServer
from tests.support.waiting import wait_until

TEXT = ("x" * 78 + "\n") * 150_000
"""Larger than every buffer on the way: its dot has not left while the relay reads nothing."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with serving(tmp_path_factory.mktemp("house")) as house:
        yield house


def _arrived_whole(good: FarEnd) -> None:
    (message,) = good.complete
    body = message.data.partition(b"\r\n\r\n")[2].decode()
    assert body.replace("\r\n", "\n") == TEXT


def test_a_reset_in_mid_message_loses_or_doubles_it(house: House) -> None:
    rude = ScriptedServer({"BODY": Reset()})
    with (
        hosted(rude),
        FarEnd() as good,
        relays(house, rude=url_of(rude), good=good.url),
    ):
        id_ = house.send(text=TEXT)
        house.wait_status(id_, "delivered")
        (attempt,) = attempts_of(house, id_)
        assert attempt["relay"] == "good"
        assert (rude.connections, rude.mail) == (1, [])
        _arrived_whole(good)
        assert types(house, id_) == ["accepted", "delivered"]
        assert '"relay.fault"' in house.tail()
        check_record(house, id_)


def test_a_relay_killed_in_mid_message_loses_or_doubles_it(house: House) -> None:
    """A real process: kill -9 while megabytes lie unread, which the kernel answers with a reset."""
    with (
        SmtpSink("-H", "60") as dying,  # reads nothing after DATA
        FarEnd() as good,
        relays(house, dying=dying.url, good=good.url),
    ):
        id_ = house.send(text=TEXT)
        wait_until(lambda: dying.unread() > 10_000, seconds=20, what="the message to come")
        dying.kill()
        house.wait_status(id_, "delivered")
        (attempt,) = attempts_of(house, id_)
        assert attempt["relay"] == "good"
        _arrived_whole(good)
        assert types(house, id_) == ["accepted", "delivered"]
        check_record(house, id_)


def test_a_reset_by_the_only_relay_is_taken_for_doubt(house: House) -> None:
    """No dot had left, so this is definite: the mail is deferred, whatever its policy for doubt,
    and goes out once."""
    rude = ScriptedServer({"BODY": [Reset(), b""]})
    with hosted(rude), relays(house, rude=url_of(rude)):
        id_ = house.send(text=TEXT, in_doubt="fail")
        outcome = put_off(house, id_, phase="body")
        assert outcome["reply"] is None
        come_due(house, id_)
        house.wait_status(id_, "delivered")
        assert len(rude.mail) == 1
        first, second = attempts_of(house, id_)
        assert [a["outcome"]["type"] for a in (first, second)] == ["deferred", "delivered"]
        assert types(house, id_) == ["accepted", "deferred", "delivered"]
        check_record(house, id_)
