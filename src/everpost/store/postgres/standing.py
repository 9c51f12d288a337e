"""What the lanes of a store last saw of their server."""

import threading
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from everpost.clock import Clock
from everpost.model.message import Assurance
from everpost.store.cluster import StoreState
from everpost.store.interface import StoreUnavailable
from everpost.store.postgres.durability import Facts, Judgement, judge
from everpost.store.postgres.time import DatabaseClock

__all__ = ["Heard", "Standing"]

_BRIEFLY_NS: Final = 3_000_000_000
"""Without a synchronous standby for so long, another one is usually taken; what is written
meanwhile waits. After that it is refused at once."""

_FACTS: Final = 7
"""Columns of facts in `begin`; `standing` has one more."""


class Heard(NamedTuple):
    """A server's time, for leases as well, and what it is worth. `promise`: what a COMMIT waits
    for, by its settings."""

    now: int
    steady: int
    judged: Judgement
    promise: tuple[str, str]

    def demand(self) -> Assurance:
        """What its COMMIT will mean. Raises StoreUnavailable when nothing may be written there."""
        if self.judged.problems or not self.judged.writable:
            raise StoreUnavailable("; ".join(self.judged.problems))
        return self.judged.assurance


class Standing:
    """Shared by a store's lanes. `clock` None: the database's time. `standbys`: how many must have
    what is acknowledged; `relaxed`: nothing is asked of the server's settings."""

    def __init__(self, *, clock: Clock | None, standbys: int, relaxed: bool) -> None:
        self._database = DatabaseClock()
        self.clock: Clock = self._database if clock is None else clock
        self._given = clock
        self._standbys = standbys
        self._relaxed = relaxed
        self._lock = threading.Lock()
        self._timeline = 0
        self._connected: int | None = None
        self._short_since: int | None = None
        self._trouble = "no server has answered yet"
        self._judged: dict[Facts, Judgement] = {}
        self._last = Judgement(False, (), Assurance.COMMITTED)

    def asking(self) -> int:
        """Before BEGIN or a look: what `heard` and `looked` need."""
        return self._database.started()

    def heard(self, row: Sequence[Any], *, since: int) -> Heard:
        """A server answered `begin`."""
        return self._heard(row, since, self._connected if self._short_for_long(since) else None)

    def looked(self, row: Sequence[Any], *, since: int) -> Heard:
        """A server answered `standing`."""
        *row, connected = row
        with self._lock:
            self._connected = connected if connected >= 0 else None
            if self._connected is None or self._connected >= self._standbys:
                self._short_since = None
            elif self._short_since is None:
                self._short_since = since
        heard = self._heard(row, since, self._connected)
        self._last = heard.judged
        return heard

    def _short_for_long(self, at: int) -> bool:
        short = self._short_since
        return short is not None and at - short > _BRIEFLY_NS

    def _heard(self, row: Sequence[Any], since: int, connected: int | None) -> Heard:
        said_ms = row[0]
        self._database.learn(said_ms, since=since)
        facts = Facts._make((*row[1 : 1 + _FACTS], connected))
        with self._lock:
            judged = self._judged.get(facts)
            if judged is None:
                judged = judge(
                    facts, standbys=self._standbys, relaxed=self._relaxed, oldest=self._timeline
                )
                self._judged = {facts: judged}
                if judged.writable and facts.timeline > self._timeline:
                    self._timeline = facts.timeline
            if self._trouble or judged.problems:
                self._last = judged
            self._trouble = ""
        given, promise = self._given, (facts.commit, facts.names)
        if given is not None:
            return Heard(given.now(), given.steady(), judged, promise)
        return Heard(said_ms, said_ms, judged, promise)

    def silent(self, error: BaseException) -> None:
        """No server answered."""
        self._trouble = str(error).strip() or type(error).__name__

    def state(self) -> StoreState:
        judged, trouble = self._last, self._trouble
        return StoreState(
            reachable=not trouble,
            writable=not trouble and judged.writable,
            durable=not trouble and judged.durable,
            problems=(trouble,) if trouble else judged.problems,
            timeline=self._timeline,
            standbys=self._connected or 0,
            skew_ms=self._database.skew_ms,
        )
