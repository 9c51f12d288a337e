"""F57: a relay refuses for reasons between it and us: a login, relaying, a quota. No recipient did
anything, so none bounces: another relay carries the mail, or it is deferred until this one relents.

Invariants: I2, I5, I12, I21.
"""

from collections.abc import Iterator, Mapping

import pytest

from tests.support.far_end import FarEnd
from tests.support.hosting import hosted, url_of
from tests.support.house import House
from tests.support.postfix import Postfix
from tests.support.stage import (
    RELENTS,
    attempts_of,
    check_record,
    come_due,
    over,
    put_off,
    relays,
    serving,
    types,
)
from tests.support.tiny_smtp import ScriptedServer

REFUSALS = {
    "login": ("login", {"AUTH": b"535 5.7.8 Error: authentication failed\r\n"}),
    "relaying": ("rcpt", {"RCPT": b"550 5.7.1 Relaying denied, authentication required\r\n"}),
    "sender": ("mail", {"MAIL": b"553 5.7.1 Sender address rejected: not owned by user me\r\n"}),
    "quota": ("rcpt", {"RCPT": b"550 5.4.5 Daily user sending quota exceeded.\r\n"}),
    "account": ("dot", {"DOT": b"554 5.7.1 Your account is suspended\r\n"}),
}  # fmt: skip
"""What a relay says, and in which phase."""

SOUND = {
    "AUTH": b"235 2.7.0 welcome\r\n",
    "MAIL": b"250 2.1.0 ok\r\n",
    "RCPT": b"250 2.1.5 ok\r\n",
    "DOT": b"250 2.0.0 taken\r\n",
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with serving(tmp_path_factory.mktemp("house"), RELENTS) as house:
        yield house


def _refusing(script: Mapping[str, bytes], *, times: int) -> ScriptedServer:
    """Says so that many times, then relents."""
    return ScriptedServer(
        SOUND | {verb: [refusal] * times + [SOUND[verb]] for verb, refusal in script.items()},
        extensions=("PIPELINING", "AUTH PLAIN LOGIN", "ENHANCEDSTATUSCODES"),
    )


@pytest.mark.parametrize("why", sorted(REFUSALS.keys() - {"account"}))
def test_a_relays_refusal_bounces_mail_that_another_relay_would_carry(
    house: House, why: str
) -> None:
    _, script = REFUSALS[why]
    refusing = _refusing(script, times=100)
    with (
        hosted(refusing),
        FarEnd() as good,
        relays(house, refusing=url_of(refusing, "me:secret"), good=good.url),
    ):
        id_ = house.send(to=["a@receiver.test", "b@receiver.test"])
        for recipient in house.wait_status(id_, "delivered"):
            (attempt,) = recipient["attempts"]
            assert attempt["relay"] == "good"
        assert not any(refusing.mail)
        assert sorted(r for m in good.taken for r in m.recipients) == [
            "a@receiver.test", "b@receiver.test",
        ]  # fmt: skip
        assert types(house, id_) == ["accepted", "delivered", "delivered"]
        check_record(house, id_)


@pytest.mark.parametrize("why", sorted(REFUSALS))
def test_the_only_relays_refusal_bounces_mail(house: House, why: str) -> None:
    """Deferred, with its words on record; delivered once it relents."""
    phase, script = REFUSALS[why]
    refusing = _refusing(script, times=1)
    with hosted(refusing), relays(house, only=url_of(refusing, "me:secret")):
        id_ = house.send()
        outcome = put_off(house, id_, phase=phase)
        (said,) = script.values()
        code, enhanced, text = said.decode().rstrip().split(" ", 2)
        assert outcome["reply"] == {"code": int(code), "enhanced": enhanced, "text": text}
        come_due(house, id_)
        house.wait_status(id_, "delivered")
        heard = [mail for mail in refusing.mail if mail]  # without a lone dot
        assert len(heard) == (2 if phase == "dot" else 1)
        assert types(house, id_) == ["accepted", "deferred", "delivered"]
        check_record(house, id_)


def test_postfix_that_will_not_relay_for_us_bounces_mail(house: House) -> None:
    """A real Postfix that knows neither us nor the destination."""
    closed = "virtual_mailbox_domains =\nsmtpd_relay_restrictions = reject_unauth_destination"
    with Postfix(extra=closed) as stranger, relays(house, stranger=stranger.url):
        id_ = house.send()
        outcome = put_off(house, id_, phase="rcpt")
        assert "Relay access denied" in outcome["reply"]["text"]
        with FarEnd() as good, relays(house, good=good.url):
            come_due(house, id_)
            house.wait_status(id_, "delivered")
            assert attempts_of(house, id_)[-1]["relay"] == "good"
            check_record(house, id_)


@pytest.mark.parametrize("code", ["502 5.5.1 ", ""])
def test_a_relay_that_repeats_our_login_puts_it_on_record(house: House, code: str) -> None:
    """Some servers quote the command that they refuse, in an answer or in what should be one: the
    password is in it."""
    password, sent = "canary-of-a-password", "AG1lAGNhbmFyeS1vZi1hLXBhc3N3b3Jk"
    answer = f"{code}What is AUTH PLAIN {sent} ({password})?\r\n"
    refusing = ScriptedServer({"AUTH": answer.encode()}, extensions=("AUTH PLAIN",))
    with hosted(refusing), relays(house, only=url_of(refusing, f"me:{password}")):
        id_ = house.send()
        outcome = put_off(house, id_, phase="login")
        assert refusing.log[-1] == f"AUTH PLAIN {sent}"
        shown = outcome["reply"]["text"] if code else outcome["reason"]
        assert "What is AUTH PLAIN [hidden]" in shown
        told = (house.recipients(id_), house.events(id_), house.log.read_text())
        assert not any(secret in str(t) for t in told for secret in (password, sent))
        over(house, id_)
