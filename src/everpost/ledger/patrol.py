"""Upkeep's patrol: the books are checked all the time, a few messages at a time, and an alarm
stands while they do not balance.

One process does it, the one that holds the lease `ledger`. Where it is, it writes down now and
then, so that a restart costs no more than half a minute of it. It gives way: while this process or
the machine is busy (the loop came late, or a slice took long), it goes at a tenth of its pace; it
never stops, since a store that is always busy must be checked, too.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec

from everpost import telemetry
from everpost.clock import Clock
from everpost.ids import Id
from everpost.ledger.conservation import judge, judge_parts, judge_totals
from everpost.ledger.findings import KINDS, Finding, said
from everpost.ledger.walk import FIRST, unreadable
from everpost.store.auditing import Auditing
from everpost.store.interface import StoreCorrupt, StoreError
from everpost.store.sharing import Note, Sharing

__all__ = ["LEAD", "Books", "Pass", "Patrol"]

LEAD = "ledger"
"""The lease of the one that patrols, and the kind of its note."""

_LEASE_S = 30.0
_NOTE_S = 30.0
_NOTE_LASTS_MS = 365 * 86_400_000
_SLICE_S = 0.25
"""A slice is what `rate` asks for in so long …"""
_MOST = 1_000
"""… and at most so many messages."""
_PARTS = 4
_IDLE_S = 1.0
_LEAVE_S = 1.0
_MOST_LOGGED = 100
_LATE_S = 0.05
_LONG_S = 0.1
_GIVE_WAY = 10

_CHECKED = telemetry.counter(
    "everpost_ledger_checked_total", "Messages that the patrol has checked"
)
_FINDINGS = telemetry.gauge(
    "everpost_ledger_findings",
    "What the last full pass of the patrol, or the present one, found wrong",
    ("kind",),
)
_LAST_PASS = telemetry.gauge(
    "everpost_ledger_last_pass_seconds", "When the last full pass ended (seconds since 1970 UTC)"
)


class Books(Auditing, Sharing, Protocol):
    """What the patrol needs of the store."""


class Pass(msgspec.Struct):
    """Where a pass is, and what it and the one before found.

    `after`: the last message seen, in hexadecimal; `parts`: how far it is in the large parts, which
    follow, -1 before. `running`: it has begun and not ended. `found` counts by kind, `first` is the
    first finding in words; `stood`, `stood_first` are those of the last full pass, which ended at
    `ended_at` (milliseconds), 0: there was none.
    """

    running: bool = False
    began_at: int = 0
    after: str = ""
    parts: int = -1
    found: dict[str, int] = {}
    first: str = ""
    stood: dict[str, int] = {}
    stood_first: str = ""
    ended_at: int = 0


class Patrol:
    """`rate`: messages a second; `every_s`: a pass begins no sooner after the one before began."""

    def __init__(
        self,
        *,
        owner: Id,
        store: Books,
        clock: Clock,
        rate: float,
        every_s: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._owner = owner
        self._store = store
        self._clock = clock
        self._sleep = sleep
        self._every_ms = int(every_s * 1000)
        self._slice = max(1, min(int(rate * _SLICE_S), _MOST))
        self._pause_s = self._slice / rate
        self._idle_s = max(self._pause_s, min(every_s / 10, _IDLE_S))
        self._leads = False
        self._led_at = self._noted_at = float("-inf")
        self._pass = Pass()
        self._shown: set[str] = set()

    async def run(self) -> None:
        """Slice after slice until cancelled; a failing store delays one, no more."""
        pause = self._pause_s
        try:
            while True:
                due = self._clock.monotonic() + pause
                await self._sleep(pause)
                began = self._clock.monotonic()
                try:
                    pause = self._pause_s if await self.step() else self._idle_s
                except StoreError as error:
                    telemetry.event("ledger.patrol_failed", error=str(error))
                    pause = self._idle_s * _GIVE_WAY
                if began - due > _LATE_S or self._clock.monotonic() - began > _LONG_S:
                    pause *= _GIVE_WAY
        finally:
            if self._leads:
                await asyncio.shield(self._leave())

    async def _leave(self) -> None:
        """Write down where we are, for whoever is next."""
        try:
            async with asyncio.timeout(_LEAVE_S):
                await self._write_down()
                await self._store.yield_lead(LEAD, self._owner)
        except (StoreError, TimeoutError) as error:
            telemetry.event("ledger.patrol_failed", error=str(error))

    async def step(self) -> bool:
        """One slice; False: there is nothing to do for a while."""
        if not await self._lead():
            return False
        at = self._pass
        if not at.running:
            if at.ended_at and 0 <= self._clock.now() - at.began_at < self._every_ms:
                return False
            at.running, at.began_at = True, self._clock.now()
            at.after, at.parts, at.found, at.first = FIRST.hex(), -1, {}, ""
        try:
            ended = await self._slice_of(at)
        except StoreCorrupt as error:
            self._add([unreadable(error, what="rows")])
            ended = True
        if ended:
            at.running, at.ended_at = False, max(self._clock.now(), 1)
            at.stood, at.stood_first = at.found, at.first
            telemetry.event("ledger.pass_ended", findings=sum(at.found.values()))
        self._show()
        if ended or self._clock.monotonic() - self._noted_at >= _NOTE_S:
            await self._write_down()
        return not ended

    async def _slice_of(self, at: Pass) -> bool:
        """The messages first, then the large parts, the sums last; True: that was all."""
        if at.parts < 0:
            page = await self._store.audit_page(bytes.fromhex(at.after), limit=self._slice)
            self._add(judge(page))
            _CHECKED.add(len(page.messages))
            if page.upto is None:
                at.parts = 0
            else:
                at.after = page.upto.hex()
            return False
        parts = await self._store.audit_parts(at.parts, limit=_PARTS)
        self._add(judge_parts(parts))
        if parts.next is not None:
            at.parts = parts.next
            return False
        self._add(judge_totals(await self._store.audit_totals()))
        return True

    async def _lead(self) -> bool:
        """Whether this process patrols; a new leader goes on where the one before was."""
        now = self._clock.monotonic()
        if self._leads and now - self._led_at < _LEASE_S / 3:
            return True
        lease_ms = int(_LEASE_S * 1000)
        leads = await self._store.lead(LEAD, self._owner, lease_ms=lease_ms) is not None
        self._led_at = now
        if leads and not self._leads:
            await self._take_up()
        elif self._leads and not leads:
            self._pass = Pass()  # it is another's to show
            self._show()
        self._leads = leads
        return leads

    async def _take_up(self) -> None:
        _, notes = await self._store.noted([LEAD])
        for note in notes:
            try:
                taken = msgspec.convert(note.data, Pass)
                bytes.fromhex(taken.after)
            except (msgspec.ValidationError, ValueError) as error:
                telemetry.event("ledger.note_unreadable", error=str(error))
            else:
                self._pass = taken
        self._noted_at = self._clock.monotonic()
        self._show()

    async def _write_down(self) -> None:
        self._noted_at = self._clock.monotonic()
        data: dict[str, Any] = msgspec.to_builtins(self._pass)
        note = Note(LEAD, "pass", data, self._clock.now() + _NOTE_LASTS_MS)
        await self._store.note([note])

    def _add(self, found: Sequence[Finding]) -> None:
        at = self._pass
        for finding in found:
            if sum(at.found.values()) < _MOST_LOGGED:
                telemetry.event("ledger.finding", **finding.as_json())
            at.found[finding.kind] = at.found.get(finding.kind, 0) + 1
            at.first = at.first or said(finding)

    def _show(self) -> None:
        """What the last full pass found stands until the next one has ended; what this one has
        found already stands, too."""
        at = self._pass
        stands = {kind: max(at.stood.get(kind, 0), at.found.get(kind, 0)) for kind in KINDS}
        alarm = telemetry.alarm("ledger")
        count = sum(stands.values())
        if count:
            alarm.raise_(findings=count, first=at.stood_first or at.first)
        else:
            alarm.clear()
        for kind, n in stands.items():
            if n or kind in self._shown:
                self._shown.add(kind)
                _FINDINGS.set(n, kind)
        _LAST_PASS.set(at.ended_at / 1000)
