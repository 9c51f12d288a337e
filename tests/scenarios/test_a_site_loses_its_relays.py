"""F59: two sites, each with relays of its own in one pool. A node sends by those of its own. One of
them dies: the other carries on alone. Both die: the other site's carry its mail, each message in
its first attempt. They come back: so does the mail. The node of the other site notices nothing.

Invariants: I5, I17, I19.
"""

from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.hosting import hosted, url_of
from tests.support.house import House
from tests.support.journal import wait_logged
from tests.support.stage import attempts_of, check_record, serving
from tests.support.tiny_smtp import Reset, ScriptedServer

NORTH, SOUTH = ("n0", "n1"), ("s0", "s1")
DOWN = {verb: Reset() for verb in ("BANNER", "EHLO", "MAIL", "RSET")}


def _send(house: House, count: int) -> Counter[str]:
    """So many messages, all delivered at the first attempt; how many by which site."""
    by: Counter[str] = Counter()
    for n in range(count):
        id_ = house.send(to=f"u{n}@receiver.test")
        house.wait_status(id_, "delivered")
        (attempt,) = attempts_of(house, id_)
        by["north" if attempt["relay"] in NORTH else "south"] += 1
        check_record(house, id_)
    return by


def _until_back(house: House, servers: dict[str, ScriptedServer]) -> None:
    """Mail comes, a little of which tries them, until both are in health again."""
    for name in NORTH:
        servers[name].script = {}
    for name in NORTH:
        while not any(servers[name].mail):
            _send(house, 4)
        wait_logged(house, "relay.circuit", relay=name, state="closed")


@pytest.mark.long
def test_mail_of_a_site_goes_by_the_other_and_comes_back(tmp_path: Path) -> None:
    servers = {name: ScriptedServer() for name in (*NORTH, *SOUTH)}
    quick = {"EVERPOST_DELIVERY_EJECT_S": "0.5"}
    for folder in ("north", "south"):
        (tmp_path / folder).mkdir()
    with ExitStack() as stack:
        north, south = (
            stack.enter_context(serving(tmp_path / site, {**quick, "EVERPOST_NODE_SITE": site}))
            for site in ("north", "south")
        )
        for name, server in servers.items():
            stack.enter_context(hosted(server))
            for house in (north, south):
                site = "north" if name in NORTH else "south"
                house.relay(url_of(server), name=name, tls="none", site=site, probe=False)
        assert _send(north, 8) == {"north": 8}
        assert _send(south, 8) == {"south": 8}

        servers["n0"].script = DOWN
        assert _send(north, 8) == {"north": 8}

        servers["n1"].script = DOWN
        for name in NORTH:
            servers[name].mail.clear()
        assert _send(north, 8) == {"south": 8}
        assert _send(south, 8) == {"south": 8}
        for name in NORTH:
            wait_logged(north, "relay.circuit", relay=name, state="open")
        assert "relay.circuit" not in south.tail()

        _until_back(north, servers)
        # In their slow start they have a part of it; the whole, when they are well.
        while _send(north, 4) != {"north": 4}:
            pass
        wait_logged(north, "pool.tiers", groups=1)
        assert _send(south, 8) == {"south": 8}
