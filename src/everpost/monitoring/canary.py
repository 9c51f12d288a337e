"""Canaries: finds the relay that answers 250 and loses mail (F72). Doing; `canaries` decides.

One process does this, the one that holds the lease `canary`. It hands a message to intake now and
then, pinned to one relay after the other, and looks into the mailbox that they are sent to. The
record that every message has says which of them the relay took.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol

import msgspec

from everpost import telemetry
from everpost.clock import Clock
from everpost.ids import Id, parse, text
from everpost.intake import Draft, Intake, Prepared
from everpost.model.credential import FULL_ACCESS, Credential
from everpost.model.errors import Refusal
from everpost.model.states import TERMINAL, State
from everpost.monitoring.canaries import Fate, Tally, judged, next_relay, noted, released
from everpost.net.mailbox import MailboxError
from everpost.store.directory import Directory
from everpost.store.interface import DomainRow, MessageRow, Note, Sharing, StoreError

__all__ = ["HEADER", "Canary", "Records"]

HEADER = "X-Canary-Token"

_LEASE = "canary"
_LEASE_S = 30.0
_NOTE_LASTS_MS = 30 * 86_400_000
_EXPIRES = "10 min"
"""A canary that a relay does not take by then says nothing more."""
_TEXT = (
    "This message was sent by Everpost to a mailbox of its own operator, to see whether the relay "
    "that it went through delivers what it accepts. It is removed when it is found.\n"
)
_RESULTS = telemetry.counter(
    "everpost_canaries_total", "Canaries by relay and what came of them", ("relay", "result")
)


class Records(Sharing, Protocol):
    """What the canary needs of the store: notes, a lease, and the record of a message."""

    async def message(self, project: int, message: Id) -> MessageRow | None: ...


class Canary:
    """`look` takes tokens, and removes from the mailbox and returns those that are in it; raises
    MailboxError. `token` makes a random one. `every_s`: each relay gets one so often; `wait_s`:
    after so long it is lost."""

    def __init__(
        self,
        *,
        owner: Id,
        store: Records,
        directory: Directory,
        intake: Intake,
        look: Callable[[Collection[str]], Awaitable[Collection[str]]],
        token: Callable[[], str],
        clock: Clock,
        address: str,
        every_s: float,
        wait_s: float,
    ) -> None:
        self._owner = owner
        self._store = store
        self._directory = directory
        self._intake = intake
        self._look = look
        self._token = token
        self._clock = clock
        self._address = address
        self._every_ms = int(every_s * 1000)
        self._wait_ms = int(wait_s * 1000)
        self._round_s = min(max(min(every_s, wait_s) / 4, 0.25), _LEASE_S / 3)
        self._leads = False
        self._tallies: dict[bytes, Tally] = {}
        self._told: dict[bytes, Tally] = {}
        self._names: dict[bytes, str] = {}
        self._failing = telemetry.alarm("canary_failing")

    async def run(self) -> None:
        """Until cancelled; then the lease is given back."""
        try:
            while True:
                try:
                    await self.round()
                except StoreError as error:
                    telemetry.event("canary.store_away", error=str(error))
                await asyncio.sleep(self._round_s)
        finally:
            if self._leads:
                try:
                    async with asyncio.timeout(2.0):
                        await self._store.yield_lead(_LEASE, self._owner)
                except (StoreError, TimeoutError):
                    pass  # it ends by itself

    async def round(self) -> None:
        """See what has arrived, send what is due, tell what changed; nothing while another process
        leads."""
        term = await self._store.lead(_LEASE, self._owner, lease_ms=int(_LEASE_S * 1000))
        if term is None:
            self._stand_down()
            return
        if not self._leads:
            await self._recall()
            self._leads = True
        self._forget_gone()
        problem = await self._collect() or await self._send()
        if problem is None:
            self._failing.clear()
        else:
            self._failing.raise_(reason=problem)
        await self._tell()

    def _stand_down(self) -> None:
        """Another process leads, and its alarms are what counts."""
        self._leads = False
        self._failing.clear()
        for name in self._names.values():
            _alarm(name).clear()

    async def _recall(self) -> None:
        """What is known from before, in this process or another."""
        _, notes = await self._store.noted((_LEASE,))
        self._tallies = {}
        for note in notes:
            relay = parse(note.key)
            try:
                tally = msgspec.convert(note.data, Tally)
            except msgspec.ValidationError as error:  # a process of another release
                telemetry.event("canary.note_unreadable", error=str(error))
                continue
            if relay is not None:
                self._tallies[relay] = tally
        self._told = dict(self._tallies)

    def _forget_gone(self) -> None:
        now = {row.id: row.name for row in self._directory.now.relays}
        for id_, name in self._names.items():
            if now.get(id_) != name:
                _alarm(name).clear()
        self._names = now
        self._tallies = {id_: tally for id_, tally in self._tallies.items() if id_ in now}
        for id_, tally in self._tallies.items():
            if tally.lies:
                _alarm(now[id_]).raise_(lost=tally.lost)
            else:
                _alarm(now[id_]).clear()

    # --- looking ----------------------------------------------------------------------------------

    async def _collect(self) -> str | None:
        """See what has arrived, and judge by it; why the mailbox cannot be read, or None."""
        if not any(tally.waiting for tally in self._tallies.values()):
            return None
        # The record is read first: what it does not say by now, the mailbox may show.
        fates = {id_: await self._fates(tally) for id_, tally in self._tallies.items()}
        now = self._clock.now()
        try:
            found = await self._look([t for tl in self._tallies.values() for t in tl.looked_for])
        except MailboxError as error:
            return f"the mailbox cannot be read: {error}"
        for id_, tally in list(self._tallies.items()):
            after = judged(tally, found=found, fates=fates[id_], now=now, wait_ms=self._wait_ms)
            self._tallies[id_] = after
            self._count(id_, tally, after)
        self._forget_gone()
        return None

    async def _fates(self, tally: Tally) -> Mapping[str, tuple[Fate, int]]:
        fates: dict[str, tuple[Fate, int]] = {}
        for token, flight in tally.waiting.items():
            project, _, id_ = flight.message.partition("/")
            message = parse(id_) if project.isascii() and project.isdigit() else None
            row = None if message is None else await self._store.message(int(project), message)
            fates[token] = _fate(row, flight.at)
        return fates

    def _count(self, relay: bytes, before: Tally, after: Tally) -> None:
        name = self._names[relay]
        if after.arrived > before.arrived:
            _RESULTS.add(after.arrived - before.arrived, name, "arrived")
        if after.lost > before.lost:
            _RESULTS.add(after.lost - before.lost, name, "lost")
            telemetry.event("canary.lost", relay=name, lost=after.lost, arrived=after.arrived)

    # --- sending ----------------------------------------------------------------------------------

    async def _send(self) -> str | None:
        """One canary, if one is due; why it cannot be sent, or None."""
        now = self._directory.now
        relays = [row for row in now.relays if row.state == "enabled"]
        turn = next_relay(
            [row.id for row in relays],
            self._tallies,
            now=self._clock.now(),
            every_ms=self._every_ms,
        )
        if turn is None:
            return None
        domain = _sender(
            now.domains.values(), {id_ for id_, project in now.projects.items() if project.sandbox}
        )
        if domain is None:
            return "there is no verified domain to send from"
        token = self._token()
        try:
            id_ = await self._accept(domain, turn, token)
        except Refusal as error:
            return f"a canary cannot be sent: {error}"
        self._tallies[turn] = released(
            self._tallies.get(turn, Tally()),
            token,
            message=f"{domain.project}/{text(id_)}",
            now=self._clock.now(),
        )
        _RESULTS.add(1, self._names[turn], "sent")
        return None

    async def _accept(self, domain: DomainRow, relay: Id, token: str) -> Id:
        credential = Credential(project=domain.project, permission=FULL_ACCESS, actor="canary")
        draft = Draft(
            sender=f"Everpost canary <canary@{domain.name}>",
            to=(self._address,),
            subject=f"Canary {token}",
            text=_TEXT,
            headers=((HEADER, token), ("Auto-Submitted", "auto-generated")),
            tags=(("everpost", "canary"),),
            expires_in=_EXPIRES,
            in_doubt="fail",
        )
        message = self._intake.prepare(credential, draft).message
        pinned = Prepared(msgspec.structs.replace(message, only=relay))
        await self._intake.accept(credential, [pinned], answer=b"")
        return message.id

    # --- telling ----------------------------------------------------------------------------------

    async def _tell(self) -> None:
        changed = {i: t for i, t in self._tallies.items() if self._told.get(i) != t}
        if not changed:
            return
        ends = self._clock.now() + _NOTE_LASTS_MS
        await self._store.note([Note(_LEASE, text(i), noted(t), ends) for i, t in changed.items()])
        self._told.update(changed)


def _alarm(relay: str) -> telemetry.Alarm:
    return telemetry.alarm(f"relay_lies:{relay}")


def _sender(domains: "Collection[DomainRow]", sandboxes: set[int]) -> DomainRow | None:
    """The oldest verified domain whose project really sends."""
    able = [d for d in domains if d.status == "verified" and d.project not in sandboxes]
    return min(able, key=lambda domain: domain.id, default=None)


def _fate(row: MessageRow | None, since: int) -> tuple[Fate, int]:
    if row is None:
        return Fate.ENDED, since
    (recipient,) = row.recipients
    if recipient.state is State.DELIVERED:
        return Fate.HANDED, recipient.settled_at or since
    return (Fate.ENDED if recipient.state in TERMINAL else Fate.UNDER_WAY), since
