"""F38: a relay was away and mail for it has piled up; then it is back. What waits comes back spread
over time, and two processes bring it one connection at a time: another one only after all that are
open have worked. The relay's limit holds, and everything is delivered soon, once.

Invariants: I18, I19.
"""

import socket
from pathlib import Path

import apsw
import pytest

from tests.support.counting_sink import CountingSink
from tests.support.house import House
from tests.support.journal import wait_logged
from tests.support.stage import over
from tests.support.waiting import wait_until

CONNECTIONS, PROCESSES = 20, 2
DRAINED_S = 60
"""A busy machine's time for all of it."""

QUICK = {"EVERPOST_DISPATCH_POLL_S": "0.1", "EVERPOST_DELIVERY_IDLE_S": "30"}


def _submit(house: House, count: int) -> None:
    drafts = [
        {"from": "s@example.test", "to": [f"u{n}@d{n % 20}.test"], "subject": "x", "text": "y"}
        for n in range(100)
    ]
    for _ in range(count // 100):
        answer = house.post("/emails/batch", drafts)
        assert answer.status == 200, answer


def _states(house: House) -> dict[str, int]:
    states: dict[str, int] = house.get("/status").json["states"]
    return states


def _due(house: House, *, within_ms: int) -> list[int]:
    """How much of what waits for its time is due in each so long time."""
    db = apsw.Connection(str(house.data / "everpost.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        rows = db.execute(
            "SELECT count(*) FROM recipients WHERE state = 'queued' AND due = 0"
            " GROUP BY not_before / ?",
            (within_ms,),
        )
        return [int(count) for (count,) in rows]
    finally:
        db.close()


@pytest.mark.long
@pytest.mark.parametrize(
    ("waiting", "eject_s"), [(500, 2), pytest.param(4_000, 10, marks=pytest.mark.long)]
)
def test_a_backlog_comes_back_one_connection_at_a_time(
    tmp_path: Path, waiting: int, eject_s: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port: int = nobody.getsockname()[1]
    settings = {**QUICK, "EVERPOST_DELIVERY_EJECT_S": str(eject_s)}
    with House(tmp_path / "d", settings=settings, processes=PROCESSES) as house:
        house.domain(signing="unsigned")
        house.relay(f"smtp://127.0.0.1:{port}", tls="none", connections=CONNECTIONS, probe=False)
        first = house.send()  # it finds out
        wait_logged(house, "relay.circuit", count=PROCESSES, state="open")
        over(house, first)
        _submit(house, waiting)
        wait_until(
            lambda: sum(_due(house, within_ms=1_000)) >= waiting * 0.9,
            seconds=20,
            what=lambda: f"nearly all to be put off: {_states(house)}",
        )
        waits = _due(house, within_ms=100 * eject_s)
        assert max(waits) < sum(waits) * 2 / 3, waits

        with CountingSink(pause_s=0.002, port=port) as sink:
            wait_until(
                lambda: len(sink.arrived) >= waiting,
                seconds=DRAINED_S,
                what=lambda: f"{len(sink.arrived)} came, {_states(house)}\n{house.tail()}",
            )
            wait_until(
                lambda: _states(house)["delivered"] == waiting,
                seconds=5,
                what=lambda: f"all to be noted: {_states(house)}",
            )
            assert len(set(sink.message_ids())) == len(sink.arrived) == waiting
            assert sink.most_open <= CONNECTIONS, sink.grew
            for open_at_once, came in sink.grew:
                assert came >= _earned(open_at_once), sink.grew
            assert sink.most_open > 2 * PROCESSES, sink.grew


def _earned(connections: int) -> int:
    """Messages that must have worked before so many connections are open at once: in each process
    k - 1 rounds, the n-th of n messages."""
    share = connections // PROCESSES
    return PROCESSES * (share * (share - 1) // 2) if share > 1 else 0
