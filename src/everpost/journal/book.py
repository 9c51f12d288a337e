"""The journal of one node: the file behind it, what of it waits for the store, and its bounds."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from everpost import telemetry
from everpost.ids import Id
from everpost.journal.entry import Entry, decode, encode
from everpost.model.message import Assurance
from everpost.store.interface import StoreUnavailable
from everpost.store.journal_rows import JournalRow, JournalSize, NewJournalRow

__all__ = ["Book", "Held", "Journal", "JournalLimits"]

_PENDING = telemetry.gauge(
    "everpost_journal_pending", "Journalled requests that no database is known to have yet"
)
_OLDEST = telemetry.gauge(
    "everpost_journal_oldest_seconds", "Age of the oldest journalled request that waits"
)
_BYTES = telemetry.gauge("everpost_journal_bytes", "Size of all that the journal keeps")

_OLD_MS = 60_000
_CROWDED = 0.75
"""Part of the bounds from which what was drained goes earlier than it would."""
_PAGE = 200


class Book(Protocol):
    """The file. Errors are the store's."""

    async def write(self, rows: Sequence[NewJournalRow]) -> Sequence[int]:
        """Flushed when it returns; their numbers, 0 for one that was there."""
        ...

    async def copied(self, number: int) -> None: ...

    async def drained(self, numbers: Sequence[int], *, at: int, timeline: int) -> None:
        """The store has them, since `at`, on that timeline or a later one."""
        ...

    async def damaged(self, numbers: Sequence[int]) -> None:
        """They cannot be read, and wait no longer; they stay for whoever looks."""
        ...

    async def drain_again(self, timeline: int) -> None:
        """What was drained on an older timeline is pending once more."""
        ...

    async def drop(self, *, before: int, most: int = ...) -> int:
        """Remove what was drained before then; how many."""
        ...

    async def remember(self, nodes: Mapping[str, bytes]) -> None: ...

    async def remembered(self) -> Sequence[bytes]: ...

    async def pending(self, *, after: int, most: int) -> Sequence[JournalRow]:
        """Of what no store is known to have, by number; fewer where they are large."""
        ...

    async def still_pending(self, numbers: Sequence[int]) -> Sequence[int]:
        """Of these the ones that no store is known to have, by the entries themselves."""
        ...

    async def row(self, number: int) -> JournalRow | None: ...

    async def size(self) -> JournalSize: ...


class JournalLimits(msgspec.Struct, frozen=True):
    """What the journal keeps at most, peers' copies included. Beyond it, 503."""

    entries: int = 200_000
    octets: int = 1 << 30


class Held:
    """What memory knows of an entry that waits. `number` is 0 until it is written."""

    __slots__ = ("answer", "copied", "expires_at", "fingerprint", "key", "messages", "number",
                 "origin", "project", "settled")  # fmt: skip

    def __init__(self, entry: Entry, *, number: int, copied: bool) -> None:
        key = entry.key
        self.number = number
        self.origin = entry.origin
        self.project = entry.project
        self.copied = copied
        self.messages = tuple(message.id for message in entry.messages)
        self.key = None if key is None else key.key
        self.fingerprint = b"" if key is None else key.fingerprint
        self.answer = b"" if key is None else key.answer
        self.expires_at = 0 if key is None else key.expires_at
        self.settled: asyncio.Event | None = None
        """Set once it is written, or is known not to be."""

    @property
    def assurance(self) -> Assurance:
        return Assurance.JOURNAL_PEER if self.copied else Assurance.JOURNAL


