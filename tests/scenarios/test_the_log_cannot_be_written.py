"""F86: The log's disk is full, its directory is gone, or it is a pipe that nobody reads. Accepting
and delivering go on as before; lines are dropped and counted, an alarm stands, and the first line
that gets through again is followed by one that says how many did not.

Invariants: I8, I16.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.scrape import scrape
from tests.support.waiting import wait_until

_MESSAGES = 60
_SLOWER_AT_MOST = 3.0
"""How much longer the same mail may take. A wait for the log would be a wait for ever."""
_NOISE_S = 2.0


def _flow(house: House, far: FarEnd) -> float:
    """Accept and deliver some messages; the seconds that it took."""
    began, before = time.monotonic(), len(far.taken)
    for n in range(_MESSAGES):
        house.send(to=[f"u{n}@receiver.test"])
    far.wait_taken(before + _MESSAGES)
    return time.monotonic() - began


def _alarm(house: House) -> bool:
    return "log_dropped" in house.get("/status").json["alarms"]


def _wait_alarm(house: House, stands: bool) -> None:
    wait_until(lambda: _alarm(house) == stands, seconds=10, what=f"the alarm: {stands}")


def _dropped(house: House) -> float:
    return scrape(house)["everpost_log_dropped_total"]


def _events(text: str) -> Iterator[dict[str, Any]]:
    """The log's events. A line that the full disk tore is no event; all others are whole."""
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            assert len(line) < 1000


def _said_dropped(text: str) -> int:
    return sum(each["lines"] for each in _events(text) if each["event"] == "log.dropped")


def _small_disk(folder: Path) -> tuple[list[str], Path]:
    """A prefix that gives the server a small file system of its own for its log; the folder."""
    logs = folder / "logs"
    logs.mkdir()
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    mount = f"mount -t tmpfs -o size=256k none '{logs}' && mkdir '{logs}/a' && exec \"$@\""
    return ["unshare", "--mount", *user, "--", "sh", "-c", mount, "sh"], logs / "a"


@pytest.mark.long
def test_its_disk_is_full_and_then_its_directory_gone(tmp_path: Path) -> None:
    prefix, logs = _small_disk(tmp_path)
    settings = {"EVERPOST_LOG_FILE": str(logs / "everpost.log")}
    with (
        FarEnd() as far,
        House(
            tmp_path / "d",
            prefix=prefix,
            settings=settings,
            processes=1,
            inside=("tests.support.inside.short_log",),
        ) as house,
    ):
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        seen = Path(f"/proc/{house.pid}/root{logs}")
        log = seen / "everpost.log"
        calm = _flow(house, far)
        assert not _alarm(house)

        filler = seen / "filler"
        with filler.open("wb", buffering=0) as file:
            while _fits(file.fileno()):
                pass
        full = _flow(house, far)
        assert full < _SLOWER_AT_MOST * calm + _NOISE_S
        _wait_alarm(house, stands=True)
        wait_until(lambda: _dropped(house) >= _MESSAGES, seconds=10, what="the count")
        filler.unlink()
        house.send()
        _wait_alarm(house, stands=False)
        wait_until(
            lambda: _said_dropped(log.read_text()) == _dropped(house),
            seconds=10,
            what=lambda: f"{_said_dropped(log.read_text())} of {_dropped(house)} to be said",
        )

        os.rename(log, seen / "everpost.log.1")  # as logrotate does
        wait_until(lambda: _sends_into(house, log), seconds=10, what="a new file")
        assert not _alarm(house)

        before = _dropped(house)
        shutil.rmtree(seen)
        wait_until(
            lambda: bool(house.send()) and _dropped(house) > before, seconds=10, what="a loss"
        )
        gone = _flow(house, far)
        assert gone < _SLOWER_AT_MOST * calm + _NOISE_S
        _wait_alarm(house, stands=True)
        seen.mkdir()
        wait_until(lambda: _sends_into(house, log), seconds=10, what="the file again")
        _wait_alarm(house, stands=False)
        assert len(house.children()) == 2


def _fits(file: int) -> bool:
    try:
        os.write(file, b"x" * 512)
    except OSError:
        return False
    return True


def _sends_into(house: House, log: Path) -> bool:
    house.send()
    return log.exists() and log.stat().st_size > 0


def test_it_is_a_pipe_that_nobody_reads(tmp_path: Path) -> None:
    pipe = tmp_path / "stderr"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        with (
            FarEnd() as far,
            House(
                tmp_path / "d",
                prefix=["sh", "-c", f"exec \"$@\" 2>'{pipe}'", "sh"],
                processes=1,
                inside=("tests.support.inside.short_log",),
            ) as house,
        ):
            house.relay(far.url, tls="none")
            house.domain(signing="unsigned")
            calm = _flow(house, far)  # 64 KiB fit the pipe
            stuck = _flow(house, far) + _flow(house, far)
            assert stuck < 2 * _SLOWER_AT_MOST * calm + _NOISE_S
            _wait_alarm(house, stands=True)
            assert _dropped(house) > 0
            read = bytearray()

            def told() -> bool:
                house.send()
                while piece := _read(reader):
                    read.extend(piece)
                return _said_dropped(read.decode()) >= _dropped(house) and not _alarm(house)

            wait_until(told, seconds=10, what="the lines to be told of")
            assert len(house.children()) == 2
    finally:
        os.close(reader)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return b""
