"""The upkeep role's round: rescue, housekeeping, free space, standing alarms."""

import asyncio
import os
from pathlib import Path
from typing import Protocol

from everpost import telemetry
from everpost.clock import Clock
from everpost.model.states import HeldReason
from everpost.net.wake import WakeListener
from everpost.recovery.children import Children, read_children
from everpost.recovery.company import Company
from everpost.recovery.rescuer import Rescuer
from everpost.store.directory import Directory
from everpost.store.interface import Recovery, StoreError

__all__ = ["Upkeep", "Wakes"]

_FREE = telemetry.gauge("everpost_disk_free_bytes", "Free space where the store lives")
_PURGE_ROUNDS = 60
_PURGE_LIMIT = 5_000


class Wakes(Protocol):
    """Tells the processes of a role to look now."""

    def wake(self, *, everyone: bool = False) -> None: ...


class Upkeep:
    """One process of each node does this. Where several nodes share the store, `company` says what
    one of them does for all. `children`: what the supervisor writes of itself
    (`recovery.children`)."""

    def __init__(
        self,
        *,
        store: Recovery,
        rescuer: Rescuer,
        directory: Directory,
        wake: WakeListener,
        dispatch: Wakes,
        clock: Clock,
        data: Path,
        children: Path,
        company: Company | None = None,
        round_s: float = 1.0,
    ) -> None:
        self._store = store
        self._rescuer = rescuer
        self._directory = directory
        self._wake = wake
        self._dispatch = dispatch
        self._clock = clock
        self._data = data
        self._children = children
        self._company = company
        self._round_s = round_s

    async def run(self) -> None:
        """Round after round until cancelled; a failing store or disk delays a round, no more."""
        rounds = 0
        try:
            while True:
                try:
                    await self._round(purge=rounds % _PURGE_ROUNDS == 0)
                    telemetry.alarm("upkeep_failing").clear()
                except (StoreError, OSError) as error:
                    telemetry.alarm("upkeep_failing").raise_(error=str(error))
                rounds += 1
                await self._wake.wait(self._round_s)
        finally:
            if self._company is not None:
                await asyncio.shield(self._company.step_down())

    async def _round(self, *, purge: bool) -> None:
        stretch_ms = None if self._company is None else self._company.stretch_ms()
        moved = await self._rescuer.lost_workers()
        moved += await self._rescuer.ended_terms(stretch_ms=stretch_ms)
        if self._company is None:
            await self._for_all(purge=purge)
        elif await self._company.leads():
            moved += await self._company.look_after()
            await self._for_all(purge=purge)
        if moved:
            self._dispatch.wake(everyone=True)
        await self._observe()

    async def _for_all(self, *, purge: bool) -> None:
        """The store's own housekeeping, by one process."""
        await self._store.checkpoint()
        while purge:
            gone = await self._store.purge(before=self._clock.now(), limit=_PURGE_LIMIT)
            purge = gone >= _PURGE_LIMIT

    async def _observe(self) -> None:
        free = await asyncio.to_thread(_free_bytes, self._data)
        _FREE.set(free)
        no_way_out = bool(self._directory.now.domains) and not any(
            relay.state == "enabled" for relay in self._directory.now.relays
        )
        _stand(telemetry.alarm("no_relay"), stands=no_way_out)
        # From the store: it stands for as long as one is held, whoever held it (F36).
        poison = HeldReason.POISON in await self._store.held_for()
        _stand(telemetry.alarm("poison"), stands=poison)
        _alarm_of(read_children(self._children))


def _free_bytes(path: Path) -> int:
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize


def _alarm_of(facts: Children | None) -> None:
    """What the supervisor has to report. Without one (roles run by hand) nothing stands."""
    looping = [] if facts is None else [child.name for child in facts.children if child.loops]
    _stand(telemetry.alarm("crash_loop"), stands=bool(looping), children=looping)
    refused = facts is not None and facts.reload.refused
    why = facts.reload.why if facts is not None else ()
    _stand(telemetry.alarm("config_refused"), stands=refused, why=why)


def _stand(alarm: telemetry.Alarm, *, stands: bool, **fields: object) -> None:
    if stands:
        alarm.raise_(**fields)
    else:
        alarm.clear()
