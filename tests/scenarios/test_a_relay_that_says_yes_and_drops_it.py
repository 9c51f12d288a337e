"""F72: a relay answers 250 to everything and delivers nothing. No answer gives it away; a message
to a mailbox of our own, sent through each relay in turn, does.

Invariants: I19.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.support.dovecot import PASSWORD, USER, Dovecot
from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.postfix import Postfix
from tests.support.stage import relays
from tests.support.waiting import wait_until


def _canaries(house: House) -> dict[str, Any]:
    statuses = house.get("/relays/status").json["data"]
    return {each["name"]: each["canary"] for each in statuses}


@pytest.mark.long
def test_a_relay_that_takes_all_and_delivers_nothing_is_named(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text(f"{PASSWORD}\n")
    with FarEnd() as liar, Postfix() as honest, Dovecot(honest.maildir) as box:
        settings = {
            "EVERPOST_CANARY_ADDRESS": "canary@receiver.test",
            "EVERPOST_CANARY_MAILBOX": box.url,
            "EVERPOST_CANARY_USERNAME": USER,
            "EVERPOST_CANARY_PASSWORD_FILE": str(secret),
            "EVERPOST_CANARY_EVERY_S": "1",
            "EVERPOST_CANARY_WAIT_S": "2",
        }
        with House(tmp_path / "d", settings=settings, processes=1) as house:
            house.domain(signing="unsigned")
            with relays(house, liar=liar.url, honest=honest.url):
                wait_until(
                    lambda: "relay_lies:liar" in house.alarms(),
                    seconds=30,
                    what=lambda: f"an alarm: {house.alarms()}\n{house.tail()}",
                )
                assert liar.taken, "nothing was sent through it"
                assert {m.recipients[0] for m in liar.taken} == {"canary@receiver.test"}
                wait_until(
                    lambda: None not in _canaries(house).values(),
                    seconds=20,
                    what=lambda: f"a verdict on each: {_canaries(house)}\n{house.tail()}",
                )
                assert {name: c["ok"] for name, c in _canaries(house).items()} == {
                    "liar": False,
                    "honest": True,
                }
                assert house.alarms() == ["relay_lies:liar"]
                wait_until(
                    lambda: not box.subjects(),
                    seconds=20,
                    what=lambda: f"what has arrived to be removed: {box.subjects()}",
                )
            wait_until(
                lambda: "relay_lies:liar" not in house.alarms(),
                seconds=20,
                what=lambda: f"the alarm to end with its relay: {house.alarms()}",
            )
