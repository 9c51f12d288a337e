"""F67: a provider says that we send too much. It gets nothing at all for a minute, from none of its
domains' mail and from no process, though it has a second host and we have much to send; nobody
bounces, and no attempt is counted that was not made.

Invariants: I2, I5, I12, I18.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import apsw
import pytest

from everpost.delivery.shaping import START
from tests.support.hosting import hosted
from tests.support.house import House
from tests.support.mail_hosts import delivering, mx, theirs
from tests.support.stage import attempts_of, check_record, over, relays, types
from tests.support.tiny_smtp import ScriptedServer
from tests.support.waiting import wait_until

DOMAINS = 5
PROCESSES = 2
ZONE = "\n".join(
    [
        *(f"d{n} MX 10 mx1\nd{n} MX 20 mx2" for n in range(DOMAINS)),
        "mx1 A 127.0.0.1",
        "mx2 A 127.0.0.1",
        "other MX 10 own",
        "own A 127.0.0.2",
    ]
)
RATE = b"451 4.7.650 The mail server has been temporarily rate limited due to IP reputation.\r\n"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    with delivering(folder, {"big.test": ZONE}, processes=PROCESSES) as (house, _):
        yield house


def cooldowns(house: House) -> list[dict[str, Any]]:
    """What the processes have told each other."""
    db = apsw.Connection(str(house.data / "everpost.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        rows = db.execute("SELECT data FROM notes WHERE kind = 'cooldown'").fetchall()
    finally:
        db.close()
    return [json.loads(str(row[0])) for row in rows]


def put_off(house: House, ids: Sequence[str]) -> int:
    """Wait until all of these were put back; how many of them were tried."""
    tried = 0
    for id_ in ids:
        wait_until(
            lambda id_=id_: "deferred" in types(house, id_),  # type: ignore[misc]
            seconds=20,
            what=lambda id_=id_: f"{house.events(id_)}\n{house.tail()}",  # type: ignore[misc]
        )
        assert types(house, id_) == ["accepted", "deferred"]
        (recipient,) = house.recipients(id_)
        if recipient["attempts"]:
            tried += 1
        else:
            assert recipient["status"] == "scheduled"
            event = json.dumps(house.events(id_)[-1])
            assert "takes nothing from us for a while: 451 4.7.650" in event
        check_record(house, id_)
    return tried


def test_throttled_provider_is_hammered_by_every_process(house: House) -> None:
    throttling, free = ScriptedServer({"RCPT": RATE}), ScriptedServer()
    with (
        hosted(throttling) as far,
        hosted(free, "127.0.0.2", far.port),
        relays(house, mx=mx(far.port)),
    ):
        first = house.send(to="u@d0.big.test")
        house.wait_status(first, "deferred")
        (attempt,) = attempts_of(house, first)
        theirs(attempt["outcome"], phase="rcpt")
        assert attempt["outcome"]["throttle"] is True
        wait_until(lambda: bool(cooldowns(house)), seconds=10, what="the others to be told")
        more = [house.send(to=f"u{n}@d{n % DOMAINS}.big.test") for n in range(25)]
        # Whoever had not heard yet may have begun, with as many as go to a site at first; nobody
        # went on once it had its answer, nor asked the second host.
        asked = 1 + put_off(house, more)
        assert far.connections == asked <= 1 + START * (PROCESSES - 1)
        (told, *_) = cooldowns(house)
        for id_ in more:
            (recipient,) = house.recipients(id_)
            assert recipient["next_attempt_at"] >= attempt["ended_at"]
        # Another destination does not wait.
        house.wait_status(house.send(to="u@other.big.test"), "delivered")

        # Processes that start now are told, too.
        house.stop()
        house.start()
        later = [house.send(to=f"v{n}@d{n % DOMAINS}.big.test") for n in range(10)]
        assert put_off(house, later) == 0
        assert far.connections == asked
        assert cooldowns(house)[0]["until"] >= told["until"]
        for id_ in (first, *more, *later):
            over(house, id_)
