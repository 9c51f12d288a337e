"""F54: a relay reads the whole message, stores it, and hangs up without an answer. Nobody can know
whether it was delivered: the attempt is in doubt and the message's policy decides. A resend carries
the same Message-ID and body, and there are never more copies than doubts allow.

Invariants: I2, I4, I5, I6, I12.
"""

from collections.abc import Iterator

import pytest

from tests.support.far_end import FarEnd, Received
from tests.support.house import House
from tests.support.smtp_sink import SmtpSink
from tests.support.stage import (
    FIRST_RETRY_S,
    attempts_of,
    check_gap,
    check_record,
    come_due,
    disable,
    over,
    relays,
    serving,
    types,
    wait_attempts,
)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with serving(tmp_path_factory.mktemp("house")) as house:
        yield house


def _body(message: Received) -> bytes:
    return message.data.partition(b"\r\n\r\n")[2]


def test_a_resend_carries_another_id_or_goes_out_unseen(house: House) -> None:
    """Twice into the hole, then to a sound relay: three copies, two doubts on record."""
    with (
        SmtpSink("-q", ".") as hole,
        FarEnd() as sound,
        relays(house, hole=hole.url, sound=sound.url) as ids,
    ):
        disable(house, ids["sound"])
        id_ = house.send(to=["a@receiver.test"], bcc=["b@receiver.test"], in_doubt="resend")
        for times in (1, 2):
            for recipient in house.wait_status(id_, "deferred"):
                assert len(recipient["attempts"]) == times
                assert recipient["attempts"][-1]["outcome"] == {
                    "type": "in_doubt", "reason": "after the final dot: they hung up",
                }  # fmt: skip
                check_gap(recipient, FIRST_RETRY_S, times=times)
            assert len(hole.messages()) == times
            check_record(house, id_)
            if times == 1:
                come_due(house, id_)
                wait_attempts(house, id_, 2)

        disable(house, ids["hole"])
        answer = house.call("PATCH", f"/relays/{ids['sound']}", {"state": "enabled"})
        assert answer.status == 200, answer
        come_due(house, id_)
        for recipient in house.wait_status(id_, "delivered"):
            outcomes = [a["outcome"]["type"] for a in recipient["attempts"]]
            assert outcomes == ["in_doubt", "in_doubt", "delivered"]
        copies = [*hole.messages(), *sound.complete]
        assert len(copies) == 3
        assert all(set(m.recipients) == {"a@receiver.test", "b@receiver.test"} for m in copies)
        assert len({m.message_id for m in copies}) == 1
        assert {_body(m) for m in copies} == {b"Hello.\r\n"}
        assert sorted(types(house, id_)) == ["accepted", *["delivered"] * 2, *["in_doubt"] * 4]
        check_record(house, id_)


@pytest.mark.parametrize(("policy", "ending"), [("hold", "held"), ("fail", "failed")])
def test_mail_in_doubt_is_sent_again_against_its_policy(
    house: House, policy: str, ending: str
) -> None:
    """A sound relay stands by and gets nothing; later mail goes there."""
    with (
        SmtpSink("-q", ".") as hole,
        FarEnd() as sound,
        relays(house, hole=hole.url, sound=sound.url),
    ):
        id_ = house.send(in_doubt=policy)
        (recipient,) = house.wait_status(id_, ending)
        assert recipient["next_attempt_at"] is None
        (attempt,) = recipient["attempts"]
        assert attempt["outcome"]["type"] == "in_doubt"
        assert attempt["relay"] == "hole"
        event = house.events(id_)[-1]
        assert (event["type"], event["data"]["policy"]) == ("in_doubt", policy)

        later = house.send(to="later@receiver.test")
        house.wait_status(later, "delivered")
        assert [m.recipients for m in sound.complete] == [["later@receiver.test"]]
        assert len(hole.messages()) == 1
        assert len(attempts_of(house, id_)) == 1
        check_record(house, id_)
        if policy == "hold":
            over(house, id_)
            assert types(house, id_) == ["accepted", "in_doubt", "cancelled"]
            check_record(house, id_)
