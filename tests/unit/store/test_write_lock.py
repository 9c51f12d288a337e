"""Writers of several processes take turns, however busy the machine is."""

import fcntl
import os
import threading
from pathlib import Path

from everpost.store.sqlite.lock import WriteLock
from tests.support.waiting import wait_until


def test_a_writer_that_has_just_written_passes_one_that_waits(tmp_path: Path) -> None:
    database = tmp_path / "s.db"
    lock, other = WriteLock(database), WriteLock(database)
    gate = os.open(tmp_path / "s.db.gate", os.O_RDWR)
    order: list[str] = []

    def somebody_waits() -> bool:
        try:
            fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(gate, fcntl.LOCK_UN)
        return False

    def write() -> None:
        with other:
            order.append("who waited")

    for _ in range(20):
        order.clear()
        waiter = threading.Thread(target=write)
        with lock:
            waiter.start()
            wait_until(somebody_waits, seconds=10, what="the other writer to queue")
        with lock:
            order.append("who has just written")
        waiter.join(10)
        assert order == ["who waited", "who has just written"]
    os.close(gate)
    lock.close()
    other.close()


def test_a_writer_that_is_stopped_while_it_waits_stops_all_others(tmp_path: Path) -> None:
    """F35: a process that was paused at the gate holds it for as long as the pause lasts."""
    lock = WriteLock(tmp_path / "s.db")
    stopped = os.open(tmp_path / "s.db.gate", os.O_RDWR)
    fcntl.flock(stopped, fcntl.LOCK_EX)
    written = 0

    def write() -> None:
        nonlocal written
        for _ in range(50):
            with lock:
                written += 1

    writer = threading.Thread(target=write)
    writer.start()
    writer.join(20)
    assert written == 50
    os.close(stopped)
    lock.close()
