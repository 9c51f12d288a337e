"""Whether the store answers, as far as this process has seen."""

import asyncio
from collections.abc import Callable

from everpost import telemetry
from everpost.store.cluster import Standing

__all__ = ["Reach"]

_AWAY = telemetry.gauge(
    "everpost_journal_store_away", "1 while accepts go into the journal without asking the store"
)


class Reach:
    """Lost with a try that failed or had no answer in time, found with the next that succeeds.

    `tried`: whether anybody else is about to find out (something waits in the journal, an answer
    is late): without that, the next caller is to ask again."""

    def __init__(self, standing: Standing, *, news: asyncio.Event) -> None:
        self._standing = standing
        self._news = news
        self._lost = False
        self.tried: Callable[[], bool] = lambda: False

    @property
    def away(self) -> bool:
        """Whether to ask is in vain, most likely."""
        return self._lost and self.tried()

    @property
    def timeline(self) -> int:
        """The store's, as it was last seen."""
        return self._standing.state().timeline

    @property
    def well(self) -> bool:
        """What the store says of itself."""
        state = self._standing.state()
        return state.reachable and state.writable and state.durable

    def lost(self, why: str) -> None:
        if not self._lost:
            self._lost = True
            _AWAY.set(1)
            telemetry.event("journal.store_away", error=why)

    def found(self) -> None:
        if self._lost:
            self._lost = False
            _AWAY.set(0)
            telemetry.event("journal.store_back")
            self._news.set()
