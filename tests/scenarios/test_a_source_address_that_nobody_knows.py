"""A new source address has a day plan. It sends no more than the plan has released by now; what is
beyond goes out through the address beside it, at once, and nothing is deferred for it.

Invariants: I2, I18.
"""

import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.hosting import hosted
from tests.support.house import House
from tests.support.mail_hosts import delivering, mx
from tests.support.stage import FIRST_TURN, attempts_of, relays, types
from tests.support.tiny_smtp import ScriptedServer

ZONE = "\n".join([*(f"d{n} MX 10 mail" for n in range(4)), "mail A 127.0.0.1"])
PLAN = 24
HOUR_S, DAY_S = 3600, 86_400
NEW, KNOWN = "127.0.0.2", "127.0.0.3"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    with delivering(folder, {"there.test": ZONE}, processes=2) as (house, _):
        yield house


def released() -> int:
    """Of the day's plan, by now: evenly over the day, an hour in advance."""
    return min(PLAN * (int(time.time()) % DAY_S + HOUR_S) // DAY_S, PLAN)


def test_new_address_sends_more_than_its_plan(house: House) -> None:
    with (
        hosted(ScriptedServer()) as far,
        relays(
            house,
            new=mx(far.port, source=[NEW], weight=FIRST_TURN, warmup=[PLAN, 1000]),
            known=mx(far.port, source=[KNOWN]),
        ),
    ):
        before = released()
        ids = [house.send(to=f"u{n}@d{n % 4}.there.test") for n in range(PLAN + 16)]
        for id_ in ids:
            house.wait_status(id_, "delivered")
            assert types(house, id_) == ["accepted", "delivered"]
        by = Counter(attempts_of(house, id_)[0]["relay"] for id_ in ids)
        # Over midnight a new day's plan begins.
        most = released() if released() >= before else before + 1000
        assert 0 < by["new"] <= most
        assert by["known"] == len(ids) - by["new"]
