"""F53: a relay takes the message and answers its final dot very late. Everpost waits up to the
dot's deadline (RFC 5321 §4.5.3.2.6: ten minutes, scaled here); beyond it the attempt is in doubt,
not failed, no other relay is asked at once, and the message's policy decides.

Invariants: I4, I5, I6, I12.
"""

from collections.abc import Iterator

import pytest

from everpost.config import Settings
from tests.support.far_end import FarEnd
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
)

DOT_S = 4.0


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    settings = {"EVERPOST_DELIVERY_DOT_S": str(DOT_S)}
    with serving(tmp_path_factory.mktemp("house"), settings) as house:
        yield house


def test_the_deadline_of_the_dot_is_shorter_than_ten_minutes_unasked() -> None:
    assert Settings().delivery.dot_s == 600


def test_a_late_answer_is_not_waited_for(house: House) -> None:
    with (
        SmtpSink("-W", ".:1") as slow,
        FarEnd() as other,
        relays(house, slow=slow.url, other=other.url),
    ):
        id_ = house.send()
        house.wait_status(id_, "delivered")
        (attempt,) = attempts_of(house, id_)
        assert attempt["relay"] == "slow"
        assert attempt["outcome"]["reply"]["code"] == 250
        assert 900 <= attempt["timings"]["dot"] < DOT_S * 1000
        assert (len(slow.messages()), other.complete) == (1, [])
        assert types(house, id_) == ["accepted", "delivered"]
        check_record(house, id_)


def test_an_answer_beyond_the_deadline_fails_or_doubles_the_mail(house: House) -> None:
    """Three messages, three policies, one relay that answers no dot."""
    with (
        SmtpSink("-W", ".:300") as slow,
        FarEnd() as other,
        relays(house, slow=slow.url, other=other.url) as ids,
    ):
        sent = {policy: house.send(in_doubt=policy) for policy in ("resend", "hold", "fail")}
        (resent,) = house.wait_status(sent["resend"], "deferred")
        (held,) = house.wait_status(sent["hold"], "held")
        (failed,) = house.wait_status(sent["fail"], "failed")
        assert (held["reason"], failed["reason"]) == ("in_doubt", None)
        check_gap(resent, FIRST_RETRY_S)
        for policy, id_ in sent.items():
            (attempt,) = attempts_of(house, id_)
            assert attempt["outcome"] == {
                "type": "in_doubt", "reason": f"after the final dot: no answer in {DOT_S:g} s",
            }  # fmt: skip
            assert attempt["timings"]["dot"] >= DOT_S * 990
            assert types(house, id_) == ["accepted", "in_doubt"]
            assert house.events(id_)[-1]["data"]["policy"] == policy
            check_record(house, id_)
        assert (len(slow.messages()), other.complete) == (3, [])

        disable(house, ids["slow"])
        come_due(house, sent["resend"])
        house.wait_status(sent["resend"], "delivered")
        (again,) = other.complete
        assert again.message_id in {m.message_id for m in slow.messages()}
        assert types(house, sent["resend"]) == ["accepted", "in_doubt", "delivered"]
        check_record(house, sent["resend"])
        over(house, sent["hold"])
