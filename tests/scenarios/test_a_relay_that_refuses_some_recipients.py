"""F56: one transaction, three answers: 4xx to some recipients, 5xx to others, 250 to the rest. Each
recipient has an outcome of its own; only who was deferred is tried again; nobody learns of a Bcc.

Invariants: I2, I4, I5, I11, I12.
"""

import re
from collections.abc import Iterator

import pytest

from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.postfix import Postfix
from tests.support.stage import (
    FIRST_RETRY_S,
    check_gap,
    check_record,
    come_due,
    disable,
    relays,
    serving,
)

ANSWERS = {
    "later@receiver.test": "450 4.2.1 mailbox busy",
    "hidden@receiver.test": "451 4.2.2 mailbox full for now",
    "never@receiver.test": "550 5.1.1 no such user",
}
STATUS = {
    "good@receiver.test": "delivered",
    "later@receiver.test": "deferred",
    "hidden@receiver.test": "deferred",
    "never@receiver.test": "bounced",
    "secret@receiver.test": "delivered",
}
MAIL = {
    "to": ["good@receiver.test", "later@receiver.test", "never@receiver.test"],
    "bcc": ["secret@receiver.test", "hidden@receiver.test"],
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with serving(tmp_path_factory.mktemp("house")) as house:
        yield house


def _check_first_try(house: House, id_: str) -> None:
    """Each status, and beside it the whole answer that made it so."""
    found = house.wait_status(id_, *set(STATUS.values()))
    assert {r["address"]: r["status"] for r in found} == STATUS
    for recipient in found:
        (attempt,) = recipient["attempts"]
        reply = attempt["outcome"]["reply"]
        if (answer := ANSWERS.get(recipient["address"])) is None:
            assert reply["code"] == 250
            continue
        code, enhanced, text = answer.split(" ", 2)
        assert (reply["code"], reply["enhanced"]) == (int(code), enhanced)
        assert text in reply["text"]
        assert attempt["outcome"]["phase"] == "rcpt"
        assert attempt["outcome"]["speaker"] == "destination"
        if recipient["status"] == "deferred":
            check_gap(recipient, FIRST_RETRY_S)
        else:
            assert recipient["next_attempt_at"] is None
    assert house.get(f"/emails/{id_}").json["recipients"] == {
        "delivered": 2, "deferred": 2, "bounced": 1,
    }  # fmt: skip
    check_record(house, id_)


def _keeps_bcc(data: bytes) -> bool:
    return re.search(rb"(?im)^bcc:|secret@|hidden@", data) is None


def test_a_retry_goes_to_recipients_who_have_their_outcome(house: House) -> None:
    refuse = {address.partition("@")[0]: answer for address, answer in ANSWERS.items()}
    with (
        FarEnd(refuse=refuse) as before,
        FarEnd() as after,
        relays(house, before=before.url, after=after.url) as ids,
    ):
        id_ = house.send(**MAIL)
        _check_first_try(house, id_)
        (first,) = before.complete
        assert set(first.recipients) == {"good@receiver.test", "secret@receiver.test"}
        assert after.complete == []  # the answers were the destination's: no other relay is asked

        disable(house, ids["before"])
        come_due(house, id_)
        settled = {r["address"]: r for r in house.wait_status(id_, "delivered", "bounced")}
        assert settled["never@receiver.test"]["status"] == "bounced"
        assert {a: len(r["attempts"]) for a, r in settled.items()} == {
            a: 2 if status == "deferred" else 1 for a, status in STATUS.items()
        }
        again = after.complete
        told = sorted(r for message in again for r in message.recipients)
        assert told == ["hidden@receiver.test", "later@receiver.test"]
        assert {m.message_id for m in again} == {first.message_id}
        assert all(_keeps_bcc(m.data) for m in (first, *again))
        assert house.get(f"/emails/{id_}").json["last_event"] == "bounced"
        check_record(house, id_)


def test_postfix_refuses_some_and_all_share_its_answer(house: House) -> None:
    """The same by a real Postfix, which sends all its answers in one write."""
    table = " ".join(f"{{ {address} = {answer} }}" for address, answer in ANSWERS.items())
    restrictions = f"check_recipient_access inline:{{ {table} }}, permit_mynetworks, reject"
    with Postfix(restrictions=restrictions) as mx, relays(house, mx=mx.url):
        id_ = house.send(**MAIL)
        _check_first_try(house, id_)
        message_id = house.get(f"/emails/{id_}").json["message_id"].encode()
        for copy in mx.wait(2):  # Postfix writes one a recipient, its own headers on top
            assert message_id in copy
            assert _keeps_bcc(copy[copy.index(b"Date:") :])
