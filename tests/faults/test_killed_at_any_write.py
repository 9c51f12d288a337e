"""F50: the dispatch process is killed at its first write to the relay, its second, and so on,
through a whole delivery; then at each flush of the store. Whatever the moment, the message is
delivered, and a second copy exists only where the record says that an attempt was in doubt.

Invariants: I1, I2, I4, I5, I6.
"""

from pathlib import Path

import pytest

from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.stage import check_record, types
from tests.support.tracing import injecting

pytestmark = pytest.mark.long

MOST = 40
"""More writes than a delivery has."""


def _deliver(house: House, far: FarEnd, injection: str, *, threads: bool) -> tuple[bool, list[str]]:
    """One message while the dispatch process is about to die: whether it did, and what the record
    says came of the attempt. The promises are checked here."""
    before = len(far.complete)
    (pid,) = house.children("dispatch")
    with injecting(pid, injection, threads=threads):
        id_ = house.send()
        house.wait_status(id_, "delivered")
    died = pid not in house.children("dispatch")
    copies = far.complete[before:]
    told = types(house, id_)
    assert 1 <= len(copies) <= 1 + told.count("in_doubt"), told
    assert len({m.message_id for m in copies}) == 1
    check_record(house, id_)
    if died:  # a new supervisor, since the old one lets its child wait longer each time
        house.stop()
        house.start()
    return died, told


def _sweep(folder: Path, *, call: str, threads: bool) -> list[list[str]]:
    """Killed at its first `call`, its second, …, until a delivery has no more of them; what the
    record says, each time."""
    seen: list[list[str]] = []
    settings = {"EVERPOST_DISPATCH_POLL_S": "0.1"}
    with FarEnd() as far, House(folder / "d", settings=settings, processes=1) as house:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        for n in range(1, MOST):
            injection = f"{call}:signal=KILL:when={n}"
            died, told = _deliver(house, far, injection, threads=threads)
            if not died:
                return seen
            seen.append(told)
    raise AssertionError(f"a delivery makes more than {MOST} calls of {call}")


def test_a_kill_at_any_write_loses_or_doubles_mail(tmp_path: Path) -> None:
    """In the thread that speaks to relays."""
    seen = _sweep(tmp_path, call="write", threads=False)
    # EHLO, the envelope, the content with its dot; the dot log is mapped and makes no call.
    assert len(seen) >= 3
    assert ["accepted", "abandoned", "delivered"] in seen
    assert ["accepted", "in_doubt", "delivered"] in seen


def test_a_kill_at_any_flush_loses_or_doubles_mail(tmp_path: Path) -> None:
    """In the store's thread, too: the claim's commit, the outcome's commit."""
    seen = _sweep(tmp_path, call="fdatasync", threads=True)
    assert len(seen) >= 2
    assert ["accepted", "in_doubt", "delivered"] in seen
