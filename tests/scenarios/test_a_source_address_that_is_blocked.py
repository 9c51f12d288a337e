"""A destination refuses one of our addresses, as listed or unknown. Nobody bounces while another
address may send: the mail goes from there in the same attempt, and the refused one is not shown
again for an hour. An address that many sites refuse is taken out altogether.

Invariants: I2, I5, I18.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hosting import hosted
from tests.support.house import House
from tests.support.mail_hosts import delivering, mx
from tests.support.stage import FIRST_TURN, attempts_of, check_record, over, relays, types
from tests.support.tiny_smtp import ScriptedServer
from tests.support.waiting import wait_until

ZONE = "\n".join(f"d{n} MX 10 mail{n}\nmail{n} A 127.0.0.1" for n in range(8))
BLOCK = b"554 5.7.1 Service unavailable; Client host blocked using zen.spamhaus.org\r\n"
BAD, GOOD = "127.0.0.2", "127.0.0.3"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with delivering(tmp_path, {"there.test": ZONE}) as (house, _):
        yield house


@pytest.mark.parametrize("at", ["BANNER", "RCPT"])
def test_blocked_address_bounces_mail_that_another_may_send(house: House, at: str) -> None:
    with (
        hosted(ScriptedServer(by_peer={BAD: {at: BLOCK}})) as far,
        relays(
            house,
            bad=mx(far.port, source=[BAD], weight=FIRST_TURN),
            good=mx(far.port, source=[GOOD]),
        ),
    ):
        for _ in range(3):
            id_ = house.send(to="u@d0.there.test")
            house.wait_status(id_, "delivered")
            (attempt,) = attempts_of(house, id_)
            assert attempt["relay"] == "good"
            assert types(house, id_) == ["accepted", "delivered"]
            check_record(house, id_)
        assert far.peers.count(BAD) == 1


def test_block_of_the_only_address_is_asked_about_with_every_message(house: House) -> None:
    with hosted(ScriptedServer({"RCPT": BLOCK})) as far, relays(house, only=mx(far.port)):
        first = house.send(to="u@d0.there.test")
        house.wait_status(first, "bounced")
        second = house.send(to="u@d0.there.test")
        wait_until(
            lambda: "deferred" in types(house, second),
            seconds=20,
            what=lambda: f"{house.events(second)}",
        )
        assert attempts_of(house, second) == []
        assert far.connections == 1
        over(house, second)


def test_address_that_nobody_wants_is_shown_to_everybody(house: House) -> None:
    with (
        hosted(ScriptedServer(by_peer={BAD: {"RCPT": BLOCK}})) as far,
        relays(
            house,
            bad=mx(far.port, source=[BAD], weight=FIRST_TURN),
            good=mx(far.port, source=[GOOD]),
        ),
    ):
        for n in range(8):
            id_ = house.send(to=f"u@d{n}.there.test")
            house.wait_status(id_, "delivered")
        # Three sites of three refuse it: its circuit opens, and the others never see it.
        assert far.peers.count(BAD) == 3
        assert "source_blocked:bad" in house.tail()
