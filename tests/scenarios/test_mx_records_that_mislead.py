"""F63: a hundred mail hosts, hosts that are ourselves, hosts in our own networks. An attempt stays
within its bounds, and mail goes neither in circles nor to where it must not.

Invariants: I16, S20.
"""

from collections.abc import Iterator

import pytest

from tests.support.hosting import hosted
from tests.support.house import House
from tests.support.mail_hosts import delivering, mx, theirs
from tests.support.stage import attempts_of, check_record, over, relays
from tests.support.tiny_smtp import ScriptedServer

HUNDRED = "\n".join(f"hundred MX {n} h{n}\nh{n} A 127.0.1.{n + 1}" for n in range(100))
ZONE = f"""
{HUNDRED}
local MX 10 mail
mail A 127.0.0.1
inside MX 10 router
inside MX 20 cloud
router A 192.168.0.1
cloud AAAA fd00:ec2::254
cloud A 169.254.169.254
literal MX 10 127.0.0.1.
circle MX 10 sender.test.
backup MX 10 mail
backup MX 20 sender.test.
backup MX 20 h7
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with delivering(tmp_path_factory.mktemp("house"), {"there.test": ZONE}) as (house, _):
        yield house


def test_hundred_hosts_keep_an_attempt_busy_for_hours(house: House) -> None:
    """All of them answer that they are busy: two are asked."""
    busy = ScriptedServer({"BANNER": b"421 4.3.2 busy\r\n"})
    with hosted(busy, "0.0.0.0") as far, relays(house, mx=mx(far.port)):
        id_ = house.send(to="you@hundred.there.test")
        (recipient,) = house.wait_status(id_, "deferred")
        (attempt,) = recipient["attempts"]
        theirs(attempt["outcome"], phase="greet")
        assert attempt["host"] == "h1.there.test"
        assert far.connections == 2
        check_record(house, id_)
        over(house, id_)


@pytest.mark.parametrize("domain", ["local", "inside"])
def test_mail_host_in_our_own_network_is_connected_to(house: House, domain: str) -> None:
    with hosted(ScriptedServer()) as far, relays(house, mx={"url": "mx", "port": far.port}):
        id_ = house.send(to=f"you@{domain}.there.test")
        (recipient,) = house.wait_status(id_, "bounced")
        outcome = recipient["attempts"][0]["outcome"]
        assert outcome["reply"]["enhanced"] == "5.4.4"
        assert (outcome["speaker"], outcome["hard"]) == ("self", False)
        assert far.connections == 0
        check_record(house, id_)


def test_mail_host_in_our_own_network_is_refused_where_it_is_wanted(house: House) -> None:
    with hosted(ScriptedServer()) as far, relays(house, mx=mx(far.port)):
        id_ = house.send(to="you@local.there.test")
        house.wait_status(id_, "delivered")
        assert attempts_of(house, id_)[0]["host"] == "mail.there.test"


def test_address_in_place_of_a_name_is_connected_to(house: House) -> None:
    with hosted(ScriptedServer()) as far, relays(house, mx=mx(far.port)):
        id_ = house.send(to="you@literal.there.test")
        (recipient,) = house.wait_status(id_, "bounced")
        assert recipient["attempts"][0]["outcome"]["reply"]["enhanced"] == "5.4.4"
        assert far.connections == 0


def test_mail_goes_round_in_a_circle(house: House) -> None:
    """The house calls itself sender.test."""
    with hosted(ScriptedServer(), "0.0.0.0") as far, relays(house, mx=mx(far.port)):
        id_ = house.send(to="you@circle.there.test")
        (recipient,) = house.wait_status(id_, "bounced")
        outcome = recipient["attempts"][0]["outcome"]
        assert (outcome["reply"]["enhanced"], outcome["speaker"]) == ("5.4.6", "self")
        assert far.connections == 0
        better = house.send(to="you@backup.there.test")
        house.wait_status(better, "delivered")
        assert attempts_of(house, better)[0]["host"] == "mail.there.test"