class Journal:
    """One per process, used from its event loop. `low`: whether the disk is short of room. `news`
    is set whenever something waits that did not before."""

    def __init__(
        self,
        book: Book,
        *,
        node: str,
        limits: JournalLimits | None = None,
        low: Callable[[], bool] = lambda: False,
    ) -> None:
        self.book = book
        self.node = node
        self.news = asyncio.Event()
        self._limits = limits or JournalLimits()
        self._low = low
        self._size = JournalSize()
        self._added = 0
        self._added_octets = 0
        self.refused: set[int] = set()
        """Of what waits, the entries that the store would not have when they were last tried."""
        self._by_number: dict[int, Held] = {}
        self._by_message: dict[Id, Held] = {}
        self._by_key: dict[tuple[int, str], Held] = {}

    # --- what waits -------------------------------------------------------------------------------

    async def load(self) -> None:
        """Learn what the file holds. Raises StoreError."""
        after = 0
        while rows := await self.book.pending(after=after, most=_PAGE):
            for row in rows:
                self.learn(row)
            after = rows[-1].number
        await self.measure()
        if self._by_number:
            self.news.set()

    def learn(self, row: JournalRow) -> Entry | None:
        """The entry of a row, known from now on; None: it is damaged."""
        if row.body is None:
            return None
        try:
            entry = decode(row.body)
        except ValueError:
            return None
        if row.number not in self._by_number:
            self._know(Held(entry, number=row.number, copied=row.copied))
        return entry

    def _know(self, held: Held) -> None:
        if held.number:
            self._by_number[held.number] = held
        for message in held.messages:
            self._by_message[message] = held
        if held.key is not None:
            self._by_key.setdefault((held.project, held.key), held)

    def _forget(self, held: Held) -> None:
        self._by_number.pop(held.number, None)
        self.refused.discard(held.number)
        for message in held.messages:
            self._by_message.pop(message, None)
        if held.key is not None and self._by_key.get((held.project, held.key)) is held:
            del self._by_key[held.project, held.key]

    def numbers(self) -> set[int]:
        """Of all that wait, as far as this process knows."""
        return set(self._by_number)

    @property
    def waiting(self) -> int:
        """How many entries wait, as far as this process knows."""
        return len(self._by_number)

    @property
    def moving(self) -> int:
        """How many of these are handed over as soon as there is a store."""
        return len(self._by_number) - len(self.refused)

    def find(self, project: int, message: Id) -> Held | None:
        """The entry that waits with this message."""
        held = self._by_message.get(message)
        return held if held is not None and held.number and held.project == project else None

    def alone(self) -> list[Held]:
        """What this node has accepted, and no other has."""
        held = self._by_number.values()
        return [each for each in held if each.origin == self.node and not each.copied]

    def is_copied(self, number: int) -> bool:
        held = self._by_number.get(number)
        return held is not None and held.copied

    async def under(self, project: int, key: str, *, now: int) -> Held | None:
        """What waits under a caller's key. Returns without a pause where there is nothing."""
        while (held := self._by_key.get((project, key))) is not None:
            if held.settled is not None and not held.number:
                await held.settled.wait()
                continue
            return held if held.expires_at > now else None
        return None

    # --- taking -----------------------------------------------------------------------------------

    @property
    def taking(self) -> bool:
        """Whether it takes one more."""
        return (
            not self._low()
            and not telemetry.alarm("journal_unavailable").raised
            and self._size.entries + self._added < self._limits.entries
            and self._size.octets + self._added_octets < self._limits.octets
        )

    @property
    def crowded(self) -> bool:
        """Whether what was drained should make room."""
        return (
            self._size.entries > _CROWDED * self._limits.entries
            or self._size.octets > _CROWDED * self._limits.octets
        )

    async def put(self, entry: Entry) -> tuple[Held, bytes]:
        """Write what this node accepts; flushed when it returns. Its key answers for it from the
        call on. Raises StoreUnavailable: then nothing of it is there."""
        body = encode(entry)
        self._refuse_too_much(len(body))
        held = Held(entry, number=0, copied=False)
        held.settled = asyncio.Event()
        self._know(held)
        try:
            (held.number,) = await self.book.write([_row(entry, body)])
        finally:
            held.settled.set()
            if not held.number:
                self._forget(held)
        self._by_number[held.number] = held
        self._count(1, len(body))
        return held, body

    async def hold(self, entries: Sequence[tuple[Entry, bytes]]) -> None:
        """Write copies of what a peer accepts; flushed when it returns. Raises StoreUnavailable."""
        self._refuse_too_much(sum(len(body) for _, body in entries))
        numbers = await self.book.write([_row(entry, body) for entry, body in entries])
        for number, (entry, body) in zip(numbers, entries, strict=True):
            if number:  # else it was there, and may be drained already
                self._know(Held(entry, number=number, copied=True))
                self._count(1, len(body))

    def _refuse_too_much(self, more: int) -> None:
        if not self.taking or self._size.octets + self._added_octets + more > self._limits.octets:
            raise StoreUnavailable("the journal takes no more")

    def _count(self, entries: int, octets: int) -> None:
        self._added += entries
        self._added_octets += octets
        self.news.set()

    async def copied(self, held: Held) -> None:
        """A peer has it. Only memory must know at once."""
        held.copied = True
        await self.book.copied(held.number)

    # --- draining ---------------------------------------------------------------------------------

    async def drained(self, numbers: Sequence[int], *, at: int, timeline: int) -> None:
        """The store has these: it answers for them now."""
        await self.book.drained(numbers, at=at, timeline=timeline)
        self._let_go(numbers)

    async def missed(self, numbers: Sequence[int]) -> None:
        """A look through all that waits did not come by these. Another process of this node has
        handed them over (when one takes another's place both have the file), or else the file's
        index is damaged: a start finds and mends that."""
        waiting = set(await self.book.still_pending(numbers))
        if waiting:
            telemetry.alarm("journal_damaged").raise_(hidden=len(waiting), mended_by="a restart")
        self._let_go([number for number in numbers if number not in waiting])

    async def damaged(self, numbers: Sequence[int]) -> None:
        """These cannot be read."""
        telemetry.alarm("journal_damaged").raise_(entries=len(numbers))
        await self.book.damaged(numbers)
        self._let_go(numbers)

    def _let_go(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            held = self._by_number.get(number)
            if held is not None:
                self._forget(held)

    async def measure(self, now: int | None = None) -> JournalSize:
        """Look at the file, and show what is found; `now` in milliseconds, for ages."""
        added, octets = self._added, self._added_octets
        size = self._size = await self.book.size()
        self._added -= added
        self._added_octets -= octets
        _PENDING.set(size.pending)
        _BYTES.set(size.octets)
        if now is not None:
            age = 0 if size.oldest is None else max(0, now - size.oldest)
            _OLDEST.set(age / 1000)
            alarm = telemetry.alarm("journal_pending")
            if age > _OLD_MS:
                alarm.raise_(entries=size.pending, seconds=age // 1000)
            elif alarm.raised:
                alarm.clear()
        return size


def _row(entry: Entry, body: bytes) -> NewJournalRow:
    return NewJournalRow(entry.first, entry.origin, entry.at, body)
