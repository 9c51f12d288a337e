"""What one process has in hand: which claims, how many of each route, what waits to start.

Bookkeeping and the order of starting; who may take a slot is `fairness`' word. No I/O, no clock.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence

from everpost.dispatch.dots import Dot
from everpost.dispatch.fairness import may_take
from everpost.store.interface import Claim, Claimed, Settlement

__all__ = ["Hands", "Work"]

_SHARE = 4
"""One claim takes at most this part of the free window, whatever route it comes from: a single
claim must not fill what newcomers live on."""


class Work:
    """What goes out in one transaction: the recipients claimed of one message."""

    __slots__ = ("claimed", "dotted", "route")

    def __init__(self, claimed: Claimed) -> None:
        self.claimed = claimed
        self.route = claimed.claims[0].route
        self.dotted = False
        """The final dot may have left."""


class Hands:
    """`window`: claims in hand at most; `batch`: claimed at once at most."""

    def __init__(self, *, window: int, batch: int) -> None:
        self._window = window
        self._batch = batch
        self._claims: dict[Dot, Claim] = {}
        self._held: Counter[str] = Counter()
        self._pending: dict[bool, dict[str, deque[Work]]] = {False: {}, True: {}}
        self._carrying = 0
        self._carried: Counter[str] = Counter()
        self._refused: frozenset[str] = frozenset()

    # -- the window --------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._claims)

    def claims(self) -> Sequence[Claim]:
        return tuple(self._claims.values())

    def holds(self, claim: Claim) -> Claim | None:
        """The same claim (message, recipient and term) as it was last renewed."""
        return self._claims.get((claim.message, claim.n, claim.term))

    def room(self) -> int:
        """How many recipients the next claim may take; 0: none until something is let go."""
        free = self._window - len(self._claims)
        return min(max(free // _SHARE, 1), self._batch) if free > 0 else 0

    def busy(self) -> Sequence[str]:
        """Routes that may not take more now; remembered, so that `let_go` can tell of relief."""
        held = len(self._claims)
        self._refused = frozenset(
            route
            for route, n in self._held.items()
            if not may_take(n, held=held, capacity=self._window)
        )
        return tuple(self._refused)

    def hold(self, claim: Claim) -> None:
        """Take in hand, or renew what is."""
        key = (claim.message, claim.n, claim.term)
        if key not in self._claims:
            self._held[claim.route] += 1
        self._claims[key] = claim

    def let_go(self, rows: Iterable[Claim | Settlement]) -> bool:
        """Forget these; whether a route that was refused may take a quarter batch again."""
        for row in rows:
            claim = self._claims.pop((row.message, row.n, row.term), None)
            if claim is not None:
                _take_one(self._held, claim.route)
        held = len(self._claims)
        slack = self._batch // _SHARE
        return any(
            may_take(self._held[route] + slack, held=held + slack, capacity=self._window)
            for route in self._refused
        )

    # -- what waits to start -----------------------------------------------------------------------

    def queue(self, work: Work, *, broadcast: bool) -> None:
        self._pending[broadcast].setdefault(work.route, deque()).append(work)

    def startable(self, free: int) -> Iterator[Work]:
        """Work that may start while `free` slots are: transactional mail first, routes in turn,
        none beyond its fair share. Each that is taken counts as carried at once."""
        capacity = self._carrying + max(free, 0)
        for lanes in (self._pending[False], self._pending[True]):
            started = True
            while started and lanes:
                started = False
                for route in tuple(lanes):
                    held = self._carrying
                    if not may_take(self._carried[route], held=held, capacity=capacity):
                        continue
                    work = lanes[route].popleft()
                    if not lanes[route]:
                        del lanes[route]
                    self._carrying += 1
                    self._carried[route] += 1
                    started = True
                    yield work

    def carried(self, work: Work) -> None:
        """Its slot is free again."""
        self._carrying -= 1
        _take_one(self._carried, work.route)

    def give_back(self) -> Sequence[Claim]:
        """Everything that waits to start, taken out of the order of starting."""
        waiting = [w for lanes in self._pending.values() for lane in lanes.values() for w in lane]
        self._pending = {False: {}, True: {}}
        return [claim for work in waiting for claim in work.claimed.claims]


def _take_one(counts: Counter[str], route: str) -> None:
    counts[route] -= 1
    if counts[route] <= 0:
        del counts[route]
