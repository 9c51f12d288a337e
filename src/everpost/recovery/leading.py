"""Which process of all nodes does what only one may do: a lease in the store, with a term."""

import asyncio

from everpost import telemetry
from everpost.clock import Clock
from everpost.ids import Id
from everpost.store.interface import Sharing, StoreError

__all__ = ["Leading"]

_FAREWELL_S = 2.0
_RENEWED = 2
_ASKED = 8
"""A lease is renewed after a half of it, since that is a write; another's is looked at after an
eighth, which is none."""


class Leading:
    """One process's wish to hold the lease `name`. `lease_s`: so long another one waits for a
    leader that is gone."""

    def __init__(
        self, name: str, *, owner: Id, store: Sharing, clock: Clock, lease_s: float = 8.0
    ) -> None:
        self._name = name
        self._owner = owner
        self._store = store
        self._clock = clock
        self._lease_ms = int(lease_s * 1000)
        self._until: int | None = None
        self._ask_again = 0
        self.term: int | None = None
        """Of the lease that is ours; another one means that others may have led meanwhile."""

    @property
    def leads(self) -> bool:
        """Whether it is ours still. Our trust counts from before we asked, so it ends before the
        lease does; a process that was stopped meanwhile finds that it is over."""
        return self._until is not None and self._clock.steady() < self._until

    async def ask(self) -> bool:
        """Take or renew it where that is due; whether it is ours. Raises StoreError."""
        began = self._clock.steady()
        if not self.leads or began >= self._ask_again or self._ask_again > began + self._lease_ms:
            await self._ask(began)
        return self.leads

    async def _ask(self, began: int) -> None:
        if self._until is None and self._waits(began):
            return
        term = await self._store.lead(self._name, self._owner, lease_ms=self._lease_ms)
        self._ask_again = began + self._lease_ms // (_ASKED if term is None else _RENEWED)
        self._until = None if term is None else began + self._lease_ms
        if term is not None and term != self.term:
            telemetry.event("lead.taken", lease=self._name, term=term)
        elif term is None and self.term is not None:
            telemetry.event("lead.lost", lease=self._name, term=self.term)
        self.term = term

    def _waits(self, now: int) -> bool:
        """The lease was another's a moment ago. A time that lies far ahead was of a clock that has
        been set back since."""
        return now < self._ask_again <= now + self._lease_ms

    async def step_down(self) -> None:
        """Give it back, if it is ours."""
        if self._until is None:
            return
        self._until, self._ask_again, self.term = None, 0, None
        try:
            async with asyncio.timeout(_FAREWELL_S):
                await self._store.yield_lead(self._name, self._owner)
        except (StoreError, TimeoutError):
            pass  # it ends by itself
