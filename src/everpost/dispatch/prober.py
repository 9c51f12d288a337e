"""Probes relays, in one process for all of a site: the one that holds the site's lease.

Doing; `probing` decides when. The holder reads what all processes report, so that a relay which
carries mail is left alone. When it dies, another takes over as soon as its lease has ended.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec

from everpost import telemetry
from everpost.clock import Clock
from everpost.delivery.probe import Probed
from everpost.dispatch.health import Exchange, seen_from, view_key
from everpost.dispatch.probing import Seen, may_probe, next_probe, not_ahead, sender_for
from everpost.ids import Id, parse
from everpost.model.health import Health, Standing
from everpost.model.relay import Relay
from everpost.store.interface import DomainRow, Note, Sharing, StoreError

__all__ = ["Prober", "Probes"]

_PROBES = telemetry.counter(
    "everpost_relay_probes_total",
    "Probes of relays: sessions up to MAIL, without a message",
    ("relay", "result"),
)
_NOTE_LASTS_MS = 600_000
_FAREWELL_S = 2.0
_LONGEST_REPORT_MS = 60_000
_LEAST_MS = 500
_NO_PLACE_S = 0.4
"""After so long it is asked again for a place among the relay's connections."""


class Probes(Protocol):
    """What the carrier does for the prober."""

    async def probe(self, relay: bytes, sender: str) -> Probed | None:
        """Probe a relay, and judge it by that; None when there was no place for one more
        connection, or no such relay."""
        ...


class _Reported(msgspec.Struct, frozen=True):
    """A process's report, until it ends."""

    ends_at: int
    relays: Mapping[bytes, Standing]


