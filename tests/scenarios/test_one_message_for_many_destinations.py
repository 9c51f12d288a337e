"""One message, many recipients: to MX hosts each destination gets a transaction of its own, and one
content for all its recipients; a smart host gets them all at once."""

from collections.abc import Iterator

import pytest

from tests.support.hosting import hosted
from tests.support.house import House
from tests.support.mail_hosts import delivering, mx
from tests.support.stage import check_record, come_due, over, relays
from tests.support.tiny_smtp import ScriptedServer

ZONE = """
one MX 10 mail
two MX 10 mail
three MX 10 mail
mail A 127.0.0.1
null MX 0 .
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    settings = {"EVERPOST_INTAKE_RECIPIENTS_PER_FIELD": "200"}
    folder = tmp_path_factory.mktemp("house")
    with delivering(folder, {"there.test": ZONE}, settings) as (house, _):
        yield house


def _transactions(far: ScriptedServer) -> list[list[str]]:
    """The recipients of each, as its commands named them."""
    found: list[list[str]] = []
    for line in far.log:
        if line.startswith("MAIL"):
            found.append([])
        elif line.startswith("RCPT"):
            found[-1].append(line.partition("<")[2].partition(">")[0])
    return sorted(map(sorted, found))


def test_destinations_share_a_transaction_or_recipients_do_not(house: House) -> None:
    to = ["a@one.there.test", "b@two.there.test", "c@one.there.test", "d@null.there.test"]
    with hosted(ScriptedServer()) as far, relays(house, mx=mx(far.port, connections=1)):
        id_ = house.send(to=to)
        found = {r["address"]: r for r in house.wait_status(id_, "delivered", "bounced")}
        assert {a for a, r in found.items() if r["status"] == "bounced"} == {"d@null.there.test"}
        assert {r["via"] for r in found.values() if r["status"] == "delivered"} == {"mx"}
        assert _transactions(far) == [
            ["a@one.there.test", "c@one.there.test"], ["b@two.there.test"]
        ]  # fmt: skip
        check_record(house, id_)


def test_smart_host_gets_the_message_once_a_destination(house: House) -> None:
    to = ["a@one.there.test", "b@two.there.test"]
    with hosted(ScriptedServer()) as far, relays(house, only=f"smtp://127.0.0.1:{far.port}"):
        id_ = house.send(to=to)
        house.wait_status(id_, "delivered")
        assert _transactions(far) == [to]


def test_more_recipients_than_a_server_must_take_go_at_once(house: House) -> None:
    to = [f"u{n}@three.there.test" for n in range(150)]
    with (
        hosted(ScriptedServer()) as far,
        relays(house, mx=mx(far.port, destination_connections=1)),
    ):
        id_ = house.send(to=to)
        house.wait_status(id_, "delivered")
        transactions = _transactions(far)
        assert sorted(a for some in transactions for a in some) == sorted(to)
        assert max(len(some) for some in transactions) <= 100


def test_server_that_wants_fewer_recipients_loses_the_rest(house: House) -> None:
    """452 4.5.3 after the second: the others come later, in another transaction."""
    taken, enough = b"250 2.1.5 ok\r\n", b"452 4.5.3 too many recipients\r\n"
    script = {"RCPT": [taken, taken, enough, taken]}
    to = [f"u{n}@one.there.test" for n in range(3)]
    with hosted(ScriptedServer(script)) as far, relays(house, mx=mx(far.port)):
        id_ = house.send(to=to)
        found = house.wait_status(id_, "delivered", "deferred")
        assert sorted(r["status"] for r in found) == ["deferred", "delivered", "delivered"]
        come_due(house, id_)
        house.wait_status(id_, "delivered")
        assert len(far.mail) == 2
        check_record(house, id_)


def test_faulty_smart_host_stops_what_could_go_directly(house: House) -> None:
    """Beside a smart host, direct delivery carries what that one cannot."""
    closing = ScriptedServer({"BANNER": b"421 4.3.2 closing\r\n"})
    with (
        hosted(closing) as smart,
        hosted(ScriptedServer()) as far,
        relays(house, smart=f"smtp://127.0.0.1:{smart.port}", mx=mx(far.port)),
    ):
        id_ = house.send(to="a@one.there.test")
        house.wait_status(id_, "delivered")
        assert (closing.connections, len(far.mail)) == (1, 1)
        check_record(house, id_)


def test_destination_that_refuses_stops_the_relay(house: House) -> None:
    """What one destination does to direct delivery is not held against it."""
    script = {"MAIL": [b"451 4.3.0 not now\r\n", b"250 ok\r\n"]}
    with hosted(ScriptedServer(script)) as far, relays(house, mx=mx(far.port)):
        id_ = house.send(to="a@one.there.test")
        house.wait_status(id_, "deferred")
        other = house.send(to="a@two.there.test")
        house.wait_status(other, "delivered")
        over(house, id_)
