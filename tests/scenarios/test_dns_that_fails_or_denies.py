"""F62: DNS is out, or says no. What it denies for certain bounces, everything else waits and is
delivered when DNS is back.

Invariants: I2, I12.
"""

from collections.abc import Iterator

import pytest

from tests.support.hosting import hosted
from tests.support.house import House
from tests.support.knot import Knot
from tests.support.mail_hosts import delivering, mx, theirs
from tests.support.stage import (
    FIRST_RETRY_S,
    RELAY_RETRY_S,
    check_gap,
    check_record,
    come_due,
    over,
    relays,
    types,
    wait_attempts,
)
from tests.support.tiny_smtp import ScriptedServer
from tests.support.waiting import wait_until

ZONE = """
@ MX 10 mail
mail A 127.0.0.1
implicit A 127.0.0.1
alias CNAME implicit
null MX 0 .
empty TXT "neither MX nor address"
lost MX 10 none
lost MX 20 gone.there.test.
half MX 10 none
half MX 20 x.broken.test.
cname MX 10 alias
"""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Knot]]:
    zones = {"there.test": ZONE, "broken.test": None, "away.test": "@ MX 10 mail.there.test."}
    with delivering(tmp_path_factory.mktemp("house"), zones) as both:
        yield both


@pytest.mark.parametrize(
    ("domain", "code", "enhanced", "hard"),
    [
        ("none.there.test", 550, "5.1.2", True),
        ("null.there.test", 556, "5.1.10", True),
        ("empty.there.test", 550, "5.1.2", True),
        ("lost.there.test", 550, "5.4.4", False),
    ],
)
def test_mail_for_a_domain_that_takes_none_waits_for_days(
    stage: tuple[House, Knot], domain: str, code: int, enhanced: str, hard: bool
) -> None:
    house, _ = stage
    with relays(house, mx=mx(25)):
        id_ = house.send(to=f"you@{domain}")
        (recipient,) = house.wait_status(id_, "bounced")
        (attempt,) = recipient["attempts"]
        outcome = attempt["outcome"]
        assert (outcome["reply"]["code"], outcome["reply"]["enhanced"]) == (code, enhanced)
        assert (outcome["phase"], outcome["hard"]) == ("route", hard)
        assert domain in outcome["reply"]["text"]
        assert (attempt["relay"], attempt["host"]) == ("mx", None)
        check_record(house, id_)


@pytest.mark.parametrize("domain", ["implicit", "alias", "cname"])
def test_domain_without_mx_or_with_an_alias_gets_no_mail(
    stage: tuple[House, Knot], domain: str
) -> None:
    house, _ = stage
    with hosted(ScriptedServer()) as far, relays(house, mx=mx(far.port)):
        id_ = house.send(to=f"you@{domain}.there.test")
        (recipient,) = house.wait_status(id_, "delivered")
        assert recipient["via"] == "mx"
        assert len(far.mail) == 1


@pytest.mark.parametrize("domain", ["x.broken.test", "half.there.test"])
def test_servfail_bounces_mail(stage: tuple[House, Knot], domain: str) -> None:
    house, _ = stage
    with relays(house, mx=mx(25)):
        id_ = house.send(to=f"you@{domain}")
        (recipient,) = house.wait_status(id_, "deferred")
        outcome = recipient["attempts"][0]["outcome"]
        theirs(outcome, phase="route")
        assert outcome["reply"]["enhanced"] == "4.4.3"
        assert "SERVFAIL" in outcome["reason"]
        check_gap(recipient, FIRST_RETRY_S)
        check_record(house, id_)
        over(house, id_)


def test_mail_is_bounced_or_lost_while_dns_is_out(stage: tuple[House, Knot]) -> None:
    """No answer at all is our own trouble: mail comes back soon, and goes out when DNS does."""
    house, knot = stage
    with hosted(ScriptedServer()) as far, relays(house, mx=mx(far.port)):
        knot.pause()
        try:
            id_ = house.send(to="you@away.test")
            (recipient,) = house.wait_status(id_, "deferred")
        finally:
            knot.resume()
        outcome = recipient["attempts"][0]["outcome"]
        assert (outcome["phase"], outcome["speaker"]) == ("route", "self")
        assert outcome["reply"]["enhanced"] == "4.4.3"
        check_gap(recipient, RELAY_RETRY_S)
        assert far.connections == 0

        def arrived() -> bool:  # the failure is remembered for some seconds
            attempts = len(house.recipients(id_)[0]["attempts"])
            come_due(house, id_)
            wait_attempts(house, id_, attempts + 1)
            return bool(house.recipients(id_)[0]["status"] == "delivered")

        wait_until(arrived, seconds=20, what="the mail to go out")
        assert len(far.mail) == 1
        assert types(house, id_)[:2] == ["accepted", "deferred"]
        check_record(house, id_)
