"""What a node that ends leaves behind: copies of what waits here and nowhere else. As long as it is
down nobody could hand that over, and it may not be started again."""

import asyncio
from collections.abc import Sequence

from everpost import telemetry
from everpost.journal.accepting import Copying
from everpost.journal.book import Held, Journal
from everpost.store.interface import StoreError

__all__ = ["part"]

_AT_ONCE = 100


async def part(journal: Journal, peers: Copying, *, within_s: float) -> None:
    """Leave them with peers, for at most so many seconds, or until no peer takes any. What was
    answered is kept in any case."""
    waiting = journal.alone()
    if not waiting:
        return
    try:
        async with asyncio.timeout(within_s):
            for at in range(0, len(waiting), _AT_ONCE):
                if not await _copy(journal, peers, waiting[at : at + _AT_ONCE]):
                    break
    except (TimeoutError, StoreError) as error:  # slow peers, or the journal's own file
        telemetry.event("journal.parting_failed", error=repr(error))
    left = len(journal.alone())
    level = "warning" if left else "info"
    telemetry.event("journal.parted", level=level, copied=len(waiting) - left, only_here=left)


async def _copy(journal: Journal, peers: Copying, some: Sequence[Held]) -> bool:
    """Whether a peer took any."""
    return any(await asyncio.gather(*(_copy_one(journal, peers, held) for held in some)))


async def _copy_one(journal: Journal, peers: Copying, held: Held) -> bool:
    row = await journal.book.row(held.number)
    if row is None or row.body is None or not await peers.copy(row.body):
        return False
    await journal.copied(held)
    return True
