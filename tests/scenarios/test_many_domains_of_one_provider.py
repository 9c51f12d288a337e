"""A provider carries the mail of many domains. However many there are, it never has more sessions
from us than one destination may have: MX hosts are asked for before a place is taken, sessions
carry the mail of all its domains, and other destinations do not wait behind it.

Invariants: I17, I18.
"""

from collections.abc import Iterator

import pytest

from everpost.delivery.shaping import START
from tests.support.hosting import hosted
from tests.support.house import House
from tests.support.mail_hosts import delivering, mx
from tests.support.stage import check_record, relays
from tests.support.tiny_smtp import ScriptedServer

DOMAINS = 150
LIMIT = 3
TENANT = "mail.protection.outlook.com"
ZONES = {
    "roll.test": "\n".join(
        [*(f"d{n} MX 10 mx1\nd{n} MX 10 mx2" for n in range(DOMAINS)),
         "mx1 A 127.0.0.1", "mx2 A 127.0.0.1", "quick MX 10 own", "own A 127.0.0.2"]
    ),
    "tenants.test": "\n".join(f"d{n} MX 0 d{n}-tenants.{TENANT}." for n in range(40)),
    TENANT: "\n".join(f"d{n}-tenants A 127.0.0.1" for n in range(40)),
}  # fmt: skip


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with delivering(tmp_path_factory.mktemp("house"), ZONES) as (house, _):
        yield house


def _all_arrive(house: House, to: list[str]) -> None:
    ids = [house.send(to=address) for address in to]
    for id_ in ids:
        house.wait_status(id_, "delivered")
        check_record(house, id_)


def test_every_domain_of_a_provider_opens_its_own_sessions(house: House) -> None:
    with (
        hosted(ScriptedServer()) as far,
        hosted(ScriptedServer(), "127.0.0.2", far.port) as own,
        relays(house, mx=mx(far.port, connections=50, destination_connections=LIMIT)),
    ):
        answer = house.post(
            "/emails",
            {
                "from": "s@example.test",
                "to": [f"u@d{n}.roll.test" for n in range(40)],
                "subject": "many",
                "text": "x",
            },
        )
        assert answer.status == 200, answer
        _all_arrive(house, [f"u@d{n}.roll.test" for n in range(40, DOMAINS)])
        house.wait_status(house.send(to="u@quick.roll.test"), "delivered")
        house.wait_status(answer.json["id"], "delivered")
        assert len(far.mail) == DOMAINS
        assert far.peak <= LIMIT < START
        assert far.connections <= 2 * LIMIT  # and they carried the mail of all
        assert len(own.mail) == 1


def test_tenants_with_hosts_of_their_own_open_a_session_each(house: House) -> None:
    """Joined by the table of providers. A session carries one tenant's mail, so they are many, but
    never at once."""
    with (
        hosted(ScriptedServer()) as far,
        relays(house, mx=mx(far.port, connections=50, destination_connections=LIMIT)),
    ):
        _all_arrive(house, [f"u@d{n}.tenants.test" for n in range(40)])
        assert len(far.mail) == 40
        assert far.peak <= LIMIT