class Prober:
    """`relays` gives those that delivery knows now; `known`, the last word on their circuits.
    `every_s` is the interval for healthy relays, 0 for never; `least_s`, the least one for those
    out of order; `site`, where this process stands; `lease_s`, how long another process waits at
    most before it takes over; `at_once`, probes under way together; `round_s`, how often the prober
    sees whether one is due."""

    def __init__(
        self,
        *,
        owner: Id,
        store: Sharing,
        carrier: Probes,
        exchange: Exchange,
        relays: Callable[[], Sequence[Relay]],
        domains: Callable[[], Iterable[DomainRow]],
        known: Mapping[bytes, Health],
        clock: Clock,
        rng: random.Random,
        every_s: float,
        least_s: float = 5.0,
        site: str,
        lease_s: float = 8.0,
        at_once: int = 16,
        round_s: float = 0.5,
    ) -> None:
        self._site = site
        self._lease = f"probes/{site}"
        self._owner = owner
        self._store = store
        self._carrier = carrier
        self._exchange = exchange
        self._relays = relays
        self._domains = domains
        self._known = known
        self._clock = clock
        self._rng = rng
        self._every_ms = int(every_s * 1000)
        self._least_ms = max(int(least_s * 1000), _LEAST_MS)
        self._lease_s = lease_s
        self._at_once = at_once
        self._round_s = round_s
        self._away = False
        self._leads_until: float | None = None
        self._ask_again = 0.0
        self._version = 0
        self._since: dict[bytes, int] = {}
        self._jitter: dict[bytes, float] = {}
        self._probed: dict[bytes, tuple[int, bool]] = {}
        self._put_off: dict[bytes, float] = {}
        self._worked: dict[bytes, int] = {}
        self._reports: dict[str, _Reported] = {}
        self._under_way: dict[bytes, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until cancelled; then the lease is given back."""
        try:
            while True:
                try:
                    await self._round()
                    self._away = False
                except StoreError as error:
                    if not self._away:
                        telemetry.event("probes.store_away", error=str(error))
                    self._away = True
                await asyncio.sleep(self._round_s)
        finally:
            for task in self._under_way.values():
                task.cancel()
            await asyncio.gather(*self._under_way.values(), return_exceptions=True)
            await self._step_down()

    async def _round(self) -> None:
        relays = [relay for relay in self._relays() if may_probe(relay)]
        now = self._clock.now()
        self._since = {relay.id: self._since.get(relay.id, now) for relay in relays}
        if not relays:
            await self._step_down()
        elif await self._leads():
            await self._read()
            self._start(relays)

    # --- the lease --------------------------------------------------------------------------------

    async def _leads(self) -> bool:
        """Whether the lease is ours now. It is renewed at half its length, since that is a write;
        whether it is to be had is asked more often, which is none. Our trust in it counts from
        before we asked, so it ends before the lease does."""
        began = self._clock.steady() / 1000
        if began >= self._ask_again:
            term = await self._store.lead(
                self._lease, self._owner, lease_ms=int(self._lease_s * 1000)
            )
            self._ask_again = began + self._lease_s / (8 if term is None else 2)
            if term is None:
                self._leads_until = None
            else:
                if self._leads_until is None:
                    telemetry.event("probes.lead", term=term)
                    self._version = 0
                self._leads_until = began + self._lease_s
        return self._leads_until is not None and self._clock.steady() / 1000 < self._leads_until

    async def _step_down(self) -> None:
        if self._leads_until is None:
            return
        self._leads_until, self._ask_again = None, 0.0
        try:
            async with asyncio.timeout(_FAREWELL_S):
                await self._store.yield_lead(self._lease, self._owner)
        except (StoreError, TimeoutError):
            pass  # it ends by itself

    # --- what the others saw ----------------------------------------------------------------------

    async def _read(self) -> None:
        """Reports of the site's processes, and probes that a former holder made."""
        self._version, notes = await self._store.noted(("report", "probe"), after=self._version)
        now = self._clock.now()
        for note in notes:
            if not seen_from(note, self._site):
                continue
            try:
                self._take(note)
            except msgspec.ValidationError as error:  # a process of another release
                telemetry.event("health.note_unreadable", error=str(error))
        # One that ends later than any does was written before the clock was set back (I22).
        self._reports = {
            k: r for k, r in self._reports.items() if now < r.ends_at <= now + _LONGEST_REPORT_MS
        }

    def _take(self, note: Note) -> None:
        at = msgspec.convert(note.data.get("at"), int)
        if note.kind == "probe":
            if (relay := parse(note.key.partition("/")[0])) is not None:
                refused = note.data.get("ok") is False
                self._probed[relay] = max((at, refused), self._probed.get(relay, (0, False)))
            return
        standings = msgspec.convert(note.data.get("relays"), list[Standing])
        self._reports[note.key] = _Reported(note.expires_at, {s.relay: s for s in standings})
        for standing in standings:
            if standing.worked_at is not None:
                worked = min(standing.worked_at, at)
                self._worked[standing.relay] = max(worked, self._worked.get(standing.relay, 0))

    def _seen(self, relay: Relay) -> Seen:
        id_ = relay.id
        probed_at, refused = self._probed.get(id_, (None, False))
        reported = (report.relays.get(id_) for report in self._reports.values())
        seen = Seen(
            relay=relay,
            health=self._known.get(id_),
            sessions=sum(standing.sessions for standing in reported if standing is not None),
            since=self._since[id_],
            worked_at=self._worked.get(id_),
            probed_at=probed_at,
            refused=refused,
            jitter=self._jitter.setdefault(id_, self._rng.random()),
        )
        return not_ahead(seen, now=self._clock.now())

    # --- probing ----------------------------------------------------------------------------------

    def _start(self, relays: Sequence[Relay]) -> None:
        now, monotonic = self._clock.now(), self._clock.monotonic()
        due: list[tuple[int, Relay]] = []
        for relay in relays:
            if relay.id not in self._under_way:
                at = next_probe(self._seen(relay), every_ms=self._every_ms, least_ms=self._least_ms)
                if at is not None and at <= now and self._put_off.get(relay.id, 0.0) <= monotonic:
                    due.append((at, relay))
        due.sort(key=lambda pair: pair[0])
        for _, relay in due[: max(self._at_once - len(self._under_way), 0)]:
            task = asyncio.create_task(self._probe(relay))
            self._under_way[relay.id] = task
            task.add_done_callback(partial(self._ended, relay.id))

    def _ended(self, relay: bytes, task: "asyncio.Task[None]") -> None:
        del self._under_way[relay]
        if not task.cancelled() and (error := task.exception()) is not None:
            telemetry.event("probes.fault", error=repr(error))
            telemetry.alarm("probes_fault").raise_(error=repr(error))

    async def _probe(self, relay: Relay) -> None:
        probed = await self._carrier.probe(relay.id, sender_for(relay, self._domains()))
        now = self._clock.now()
        if probed is None:
            self._put_off[relay.id] = self._clock.monotonic() + _NO_PLACE_S
            return
        refusal = probed.refusal
        self._probed[relay.id] = (now, refusal is not None)
        self._jitter[relay.id] = self._rng.random()
        _PROBES.add(1, relay.name, "fine" if refusal is None else refusal.phase.value)
        self._exchange.collect()  # what this changed is known from here on
        data: dict[str, Any] = {
            "at": now,
            "ok": refusal is None,
            "refusal": None if refusal is None else str(refusal.reply or refusal.reason),
            "phase": None if refusal is None else refusal.phase.value,
            "took_ms": round(probed.took * 1000, 3),
            "next": next_probe(self._seen(relay), every_ms=self._every_ms, least_ms=self._least_ms),
            "site": self._site,
        }
        key = view_key(relay.id, self._site)
        self._exchange.collect(Note("probe", key, data, now + _NOTE_LASTS_MS))
