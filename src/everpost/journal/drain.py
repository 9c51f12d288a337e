"""Handing what was journalled to the store, by whoever holds it: the node that accepted, and the
peer with a copy. It is also how a process finds out that the store is back: one try at a time."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from everpost import ids, telemetry
from everpost.clock import Clock
from everpost.journal.book import Journal
from everpost.journal.entry import Entry
from everpost.journal.reach import Reach
from everpost.model.message import Assurance
from everpost.store.cluster import Adopting, Aliased
from everpost.store.interface import StoreError, StoreUnavailable
from everpost.store.journal_rows import JournalRow

__all__ = ["Drain", "pause"]

_DRAINED = telemetry.counter(
    "everpost_journal_drained_total", "Journalled requests that the store took", ("outcome",)
)

_SLICE = 200
_TICK_S = 1.0
_FIRST_S = 0.25
_LONGEST_S = 2.0
_TRY_S = 30.0
"""An engine ends its own tries long before."""
_GRACE_S = 3.0
"""The node that accepted hands over first; its peers only find that it is done."""
_KEEP_MS = 600_000
"""So long after it was drained an entry stays: a failover may take back what it had come to."""
_REFUSED_S = 60.0
_MANY = 5
"""Tries without an answer after which a store that says that it is well is believed."""


def pause(failures: int, chance: float) -> float:
    """Seconds until the next try after so many that failed; `chance` from 0 to 1 spreads the nodes
    of a cluster, so that they do not all come at once. Pure."""
    return min(_FIRST_S * 2.0 ** min(failures - 1, 10), _LONGEST_S) * (0.5 + chance / 2)


class Drain:
    """One per process; `run` until cancelled. `chance` gives numbers from 0 to 1."""

    def __init__(
        self,
        *,
        journal: Journal,
        store: Adopting,
        reach: Reach,
        clock: Clock,
        chance: Callable[[], float],
        grace_s: float = _GRACE_S,
        keep_ms: int = _KEEP_MS,
    ) -> None:
        self._journal = journal
        self._store = store
        self._reach = reach
        self._clock = clock
        self._chance = chance
        self._grace_s = grace_s
        self._keep_ms = keep_ms
        self._timeline = 0
        self._failures = 0
        self._well_since: float | None = None
        self._refused: dict[int, float] = {}
        self._doubted: set[int] = set()

    async def run(self) -> None:
        while True:
            try:
                await self.round()
            except StoreError as error:  # of the journal's own file
                telemetry.event("journal.round_failed", error=str(error))
            await self._rest()

    async def _rest(self) -> None:
        news = self._journal.news
        if self._failures:
            await asyncio.sleep(pause(self._failures, self._chance()))
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_TICK_S):
                await news.wait()
        news.clear()

    async def round(self) -> None:
        """Hand over what can be, remove what has been kept long enough. Raises StoreError where
        the journal's own file fails."""
        await self._follow_the_timeline()
        await self._hand_over()
        now = self._clock.now()
        kept = 0 if self._journal.crowded else self._keep_ms
        while await self._journal.book.drop(before=now - kept):
            pass
        await self._journal.measure(now)

    async def _follow_the_timeline(self) -> None:
        """What an older timeline took may be gone with it: hand it over once more."""
        timeline = self._reach.timeline
        if timeline > self._timeline and self._reach.well:
            await self._journal.book.drain_again(timeline)
            self._timeline = timeline

    async def _hand_over(self) -> None:
        after, unseen = 0, self._journal.numbers()
        while True:
            rows = await self._journal.book.pending(after=after, most=_SLICE)
            if not rows:
                break
            after = rows[-1].number
            unseen.difference_update(row.number for row in rows)
            if not await self._hand_over_these(await self._readable(rows)):
                return
        self._doubted.clear()
        if unseen:
            await self._journal.missed(sorted(unseen))

    async def _hand_over_these(self, entries: list[tuple[int, Entry]]) -> bool:
        """Whether the store has answered. Those of which one was without an answer when they went
        together go one by one, after the others: it may be that one's doing."""
        apart = [each for each in entries if each[0] in self._doubted]
        together = [each for each in entries if each[0] not in self._doubted]
        if entries and not self._known_well:  # one is enough to find out; each time another one
            some = together or apart
            one = some.pop(self._failures % len(some))
            if not await self._adopt([one]):
                if self._failures >= _MANY and self._reach.well:
                    self._put_aside(one, "the store says that it is well, and has no answer to it")
                return False
        due = [each for each in together if self._is_due(each[1])]
        if due and not await self._adopt(due):
            return False
        for each in apart:
            if self._is_due(each[1]) and not await self._adopt([each]):
                self._put_aside(each, "the store has answered for others, and not for this one")
                return False
        return True

    @property
    def _known_well(self) -> bool:
        return self._well_since is not None and not self._reach.away

    def _is_due(self, entry: Entry) -> bool:
        if entry.origin == self._journal.node:
            return True
        since = self._well_since
        return since is not None and self._clock.monotonic() - since >= self._grace_s

    async def _readable(self, rows: Sequence[JournalRow]) -> list[tuple[int, Entry]]:
        now = self._clock.monotonic()
        entries, damaged = [], []
        for row in rows:
            entry = self._journal.learn(row)
            if entry is None:
                damaged.append(row.number)
            elif self._refused.get(row.number, now) <= now:
                entries.append((row.number, entry))
        if damaged:
            await self._journal.damaged(damaged)
        return entries

    async def _adopt(self, entries: Sequence[tuple[int, Entry]]) -> bool:
        """Whether the store answered. All at once: the engine commits them together, in order."""
        timeline = self._reach.timeline  # of the commit, or older
        answers = await asyncio.gather(
            *(self._adopt_one(number, entry) for number, entry in entries)
        )
        taken = [number for (number, _), took in zip(entries, answers, strict=True) if took]
        if taken:
            await self._journal.drained(taken, at=self._clock.now(), timeline=timeline)
        if None in answers:
            if len(entries) > 1:
                self._doubted.update(number for number, _ in entries)
            self._failures += 1
            self._well_since = None
            self._reach.lost("the journal could not be drained")
            return False
        self._failures = 0
        if self._well_since is None:
            self._well_since = self._clock.monotonic()
        self._reach.found()
        return True

    async def _adopt_one(self, number: int, entry: Entry) -> bool | None:
        """True: the store has it. False: it will not have this one now. None: it is away."""
        both = entry.origin != self._journal.node or self._journal.is_copied(number)
        messages = entry.answered(Assurance.JOURNAL_PEER if both else Assurance.JOURNAL)
        try:
            async with asyncio.timeout(_TRY_S):
                answer = await self._store.adopt(entry.project, messages, entry.key)
        except (StoreUnavailable, TimeoutError):
            return None
        except Exception as error:  # this entry's own trouble, not to hold up the others
            self._put_aside((number, entry), repr(error))
            return False
        self._refused.pop(number, None)
        self._journal.refused.discard(number)
        if not self._journal.refused and telemetry.alarm("journal_refused").raised:
            telemetry.alarm("journal_refused").clear()
        if isinstance(answer, Aliased):
            _DRAINED.add(1, "aliased")
            telemetry.event(
                "journal.aliased",
                messages=[ids.text(message.id) for message in messages],
                of=[ids.text(of) for of in answer.of],
            )
        else:
            _DRAINED.add(1, "adopted")
        return True

    def _put_aside(self, each: tuple[int, Entry], why: str) -> None:
        """It is tried again, but nobody waits for it."""
        number, entry = each
        telemetry.alarm("journal_refused").raise_(error=why, message=entry.first)
        self._refused[number] = self._clock.monotonic() + _REFUSED_S
        self._journal.refused.add(number)
