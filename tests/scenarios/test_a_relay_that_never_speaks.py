"""F51: a relay accepts the connection and never speaks. Mail leaves it after one time-out, for
another relay; nobody else waits for it, and it is left alone for a while.

Invariants: I5, I12, I17, I18.
"""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

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
)
from tests.support.tiny_smtp import ScriptedServer, Silence

GREET_S = 4.0


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    settings = {"EVERPOST_DELIVERY_GREET_S": str(GREET_S)}
    with serving(tmp_path_factory.mktemp("house"), settings) as house:
        yield house


@pytest.fixture
def relenting(tmp_path: Path) -> Iterator[House]:
    with serving(tmp_path, RELENTS | {"EVERPOST_DELIVERY_GREET_S": str(GREET_S)}) as house:
        yield house


def _took_s(house: House, id_: str) -> float:
    (attempt,) = attempts_of(house, id_)
    started, ended = (datetime.fromisoformat(attempt[k]) for k in ("started_at", "ended_at"))
    return (ended - started).total_seconds()


def test_mail_hangs_at_a_relay_that_never_speaks(house: House) -> None:
    """Another relay carries it, one time-out later, within the same attempt."""
    with (
        SmtpSink("-W", "CONNECT:300") as mute,
        FarEnd() as good,
        relays(house, mute=mute.url, good=good.url),
    ):
        id_ = house.send()
        house.wait_status(id_, "delivered")
        assert attempts_of(house, id_)[0]["relay"] == "good"
        assert GREET_S <= _took_s(house, id_) < 2 * GREET_S
        assert (len(good.taken), mute.messages()) == (1, [])
        assert types(house, id_) == ["accepted", "delivered"]
        check_record(house, id_)


def test_a_relay_that_never_speaks_slows_other_mail(house: House) -> None:
    """It may hold what its connections hold, once; later mail does not ask it."""
    mute = ScriptedServer({"BANNER": Silence()})
    with (
        hosted(mute),
        FarEnd() as good,
        relays(house, mute={"url": url_of(mute), "connections": 2}, good=good.url),
    ):
        ids = [house.send(to=f"u{n}@receiver.test") for n in range(20)]
        good.wait_taken(18)
        assert (mute.connections, mute.ended) == (2, 0)  # those two still hang
        for id_ in ids:
            house.wait_status(id_, "delivered")
        for id_ in [house.send() for _ in range(10)]:
            house.wait_status(id_, "delivered")
            assert _took_s(house, id_) < GREET_S
        assert mute.connections == 2
        assert len(good.taken) == 30


@pytest.mark.long
def test_the_only_relay_hangs_and_the_mail_is_given_up(relenting: House) -> None:
    """Its process stands still, so the kernel accepts and nobody speaks; when it goes on, the mail
    goes out, with the end of its life unmoved."""
    house = relenting
    with SmtpSink() as sink, relays(house, only=sink.url):
        sink.pause()
        id_ = house.send()
        before = house.recipients(id_)[0]["expires_at"]
        outcome = put_off(house, id_, phase="greet")
        assert outcome["reason"] == f"no answer in {GREET_S:g} s"
        assert outcome["reply"] is None
        sink.resume()
        come_due(house, id_)
        (recipient,) = house.wait_status(id_, "delivered")
        assert recipient["expires_at"] == before
        assert [a["outcome"]["type"] for a in recipient["attempts"]] == ["deferred", "delivered"]
        assert len(sink.messages()) == 1
        assert types(house, id_) == ["accepted", "deferred", "delivered"]
        check_record(house, id_)
