"""F59: three of five relays die. Mail goes by the other two, none is deferred, and the dead ones
are asked a few times only; when they live again they get their share back, slowly.

Invariants: I5, I17, I18, I19.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain

import pytest

from tests.support.hosting import hosted, url_of
from tests.support.house import House
from tests.support.journal import wait_logged
from tests.support.stage import attempts_of, check_record, serving
from tests.support.tiny_smtp import Reset, ScriptedServer

DEAD = ("r0", "r1", "r2")
NAMES = (*DEAD, "r3", "r4")


@pytest.fixture
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    quick = {"EVERPOST_DELIVERY_EJECT_S": "0.5"}
    with serving(tmp_path_factory.mktemp("house"), quick) as house:
        yield house


def _send(house: House, count: int) -> Counter[str]:
    """So many messages, all of them delivered at the first attempt; how many by which relay."""
    by: Counter[str] = Counter()
    for n in range(count):
        id_ = house.send(to=f"u{n}@receiver.test")
        house.wait_status(id_, "delivered")
        (attempt,) = attempts_of(house, id_)
        by[attempt["relay"]] += 1
        for tried in attempt["tried"]:
            assert tried["relay"] in DEAD, attempt
            by[f"tried {tried['relay']}"] += 1
        check_record(house, id_)
    return by


def test_mail_walks_the_dead_ones_each_time(house: House) -> None:
    servers = {name: ScriptedServer() for name in NAMES}
    with ExitStack() as stack:
        for name, server in servers.items():
            stack.enter_context(hosted(server))
            house.relay(url_of(server), name=name, tls="none", probe=False)
        for name in DEAD:
            servers[name].script = {verb: Reset() for verb in ("BANNER", "EHLO", "MAIL", "RSET")}
        by = _send(house, 60)
        wait_logged(house, "relay.circuit", state="open", count=len(DEAD))
        assert by["r3"] + by["r4"] == 60
        assert 20 <= by["r3"] <= 40, by
        # Each is met once at first and then once after each wait, which doubles.
        asked = {name: by[f"tried {name}"] for name in DEAD}
        assert all(1 <= count <= 5 for count in asked.values()), asked

        for name in DEAD:
            servers[name].script = {}
        for name in DEAD:
            while not any(chain(servers[name].mail)):
                _send(house, 10)
            wait_logged(house, "relay.circuit", relay=name, state="closed")
        again = _send(house, 20)
        assert sum(again[name] for name in DEAD) < 12, again  # the slow start
