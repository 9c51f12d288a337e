"""F59: one process looks at idle relays for all. It is killed, and another takes over when its
lease has ended: a relay that dies meanwhile is still found without any mail.

Invariants: I18.
"""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.hosting import hosted, url_of
from tests.support.house import House
from tests.support.journal import wait_logged
from tests.support.stage import relays
from tests.support.tiny_smtp import ScriptedServer
from tests.support.waiting import wait_until

LEASE_S, ASKED_EVERY_S = 8.0, 1.0


@pytest.mark.long
def test_the_process_that_probes_is_killed_and_another_takes_over(tmp_path: Path) -> None:
    far = ScriptedServer()
    with (
        hosted(far),
        House(tmp_path / "d", settings={"EVERPOST_DELIVERY_PROBE_S": "1"}, processes=3) as house,
    ):
        house.domain(signing="unsigned")
        with relays(house, only=url_of(far)):
            wait_until(lambda: far.connections >= 1, seconds=20, what="a first look")
            (leads,) = wait_logged(house, "probes.lead")
            before = time.time()
            os.kill(leads["pid"], signal.SIGKILL)
            _, heir = wait_logged(house, "probes.lead", count=2)
            assert heir["pid"] != leads["pid"]
            assert heir["term"] == leads["term"] + 1
            assert heir["at"] - before < LEASE_S + ASKED_EVERY_S + 1.0, heir
            looks = far.connections
            wait_until(lambda: far.connections > looks, seconds=10, what="the heir's first look")
            assert "MAIL FROM:<postmaster@example.test> SIZE=1024" in far.log
            assert not far.mail
