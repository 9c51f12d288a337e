"""Straight to servers that others wrote: Postfix, and its sink with its misfortunes. What they take
is delivered once, what they refuse for now waits, what they refuse for good bounces.

Invariants: I4, I12.
"""

from collections.abc import Iterator

import pytest

from tests.support.house import House
from tests.support.mail_hosts import delivering, mx
from tests.support.postfix import Postfix
from tests.support.smtp_sink import SmtpSink
from tests.support.stage import attempts_of, check_record, over, relays

ZONE = """
@ MX 10 mail
mail A 127.0.0.1
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with delivering(tmp_path_factory.mktemp("house"), {"there.test": ZONE}) as (house, _):
        yield house


def test_postfix_does_not_get_what_was_sent(house: House) -> None:
    with Postfix() as postfix, relays(house, mx=mx(postfix.port, tls="opportunistic")):
        id_ = house.send(to=["a@there.test", "b@there.test"], subject="straight to you")
        recipients = house.wait_status(id_, "delivered")
        assert {r["via"] for r in recipients} == {"mx"}
        assert {r["attempts"][0]["host"] for r in recipients} == {"mail.there.test"}
        arrived = postfix.wait(1)
        assert all(b"Subject: straight to you" in one for one in arrived)
        check_record(house, id_)


@pytest.mark.parametrize("options", [(), ("-8",), ("-e",), ("-p",)])
def test_plain_server_does_not_get_the_mail(house: House, options: tuple[str, ...]) -> None:
    with SmtpSink(*options) as sink, relays(house, mx=mx(sink.port)):
        ids = [house.send(to=f"u{n}@there.test") for n in range(5)]
        for id_ in ids:
            house.wait_status(id_, "delivered")
            check_record(house, id_)
        assert len(sink.messages()) == 5


@pytest.mark.parametrize(
    ("option", "command", "phase"),
    [
        ("-q", "CONNECT", "greet"), ("-q", "EHLO", "greet"), ("-q", "MAIL", "mail"),
        ("-q", "RCPT", "rcpt"), ("-q", "DATA", "data"), ("-Q", "MAIL", "mail"),
        ("-Q", "RCPT", "rcpt"), ("-r", "MAIL", "mail"), ("-r", "RCPT", "rcpt"),
        ("-r", "DATA", "data"), ("-r", ".", "dot"),
    ],
)  # fmt: skip
def test_passing_trouble_bounces_mail(house: House, option: str, command: str, phase: str) -> None:
    with SmtpSink(option, command) as sink, relays(house, mx=mx(sink.port)):
        id_ = house.send(to="you@there.test")
        house.wait_status(id_, "deferred")
        outcome = attempts_of(house, id_)[0]["outcome"]
        assert (outcome["speaker"], outcome["relay_fault"]) == ("destination", False)
        assert outcome["phase"] == phase
        check_record(house, id_)
        over(house, id_)


@pytest.mark.parametrize("command", ["RCPT", "DATA", "."])
def test_final_refusal_is_tried_for_days(house: House, command: str) -> None:
    with (
        SmtpSink("-f", command, "-B", "550 5.1.1 unknown user") as sink,
        relays(house, mx=mx(sink.port)),
    ):
        id_ = house.send(to="you@there.test")
        house.wait_status(id_, "bounced")
        assert attempts_of(house, id_)[0]["outcome"]["speaker"] == "destination"
        check_record(house, id_)
