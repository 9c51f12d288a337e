"""F87: The disk of the metrics' files is full, their directory is removed, or something else lies
in its place; and fifty clients ask for metrics and do not read them. Accepting and delivering go
on, no process ends, and counting begins again when it can.

Invariants: I8, I16.
"""

import os
import shutil
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.scrape import admin_port, scrape
from tests.support.waiting import wait_until

_MESSAGES = 30


def _flow(house: House, far: FarEnd) -> None:
    before = len(far.taken)
    for _ in range(_MESSAGES):
        house.send()
    far.wait_taken(before + _MESSAGES)


def _small_disk(folder: Path, mib: int) -> list[str]:
    """A prefix that gives the server's metrics a small file system of their own."""
    folder.mkdir(parents=True)
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    mount = f"mount -t tmpfs -o size={mib}m none '{folder}' && exec \"$@\""
    return ["unshare", "--mount", *user, "--", "sh", "-c", mount, "sh"]


def _alarm(house: House) -> bool:
    return "metrics_off" in house.get("/status").json["alarms"]


def _wait_alarm(house: House, stands: bool) -> None:
    wait_until(lambda: _alarm(house) == stands, seconds=10, what=f"the alarm: {stands}")


@pytest.mark.long
def test_their_disk_is_full(tmp_path: Path) -> None:
    """When a process starts, too: it counts nothing, and does its work."""
    folder = tmp_path / "d" / "run" / "metrics"
    with (
        FarEnd() as far,
        House(tmp_path / "d", prefix=_small_disk(folder, 6), processes=1) as house,
    ):
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        seen = Path(f"/proc/{house.pid}/root{folder}")
        _flow(house, far)
        for path in seen.glob("*_dispatch-1.db"):
            path.unlink()
        filler = seen / "filler"
        with filler.open("wb", buffering=0) as file:
            while _fits(file.fileno()):
                pass
        house.kill_role("dispatch")
        _flow(house, far)
        pids = house.children()
        assert not _counts(house)
        filler.unlink()
        wait_until(lambda: bool(house.send()) and _counts(house), seconds=10, what="counts")
        assert house.children() == pids


def _fits(file: int) -> bool:
    try:
        os.write(file, bytes(4096))
    except OSError:
        return False
    return True


def _counts(house: House) -> bool:
    return any(name.startswith("everpost_attempts_total") for name in scrape(house))


def test_their_directory_is_removed_or_no_directory(tmp_path: Path) -> None:
    folder = tmp_path / "d" / "run" / "metrics"
    with FarEnd() as far, House(tmp_path / "d", processes=1) as house:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        pids = house.children()
        _flow(house, far)
        shutil.rmtree(folder)
        _flow(house, far)
        wait_until(lambda: _counts(house), seconds=10, what="new files")
        wait_until(lambda: _whole_removal(folder), seconds=10, what="a moment between two looks")
        _wait_alarm(house, stands=True)
        _flow(house, far)
        assert scrape(house)["everpost_recipients_accepted_total"] == 3 * _MESSAGES
        folder.unlink()
        _wait_alarm(house, stands=False)
        wait_until(lambda: bool(house.send()) and _counts(house), seconds=10, what="counts")
        assert house.children() == pids


def _whole_removal(folder: Path) -> bool:
    """Put a file in its place. False: a process was quicker to make it anew."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.write_text("")
    except IsADirectoryError:
        return False
    return True


@pytest.mark.long
def test_fifty_clients_ask_and_do_not_read(tmp_path: Path) -> None:
    with (
        FarEnd() as far,
        House(tmp_path / "d", processes=1) as house,
        ExitStack() as stack,
    ):
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        for _ in range(50):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.connect(("127.0.0.1", admin_port(house)))
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 5)
        _flow(house, far)
        assert scrape(house)["everpost_recipients_accepted_total"] >= _MESSAGES
        assert len(house.children()) == 2
