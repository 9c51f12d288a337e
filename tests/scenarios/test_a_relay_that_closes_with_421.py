"""F55: a relay says 421, at once or in mid-session. Nothing was said of a recipient: the mail goes
through another relay, or it is deferred, backs off, and keeps the end of its life.

Invariants: I2, I5, I12, I18.
"""

from collections.abc import Iterator

import pytest

from tests.support.far_end import FarEnd
from tests.support.hosting import hosted, url_of
from tests.support.house import House
from tests.support.smtp_sink import SmtpSink
from tests.support.stage import (
    RELENTS,
    attempts_of,
    check_record,
    come_due,
    put_off,
    relays,
    serving,
    types,
    wait_attempts,
)
from tests.support.tiny_smtp import ScriptedServer


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with serving(tmp_path_factory.mktemp("house"), RELENTS) as house:
        yield house


@pytest.mark.parametrize("command", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA"])
def test_421_holds_mail_up_though_another_relay_is_there(house: House, command: str) -> None:
    with (
        SmtpSink("-Q", command) as closing,
        FarEnd() as good,
        relays(house, closing=closing.url, good=good.url),
    ):
        id_ = house.send()
        house.wait_status(id_, "delivered")
        (attempt,) = attempts_of(house, id_)
        assert attempt["relay"] == "good"
        assert len(good.taken) == 1
        assert types(house, id_) == ["accepted", "delivered"]
        check_record(house, id_)


def test_421_of_the_only_relay_bounces_mail_or_shortens_its_life(house: House) -> None:
    """Refused at the greeting, then in mid-session, then at the dot: it comes back after 10, 20
    and 40 seconds, each jittered by a quarter at most, and then is delivered."""
    closing = b"421 4.3.2 going down\r\n"
    relay = ScriptedServer(
        {"BANNER": [closing, b"220 far.test\r\n"], "RCPT": [closing, b"250 ok\r\n"],
         "DOT": [closing, b"250 ok\r\n"]}
    )  # fmt: skip
    with hosted(relay), relays(house, only=url_of(relay)):
        id_ = house.send()
        before = house.recipients(id_)[0]["expires_at"]
        for n, phase in enumerate(("greet", "rcpt", "dot"), start=1):
            wait_attempts(house, id_, n)
            outcome = put_off(house, id_, phase=phase)
            assert outcome["reply"] == {"code": 421, "enhanced": "4.3.2", "text": "going down"}
            come_due(house, id_)
        (recipient,) = house.wait_status(id_, "delivered")
        assert recipient["expires_at"] == before
        assert len(recipient["attempts"]) == 4
        assert types(house, id_) == ["accepted", *["deferred"] * 3, "delivered"]
        check_record(house, id_)


def test_421_to_the_dot_hides_the_answer_from_the_record(house: House) -> None:
    """The dot was answered, and not with 2xx: definite, so no doubt, and no second relay in the
    same attempt."""
    relay = ScriptedServer({"DOT": b"421 4.3.2 going down\r\n"})
    with hosted(relay), FarEnd() as good, relays(house, closing=url_of(relay), good=good.url):
        id_ = house.send(in_doubt="fail")
        put_off(house, id_, phase="dot")
        assert good.complete == []
        come_due(house, id_)
        house.wait_status(id_, "delivered")
        assert [a["relay"] for a in attempts_of(house, id_)] == ["closing", "good"]
        assert len(good.taken) == 1
        check_record(house, id_)
