"""F39: A foreign program has the store open: it reads and does not end, it holds SQLite's write
lock for some seconds, it copies the store with VACUUM INTO. Accepting and delivering go on: what
cannot be written in time is refused with 503, never with 500, and is not delivered later; an alarm
tells that the log grows, which shrinks when the reader ends; the copy is a sound store.

Invariants: I1, I8, I9, I16.
"""

import base64
import os
import threading
from pathlib import Path

import apsw
import pytest

from everpost.cli.checked_store import FileStore
from everpost.cli.verifying import verify_store
from tests.support.clients import copies, drain, email
from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.journal import logged
from tests.support.waiting import wait_until

_MIB = 1 << 20


def _log_bytes(house: House) -> int:
    return (house.data / "everpost.db-wal").stat().st_size


def _alarm(house: House) -> bool:
    return "log_grows" in house.get("/status").json["alarms"]


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_it_reads_and_does_not_end(tmp_path: Path) -> None:
    settings = {"EVERPOST_STORE_WAL_BYTES": str(_MIB), "EVERPOST_STORE_CHECKPOINT_S": "0.2"}
    with FarEnd() as far, House(tmp_path / "d", processes=1, settings=settings) as house:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        reader = apsw.Connection(str(house.data / "everpost.db"))
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM messages").fetchall()
        sent = 0
        while not _alarm(house):
            assert sent < 40, _log_bytes(house)
            large = email(f"u{sent}", text=base64.b64encode(os.urandom(500_000)).decode())
            assert house.post("/emails", large).status == 200
            sent += 1
        grown = _log_bytes(house)
        assert grown > 4 * _MIB
        house.wait_status(house.send(to=["meanwhile@receiver.test"]), "delivered")
        reader.execute("ROLLBACK")
        reader.close()
        wait_until(lambda: not _alarm(house), seconds=20, what="the end of the alarm")
        assert _log_bytes(house) <= _MIB
        assert drain(house)["delivered"] == sent + 1
        assert house.findings() == []


@pytest.mark.long
def test_it_holds_the_write_lock(tmp_path: Path) -> None:
    """For three seconds, which is waited out, and for longer, which is not."""
    with FarEnd() as far, House(tmp_path / "d", processes=1) as house:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        statuses: list[int] = []
        holder = apsw.Connection(str(house.data / "everpost.db"))
        holder.set_busy_timeout(10_000)

        def post(name: str) -> None:
            answer = house.post("/emails", email(name))
            if answer.status == 503:
                assert int(answer.headers["retry-after"]) >= 1
            statuses.append(answer.status)

        (pid,) = house.children("api")
        holder.execute("BEGIN IMMEDIATE")
        timer = threading.Event()
        waiting = threading.Thread(target=post, args=("waits",))
        before = _cpu_s(pid)
        waiting.start()
        timer.wait(3)
        assert house.get("/emails").status == 200
        assert waiting.is_alive()
        assert _cpu_s(pid) - before < 1.5  # it waits, it does not spin
        holder.execute("ROLLBACK")
        waiting.join(20)
        assert statuses == [200]

        holder.execute("BEGIN IMMEDIATE")
        post("refused")
        assert statuses == [200, 503]
        holder.execute("ROLLBACK")
        holder.close()
        wait_until(
            lambda: "store_unavailable" not in house.get("/status").json["alarms"],
            seconds=20,
            what="the end of the alarm",
        )
        post("after")
        assert statuses == [200, 503, 200]
        assert drain(house)["delivered"] == 2
        assert copies(far) == {"waits": 1, "after": 1}
        assert not logged(house, "http.error")


def test_it_copies_the_store(tmp_path: Path) -> None:
    with FarEnd() as far, House(tmp_path / "d", processes=1) as house:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        stop = threading.Event()
        statuses: list[int] = []

        def client(n: int) -> None:
            while not stop.is_set():
                statuses.append(house.post("/emails", email(f"c{n}")).status)

        clients = [threading.Thread(target=client, args=(n,)) for n in range(4)]
        for thread in clients:
            thread.start()
        wait_until(lambda: len(statuses) > 40, seconds=20, what="traffic")
        copy = tmp_path / "copy.db"
        source = apsw.Connection(str(house.data / "everpost.db"))
        try:
            source.execute("VACUUM INTO ?", (str(copy),))
        finally:
            stop.set()
            source.close()
            for thread in clients:
                thread.join(20)
        assert set(statuses) == {200}
        outcome = verify_store(FileStore(copy), processes=1, each=lambda *_: None)
        assert not outcome.findings.kept
        assert 40 < outcome.checked.messages <= len(statuses)
        assert drain(house)["delivered"] == len(statuses)
