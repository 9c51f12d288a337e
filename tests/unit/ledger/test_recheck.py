"""Damage that was a moment's: the file is checked again until it is sound, which ends the alarm."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from everpost import telemetry
from everpost.ledger import Recheck
from everpost.store.interface import StoreCorrupt
from everpost.store.sqlite import SqliteStore
from tests.conformance.making import HandClock

ALARM = telemetry.alarm("store_corrupt")


class Ailing(SqliteStore):
    """Answers what it is told to, one after the other."""

    def __init__(self, folder: Path, *answers: Sequence[str] | Exception) -> None:
        super().__init__(folder / "s.db", clock=HandClock())
        self.answers = list(answers)

    async def engine_check(self) -> Sequence[str]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """It is the process's: a test before may have left it raised."""
    ALARM.clear()
    yield
    ALARM.clear()


def _until_asked(store: Ailing) -> None:
    async def scene() -> None:
        running = asyncio.create_task(Recheck(store, first_s=0).run())
        async with asyncio.timeout(10):
            while store.answers:
                await asyncio.sleep(0)
            for _ in range(5):  # with more questions it would fail
                await asyncio.sleep(0)
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scene())


def test_the_alarm_stands_until_the_file_is_found_sound(tmp_path: Path) -> None:
    store = Ailing(tmp_path, ["row 7 missing"], StoreCorrupt("unreadable"), [])
    ALARM.raise_()
    _until_asked(store)
    assert not ALARM.raised


def test_a_sound_store_is_checked_without_need(tmp_path: Path) -> None:
    store = Ailing(tmp_path)

    async def scene() -> None:
        running = asyncio.create_task(Recheck(store, first_s=0).run())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scene())
