"""F10: the write-ahead log is cut or zeroed while nobody runs, or the database file itself is cut.
The service starts with every commit that is whole and says how much of the log it dropped; after a
plain kill -9, with or without the log's index, nothing is missing and nothing is said. Where the
database file is cut, it refuses with a sentence.

Invariants: I1, I8, I20.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.house import House
from tests.support.journal import logged

WIDTH = 24 + 4096


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[House, Path, list[str]]:
    """A house that was killed in the middle of its work, a copy of its data, and its mail."""
    house = House(tmp_path_factory.mktemp("torn") / "d", processes=1)
    house.start()
    ids = [house.send(scheduled_at="in 1 hour") for _ in range(12)]
    house.kill()
    copy = house.data.parent / "as-killed"
    shutil.copytree(house.data, copy, ignore=shutil.ignore_patterns("*.wake", "*.sock"))
    assert (copy / "everpost.db-wal").stat().st_size > 20 * WIDTH
    return house, copy, ids


def start_again(killed: tuple[House, Path, list[str]], change: Callable[[Path], None]) -> House:
    """The house with its data as it was killed, and changed."""
    house, copy, _ = killed
    shutil.rmtree(house.data)
    shutil.copytree(copy, house.data)
    house.log.unlink()
    change(house.data / "everpost.db-wal")
    return house


def kept(house: House, ids: list[str]) -> list[str]:
    return [id_ for id_ in ids if house.get(f"/emails/{id_}").status == 200]


def nothing(_: Path) -> None:
    pass


def without_index(wal: Path) -> None:
    wal.with_name("everpost.db-shm").unlink()


def cut(wal: Path) -> None:
    os.truncate(wal, wal.stat().st_size - 512)


def halved(wal: Path) -> None:
    os.truncate(wal, wal.stat().st_size // 2 + 100)


def zeroed(wal: Path) -> None:
    stored = bytearray(wal.read_bytes())
    stored[-4 * WIDTH :] = bytes(4 * WIDTH)
    wal.write_bytes(stored)


@pytest.mark.parametrize("change", [nothing, pytest.param(without_index, marks=pytest.mark.long)])
def test_a_plain_kill_loses_nothing_and_raises_no_alarm(
    killed: tuple[House, Path, list[str]], change: Callable[[Path], None]
) -> None:
    house = start_again(killed, change)
    with house:
        assert kept(house, killed[2]) == killed[2]
        assert house.get("/status").json["alarms"] == []
        assert logged(house, "store.log_torn") == []


@pytest.mark.parametrize(
    "change",
    [
        cut,
        pytest.param(halved, marks=pytest.mark.long),
        pytest.param(zeroed, marks=pytest.mark.long),
    ],
)
def test_the_logs_end_is_lost(
    killed: tuple[House, Path, list[str]], change: Callable[[Path], None]
) -> None:
    house, ids = start_again(killed, change), killed[2]
    with house:
        left = kept(house, ids)
        assert left == ids[: len(left)]  # the oldest, without a hole
        assert "log_torn" in house.get("/status").json["alarms"]
        (event,) = logged(house, "store.log_torn")
        assert event["dropped"] > 0
        assert event["recovered"] > 0
        assert house.findings() == []
        again = house.send()
        house.wait_status(again, "delivered")
    with house:
        assert "log_torn" not in house.get("/status").json["alarms"]


@pytest.mark.long
def test_the_database_file_is_cut(killed: tuple[House, Path, list[str]]) -> None:
    def file_cut(wal: Path) -> None:
        file = wal.with_name("everpost.db")
        wal.unlink()
        wal.with_name("everpost.db-shm").unlink()
        os.truncate(file, 100)

    house = start_again(killed, file_cut)
    house.start(wait=False)
    assert house.wait_end(30) == 1
    assert "Everpost cannot start: the database is damaged" in house.tail()
    assert "Traceback" not in house.tail()
