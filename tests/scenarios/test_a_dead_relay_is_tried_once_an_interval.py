"""F59: a relay is dead, and three processes deliver mail. The first to notice tells the others
within a second, and from then on the relay gets no mail, and one connection an interval from all of
them together.

Invariants: I17, I18.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.journal import wait_logged
from tests.support.stage import relays
from tests.support.waiting import wait_until

INTERVAL_S = 5.0
"""An open circuit's first wait, and the least between two attempts."""


@contextmanager
def _dead_end() -> Iterator[tuple[str, list[float]]]:
    """Hangs up on whoever connects; the times of that, as the log writes them."""
    attempts: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                attempts.append(time.time())
                connection.close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        yield f"smtp://127.0.0.1:{listener.getsockname()[1]}", attempts
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@pytest.mark.long
def test_three_processes_and_one_dead_relay(tmp_path: Path) -> None:
    quick = {"EVERPOST_DISPATCH_POLL_S": "0.1"}
    with (
        _dead_end() as (url, attempts),
        FarEnd() as good,
        House(tmp_path / "d", settings=quick, processes=3) as house,
    ):
        house.domain(signing="unsigned")
        with relays(house, dead=url, good=good.url):
            first = house.send()
            opened = wait_logged(house, "relay.circuit", count=3, relay="dead", state="open")
            assert len({event["pid"] for event in opened}) == 3, opened
            # Who tells and who is told: one process, then the others.
            told = sorted(event["at"] for event in opened)
            assert told[-1] - told[0] < 1.0, opened

            for id_ in [first, *(house.send() for _ in range(30))]:
                house.wait_status(id_, "delivered")
            known = told[-1]
            wait_until(
                lambda: any(at > known for at in attempts),
                seconds=INTERVAL_S + 5,
                what=lambda: f"a look at the dead relay\n{house.tail()}",
            )
            later = [at for at in attempts if at > known]
            assert len(later) == 1, (known, attempts)
            assert later[0] - told[0] >= INTERVAL_S - 0.1, (told, later)
            assert len([at for at in attempts if at <= told[0] + 0.1]) <= 4, attempts
