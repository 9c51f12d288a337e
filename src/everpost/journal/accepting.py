"""Accepting, with the journal in the place of a store that does not answer."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from everpost import telemetry
from everpost.clock import Clock
from everpost.journal.book import Held, Journal
from everpost.journal.entry import Entry
from everpost.journal.reach import Reach
from everpost.model.message import NewMessage
from everpost.store.interface import (
    Accepted,
    Accepting,
    Conflicting,
    IdempotencyKey,
    Replayed,
    StoreUnavailable,
)

__all__ = ["Copying", "JournalledAccepting"]

_JOURNALLED = telemetry.counter(
    "everpost_journal_accepted_total", "Requests answered from the journal", ("durability",)
)
_WAIT = telemetry.histogram("everpost_journal_seconds", "Journalling a request, its copy included")

_Answer = Accepted | Replayed | Conflicting


class Copying(Protocol):
    """Leaves copies with peers."""

    async def copy(self, body: bytes) -> bool:
        """Whether a peer has it, flushed; within the time that there is for that."""
        ...


class JournalledAccepting:
    """`Accepting` around the store's own. One per process.

    A store that has answered within `patience_s` (seconds) is all there is. One that has not is
    not asked again by anybody but the drain until it has answered somebody. What comes of an
    answer that is late does not matter: the message has the same id in the journal and there.

    `strict` is the same for callers who demand more than the journal gives.
    """

    def __init__(
        self,
        *,
        store: Accepting,
        journal: Journal,
        reach: Reach,
        peers: Copying,
        clock: Clock,
        patience_s: float,
    ) -> None:
        self._store = store
        self._journal = journal
        self._reach = reach
        self._peers = peers
        self._clock = clock
        self._patience_s = patience_s
        self._late: set[asyncio.Future[_Answer]] = set()
        self._marking: set[asyncio.Future[None]] = set()
        self.strict: Accepting = _Strict(self)
        reach.tried = lambda: bool(self._late) or journal.moving > 0

    async def accept(
        self, project: int, messages: Sequence[NewMessage], key: IdempotencyKey | None = None
    ) -> _Answer:
        """As the store's; Accepted and Replayed say where the messages are safe."""
        if (known := await self._known(project, key)) is not None:
            return known
        takes = self._journal.taking
        if not takes or (self._reach.well and not self._reach.away):
            answer = await self._ask(project, messages, key)
            if answer is not None:
                return answer
            if not takes:
                raise StoreUnavailable("no database answers, and the journal takes no more")
        else:
            self._reach.lost("it says so itself")
        return await self._take(project, messages, key)

    async def accept_strictly(
        self, project: int, messages: Sequence[NewMessage], key: IdempotencyKey | None
    ) -> _Answer:
        """By the store, or not at all; as long as the store itself takes for an answer. While it is
        away, at once: those who wait for it must not be in the way of those who need not."""
        if (known := await self._known(project, key)) is not None:
            return known
        if self._reach.away:
            raise StoreUnavailable("no database answers")
        asked = self._asking(project, messages, key)
        await asyncio.wait({asked}, timeout=self._patience_s)
        if not asked.done():
            self._reach.lost("no answer in time")
            await asyncio.wait({asked})
        answer = self._told(asked)
        if answer is None:
            raise StoreUnavailable("the database cannot write now")
        return answer

    async def answered(self, project: int, key: str) -> IdempotencyKey | None:
        """As the store's, with what waits in the journal; StoreUnavailable after `patience_s`."""
        held = await self._journal.under(project, key, now=self._clock.now())
        if held is not None:
            return IdempotencyKey(key, held.fingerprint, held.answer, held.expires_at)
        if self._reach.away:
            raise StoreUnavailable("no database answers")
        try:
            async with asyncio.timeout(self._patience_s):
                return await self._store.answered(project, key)
        except TimeoutError:
            raise StoreUnavailable("the database does not answer in time") from None

    # --- the store --------------------------------------------------------------------------------

    async def _ask(
        self, project: int, messages: Sequence[NewMessage], key: IdempotencyKey | None
    ) -> _Answer | None:
        """The store's answer; None: there is none in time, or it cannot write."""
        asked = self._asking(project, messages, key)
        await asyncio.wait({asked}, timeout=self._patience_s)
        if not asked.done():
            self._reach.lost("no answer in time")
            return None
        return self._told(asked)

    def _asking(
        self, project: int, messages: Sequence[NewMessage], key: IdempotencyKey | None
    ) -> "asyncio.Future[_Answer]":
        """Never cancelled, whoever goes away: a COMMIT may be under way."""
        asked = asyncio.ensure_future(self._store.accept(project, messages, key))
        self._late.add(asked)
        asked.add_done_callback(self._answered_late)
        return asked

    def _told(self, asked: "asyncio.Future[_Answer]") -> _Answer | None:
        """What was answered; None: it cannot be written now."""
        try:
            answer = asked.result()
        except StoreUnavailable as error:
            self._reach.lost(str(error))
            return None
        self._reach.found()
        return answer

    def _answered_late(self, asked: "asyncio.Future[_Answer]") -> None:
        self._late.discard(asked)
        if not asked.cancelled() and asked.exception() is None:
            self._reach.found()

    # --- the journal ------------------------------------------------------------------------------

    async def _known(self, project: int, key: IdempotencyKey | None) -> _Answer | None:
        if key is None:
            return None
        held = await self._journal.under(project, key.key, now=self._clock.now())
        if held is None:
            return None
        return _repeated(held) if held.fingerprint == key.fingerprint else Conflicting()

    async def _take(
        self, project: int, messages: Sequence[NewMessage], key: IdempotencyKey | None
    ) -> _Answer:
        began = self._clock.monotonic()
        if (known := await self._known(project, key)) is not None:  # while the store was asked
            return known
        entry = Entry(
            origin=self._journal.node,
            at=self._clock.now(),
            timeline=self._reach.timeline,
            project=project,
            messages=tuple(messages),
            key=key,
        )
        held, body = await self._journal.put(entry)
        if await self._peers.copy(body):
            self._mark(held)
        _WAIT.observe(self._clock.monotonic() - began)
        _JOURNALLED.add(1, held.assurance.value)
        return Accepted(held.assurance)

    def _mark(self, held: Held) -> None:
        """Nobody waits for the file to say that there is a copy."""
        held.copied = True
        marking = asyncio.ensure_future(self._journal.copied(held))
        self._marking.add(marking)
        marking.add_done_callback(self._marked)

    def _marked(self, marking: "asyncio.Future[None]") -> None:
        self._marking.discard(marking)
        if not marking.cancelled() and (error := marking.exception()) is not None:
            telemetry.event("journal.copy_not_marked", error=str(error))


class _Strict:
    """For callers whom the journal does not suffice."""

    def __init__(self, journalled: JournalledAccepting) -> None:
        self._journalled = journalled

    async def accept(
        self, project: int, messages: Sequence[NewMessage], key: IdempotencyKey | None = None
    ) -> _Answer:
        return await self._journalled.accept_strictly(project, messages, key)

    async def answered(self, project: int, key: str) -> IdempotencyKey | None:
        return await self._journalled.answered(project, key)


def _repeated(held: Held) -> Replayed:
    return Replayed(held.answer, held.assurance)
