"""A damage that the engine met may have been the disk's moment, a read that failed once: while its
alarm stands the whole file is checked again, and a sound one ends it."""

import asyncio

from everpost import telemetry
from everpost.store.auditing import Auditing
from everpost.store.interface import StoreError

__all__ = ["Recheck"]

_ALARM = "store_corrupt"
_MOST_TIMES = 256


class Recheck:
    """Of one process: the alarm is where the damage was met. `first_s`: from the alarm to the first
    check; after one that finds damage it takes twice as long, up to `first_s` × 256, since each
    reads the whole file."""

    def __init__(self, store: Auditing, *, first_s: float = 2.0) -> None:
        self._store = store
        self._first_s = first_s

    async def run(self) -> None:
        """Until cancelled."""
        times = 1
        while True:
            await asyncio.sleep(self._first_s * times)
            if not telemetry.alarm(_ALARM).raised:
                times = 1
            elif await self._sound():
                telemetry.event("store.found_sound")
                telemetry.alarm(_ALARM).clear()
                times = 1
            else:
                times = min(times * 2, _MOST_TIMES)

    async def _sound(self) -> bool:
        try:
            return not await self._store.engine_check()
        except StoreError:  # it cannot be read at all
            return False
