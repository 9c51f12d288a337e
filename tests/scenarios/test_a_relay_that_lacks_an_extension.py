"""F70: a message is larger than a relay's SIZE, or a relay lacks 8BITMIME or SMTPUTF8. EHLO is read
before anything is sent: a relay that can is used, else the message is written so that it fits, else
who cannot be reached bounces with 5.3.4 or 5.6.7. What arrives is right to the byte and its DKIM
signatures verify.

Invariants: I2, I5, I10, I11.
"""

import email
import email.policy
from collections.abc import Iterator, Sequence

import pytest

from tests.support.dkim_verifiers import verify_dkimpy, verify_opendkim
from tests.support.hosting import hosted, url_of
from tests.support.house import House, dkim_records
from tests.support.postfix import Postfix
from tests.support.stage import attempts_of, check_record, relays, serving, types
from tests.support.tiny_smtp import EXTENSIONS, ScriptedServer

TEXT = ".leading dot\nGrüße aus 上海 🚀\n" + "é" * 400 + "\nfrom here\n"
LARGE = "0123456789" * 7 + "\n"


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, dict[str, str]]]:
    with serving(tmp_path_factory.mktemp("house")) as house:
        yield house, dkim_records(house.domain("signed.test"))


@pytest.fixture(scope="module")
def house(setting: tuple[House, dict[str, str]]) -> House:
    return setting[0]


@pytest.fixture(scope="module")
def records(setting: tuple[House, dict[str, str]]) -> dict[str, str]:
    """The DKIM records of the domain that signs."""
    return setting[1]


def _far(*hidden: str, size: int = 0) -> ScriptedServer:
    """A far end that hides extensions, and has a SIZE of its own if one is given."""
    shown = [e for e in EXTENSIONS if e.partition(" ")[0] not in hidden]
    if size:
        shown = [f"SIZE {size}" if e.startswith("SIZE") else e for e in shown]
    return ScriptedServer(extensions=shown)


def _send(house: House, **fields: object) -> str:
    return house.send(**{"from": "Sender <sender@signed.test>", "text": TEXT, **fields})


def _commands(far: ScriptedServer, verb: str) -> Sequence[str]:
    return [line for line in far.log if line.startswith(verb)]


def _check_bytes(house: House, id_: str, raw: bytes, records: dict[str, str]) -> None:
    """The content that was accepted, under good signatures by two verifiers."""
    verify_dkimpy(raw, records)
    verify_opendkim(raw, records)
    message = email.message_from_bytes(raw, policy=email.policy.default)
    text = message.get_content()
    assert text.replace("\r\n", "\n") == house.get(f"/emails/{id_}").json["text"]
    assert message["Message-ID"] == house.get(f"/emails/{id_}").json["message_id"]


def test_8bitmime_that_is_missing_lets_raw_bytes_out(house: House, records: dict[str, str]) -> None:
    """The same text, to a relay that takes eight bits and to one that does not."""
    for hidden, form in (((), "8bitmime"), (("8BITMIME", "SMTPUTF8"), "7bit")):
        far = _far(*hidden)
        with hosted(far), relays(house, only={"url": url_of(far), "eight_bit": True}):
            id_ = _send(house)
            house.wait_status(id_, "delivered")
            (raw,), (mail,) = far.mail, _commands(far, "MAIL")
            assert ("BODY=8BITMIME" in mail) == (form == "8bitmime")
            assert raw.isascii() == (form == "7bit")
            assert attempts_of(house, id_)[0]["form"] == form
            _check_bytes(house, id_, raw, records)
            check_record(house, id_)


def test_smtputf8_that_is_missing_bounces_what_another_relay_takes(
    house: House, records: dict[str, str]
) -> None:
    lacking, able = _far("SMTPUTF8"), _far()
    with (
        hosted(lacking),
        hosted(able),
        relays(house, lacking=url_of(lacking), able=url_of(able)),
    ):
        id_ = _send(house, to="jürgen@receiver.test")
        house.wait_status(id_, "delivered")
        assert attempts_of(house, id_)[0]["relay"] == "able"
        assert _commands(lacking, "MAIL") == []
        (mail,), (rcpt,) = _commands(able, "MAIL"), _commands(able, "RCPT")
        assert "SMTPUTF8" in mail
        assert "<jürgen@receiver.test>" in rcpt
        _check_bytes(house, id_, able.mail[0], records)
        assert types(house, id_) == ["accepted", "delivered"]
        check_record(house, id_)


def test_smtputf8_that_nobody_offers_bounces_everybody_or_nobody(house: House) -> None:
    """Who needs it bounces, unasked; who does not gets the mail (RFC 6531 §3.2)."""
    far = _far("SMTPUTF8")
    with hosted(far), relays(house, only=url_of(far)):
        id_ = _send(house, to="ascii@receiver.test", bcc="jürgen@receiver.test")
        found = {r["address"]: r for r in house.wait_status(id_, "delivered", "bounced")}
        bounced = found["jürgen@receiver.test"]["attempts"][0]["outcome"]
        assert (bounced["type"], bounced["speaker"]) == ("bounced", "self")
        assert bounced["reply"]["enhanced"] == "5.6.7"
        assert found["ascii@receiver.test"]["status"] == "delivered"
        assert [r.split("<")[1] for r in _commands(far, "RCPT")] == ["ascii@receiver.test>"]
        message = email.message_from_bytes(far.mail[0], policy=email.policy.default)
        assert (message["To"], message["Bcc"]) == ("ascii@receiver.test", None)
        check_record(house, id_)


def test_a_message_over_one_relays_size_bounces(house: House, records: dict[str, str]) -> None:
    """A real Postfix announces 20,000 octets; the other relay takes it."""
    wide = _far()
    with (
        Postfix(extra="message_size_limit = 20000") as narrow,
        hosted(wide),
        relays(house, narrow=narrow.url, wide=url_of(wide)),
    ):
        id_ = _send(house, text=LARGE * 1_000)
        house.wait_status(id_, "delivered")
        assert attempts_of(house, id_)[0]["relay"] == "wide"
        assert narrow.messages() == []
        (mail,), (raw,) = _commands(wide, "MAIL"), wide.mail
        assert f"SIZE={len(raw)}" in mail
        _check_bytes(house, id_, raw, records)
        check_record(house, id_)


@pytest.mark.parametrize("announced", [True, False])
def test_a_message_over_every_relays_size_is_tried_for_days(house: House, announced: bool) -> None:
    """Announced in EHLO, not a byte of it travels; else the relay's word at MAIL decides."""
    limit = b"552 5.3.4 Message size exceeds fixed limit\r\n"
    if announced:
        far = _far(size=20_000)
    else:
        far = ScriptedServer({"MAIL": limit}, extensions=("PIPELINING", "SIZE", "8BITMIME"))
    with hosted(far), relays(house, only=url_of(far)):
        id_ = _send(house, text=LARGE * 1_000)
        (recipient,) = house.wait_status(id_, "bounced")
        (attempt,) = recipient["attempts"]
        outcome = attempt["outcome"]
        assert outcome["reply"]["enhanced"] == "5.3.4"
        assert outcome["speaker"] == ("self" if announced else "relay")
        assert len(_commands(far, "MAIL")) == (0 if announced else 1)
        assert not any(far.mail)
        small = _send(house, to="small@receiver.test", text="small\n")
        house.wait_status(small, "delivered" if announced else "bounced")
        assert types(house, id_) == ["accepted", "bounced"]
        check_record(house, id_)
