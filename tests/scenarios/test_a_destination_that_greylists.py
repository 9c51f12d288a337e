"""F68: a destination takes mail only from whom it has seen before. The second try comes after the
minutes that it wants, not after half an hour, from the same address; the next mail goes through at
once.

Invariants: I2, I5, I12.
"""

from collections.abc import Iterator

import pytest

from tests.support.hosting import hosted
from tests.support.house import House
from tests.support.mail_hosts import delivering, mx, theirs
from tests.support.stage import attempts_of, check_gap, check_record, come_due, relays
from tests.support.tiny_smtp import ScriptedServer

ZONE = """
one MX 10 mail
two MX 10 mail
mail A 127.0.0.1
"""
GREY = b"450 4.2.0 Recipient address rejected: Greylisted, see http://postgrey.test\r\n"
TEN_MINUTES = b"451 4.7.1 Greylisted, please try again in 600 seconds\r\n"
SEEN = b"250 2.1.5 ok\r\n"
FIRST, SECOND = "127.0.0.2", "127.0.0.3"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with delivering(tmp_path_factory.mktemp("house"), {"grey.test": ZONE}) as (house, _):
        yield house


@pytest.mark.parametrize(
    ("answer", "bounds"), [(GREY, (300.0, 375.0)), (TEN_MINUTES, (600.0, 750.0))]
)
def test_greylisted_mail_comes_back_too_soon_too_late_or_from_elsewhere(
    house: House, answer: bytes, bounds: tuple[float, float]
) -> None:
    """Each source address has its own list; both would greet us with 450 once."""
    lists = {FIRST: {"RCPT": [answer, SEEN]}, SECOND: {"RCPT": [answer, SEEN]}}
    with (
        hosted(ScriptedServer(by_peer=lists)) as far,
        relays(
            house,
            first=mx(far.port, source=[FIRST], weight=1),
            second=mx(far.port, source=[SECOND], weight=1),
        ),
    ):
        id_ = house.send(to="u@one.grey.test")
        (recipient,) = house.wait_status(id_, "deferred")
        (attempt,) = attempts_of(house, id_)
        theirs(attempt["outcome"], phase="rcpt")
        check_gap(recipient, bounds)
        come_due(house, id_)
        house.wait_status(id_, "delivered")
        again, last = attempts_of(house, id_)
        assert again["relay"] == last["relay"]
        check_record(house, id_)
        for n in range(4):  # its other domain too: it has seen us
            other = house.send(to=f"u{n}@{'two' if n % 2 else 'one'}.grey.test")
            house.wait_status(other, "delivered")
            (only,) = attempts_of(house, other)
            assert only["relay"] == last["relay"]
        assert len(set(far.peers)) == 1
