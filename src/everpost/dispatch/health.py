"""What dispatch processes tell each other of relays, through notes in the store. Doing.

Each process judges by what it sees itself. What it finds out is written at once and read by the
others within half a second; nothing is written while nothing changes. While the store is away a
process goes on with what it knows, and tells the rest later.

Whether a relay can be reached is seen from somewhere: each site judges relays for itself, and what
a process of another site says of one is for people only (docs/decisions/0031).
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from everpost import telemetry
from everpost.clock import Clock
from everpost.ids import Id, text
from everpost.model.health import Health, Standing
from everpost.store.interface import Note, Sharing, StoreError

__all__ = ["CircuitNews", "Circuits", "Exchange", "Reports", "Topic", "seen_from", "view_key"]

REPORT_S = 2.0
_REPORT_LASTS_MS = 15_000
_REPORT_AGAIN_MS = 10_000
_HEALTH_LASTS_MS = 600_000
"""Beyond a circuit's `until`: a process that starts later learns how often it fell of late."""


class Topic(Protocol):
    """One thing that processes tell each other: notes of `kinds`."""

    kinds: Sequence[str]

    def news(self, now: int) -> Sequence[Note]:
        """What to tell, found out here since the last call."""
        ...

    def learn(self, notes: Sequence[Note]) -> None:
        """What the others told."""
        ...


class Exchange:
    """Takes each topic's news to the store, and brings the others'. `owner` is this process: what
    it wrote itself it does not learn."""

    def __init__(
        self,
        *,
        owner: Id,
        store: Sharing,
        clock: Clock,
        topics: Sequence[Topic],
        look_s: float = 0.5,
    ) -> None:
        self._by = text(owner)
        self._store = store
        self._clock = clock
        self._topics = topics
        self._look_s = look_s
        self._kinds = tuple(kind for topic in topics for kind in topic.kinds)
        self._untold: dict[tuple[str, str], Note] = {}
        self._version = 0
        self._woken = asyncio.Event()
        self._away = False

    def wake(self) -> None:
        """There is news."""
        self._woken.set()

    def collect(self, *more: Note) -> None:
        """Take the topics' news, and these notes, to be written at once."""
        now = self._clock.now()
        notes = [note for topic in self._topics for note in topic.news(now)]
        for note in (*notes, *more):
            signed = msgspec.structs.replace(note, data={**note.data, "by": self._by})
            self._untold[note.kind, note.key] = signed
        if self._untold:
            self._woken.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._woken.clear()
            self.collect()
            try:
                await self._tell()
                await self._hear()
            except StoreError as error:
                if not self._away:
                    telemetry.event("health.store_away", error=str(error))
                self._away = True
                await asyncio.sleep(self._look_s)
                continue
            self._away = False
            await self._wait()

    async def _tell(self) -> None:
        untold = self._untold
        if not untold:
            return
        self._untold = {}
        try:
            await self._store.note(list(untold.values()))
        except StoreError:
            self._untold = {**untold, **self._untold}
            raise

    async def _hear(self) -> None:
        self._version, notes = await self._store.noted(self._kinds, after=self._version)
        theirs = [note for note in notes if note.data.get("by") != self._by]
        if not theirs:
            return
        for topic in self._topics:
            if mine := [note for note in theirs if note.kind in topic.kinds]:
                topic.learn(mine)

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._look_s):
                await self._woken.wait()
        except TimeoutError:
            pass


# --- where it was seen from -----------------------------------------------------------------------


def view_key(relay: Id, site: str) -> str:
    """The key of a note on what nodes of `site` see of a relay."""
    return f"{text(relay)}/{site}"


def seen_from(note: Note, site: str) -> bool:
    """Whether the note was written in `site`, or does not say where (an earlier release's)."""
    return bool(note.data.get("site", site) == site)


# --- circuits -------------------------------------------------------------------------------------


class Circuits(Protocol):
    """What the carrier knows of relays' health."""

    def news(self) -> Sequence[Health]: ...

    def learn(self, known: Iterable[Health]) -> None: ...

    def standing(self) -> Sequence[Standing]: ...


class CircuitNews:
    """Topic: relays' circuits, as nodes of this process's `site` see them. `known` holds the last
    word on each relay, whoever of them said it."""

    kinds: Sequence[str] = ("health",)

    def __init__(self, carrier: Circuits, *, site: str) -> None:
        self._carrier = carrier
        self._site = site
        self.known: dict[bytes, Health] = {}

    def news(self, now: int) -> Sequence[Note]:
        changed = {health.relay: health for health in self._carrier.news()}
        self.known.update(changed)
        return [
            Note(
                "health",
                view_key(relay, self._site),
                {**msgspec.to_builtins(health), "site": self._site},
                max(now, health.until or 0) + _HEALTH_LASTS_MS,
            )
            for relay, health in changed.items()
        ]

    def learn(self, notes: Sequence[Note]) -> None:
        near = [note for note in notes if seen_from(note, self._site)]
        known = [health for note in near if (health := _health(note.data)) is not None]
        self.known.update((health.relay, health) for health in known)
        self._carrier.learn(known)

    def remind(self) -> None:
        """Relays are new here: what was said of them before this process had heard of them counts,
        too. Nothing is learned twice."""
        self._carrier.learn(tuple(self.known.values()))


def _health(data: Mapping[str, Any]) -> Health | None:
    """None for what a process of another release wrote and this one cannot read."""
    try:
        return msgspec.convert(data, Health)
    except msgspec.ValidationError as error:
        telemetry.event("health.note_unreadable", error=str(error))
        return None


# --- reports --------------------------------------------------------------------------------------


class Reports:
    """Topic: what this process saw of each relay, for people and for the prober. Written every two
    seconds while it changes, and from time to time while anything is going on."""

    kinds: Sequence[str] = ()

    def __init__(self, owner: Id, standing: Callable[[], Sequence[Standing]], *, site: str) -> None:
        self._key = text(owner)
        self._site = site
        self._standing = standing
        self._next = 0
        self._told: list[Standing] = []
        self._told_at = 0

    def news(self, now: int) -> Sequence[Note]:
        if abs(self._next - now) < REPORT_S * 1000 and now < self._next:
            return ()
        self._next = now + int(REPORT_S * 1000)
        standing = [s for s in self._standing() if s.tried or s.in_flight or s.sessions]
        if standing == self._told and not (standing and now - self._told_at >= _REPORT_AGAIN_MS):
            return ()
        self._told, self._told_at = standing, now
        data = {"at": now, "relays": msgspec.to_builtins(standing), "site": self._site}
        return [Note("report", self._key, data, now + _REPORT_LASTS_MS)]

    def learn(self, notes: Sequence[Note]) -> None:
        """Nothing: the prober reads them where it leads."""
