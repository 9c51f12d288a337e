"""What one process has in hand: which claims, and how many of each project, stream and route.

Bookkeeping; who may take more is `fairness`' word. What waits to start is in `waiting`. No I/O, no
clock.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from everpost.dispatch.dots import Dot
from everpost.dispatch.fairness import broadcast_part, left_for, may_take
from everpost.store.interface import Claim, Settlement
from everpost.store.turns import is_group, project_of, stream_of

__all__ = ["Hands"]

_SHARE = 4
"""One claim takes at most this part of the free window, whatever route it comes from: a single
claim must not fill what newcomers live on."""

_SHARE_IN_COMPANY = 8
"""The same while several projects or streams have mail: each waits for the others' claims …"""

_COMPANY = 64
"""… and for so many claims after there were several."""


class Hands:
    """`window`: claims in hand at most; `batch`: claimed at once at most."""

    def __init__(self, *, window: int, batch: int) -> None:
        self._window = window
        self._batch = batch
        self._claims: dict[Dot, Claim] = {}
        self._broadcast: set[Dot] = set()
        self._projects: dict[str, int] = {}
        self._streams: dict[str, int] = {}
        self._routes: dict[str, int] = {}
        self._refused: frozenset[str] = frozenset()
        self._broadcast_refused = False
        self._company = 0

    def __len__(self) -> int:
        return len(self._claims)

    def claims(self) -> Sequence[Claim]:
        return tuple(self._claims.values())

    def holds(self, claim: Claim) -> Claim | None:
        """The same claim (message, recipient and term) as it was last renewed."""
        return self._claims.get((claim.message, claim.n, claim.term))

    def room(self) -> int:
        """How many recipients the next claim may take; 0: none until something is let go. It may
        all be one stream's, so it is a part of what is left to the fullest that may take more."""
        free = self._window - len(self._claims)
        if free <= 0:
            return 0
        left = min((left for left in self._left(free).values() if left > 0), default=free)
        self._company = _COMPANY if len(self._streams) > 1 else max(self._company - 1, 0)
        share = _SHARE_IN_COMPANY if self._company else _SHARE
        return min(max(int(min(left, free)) // share, 1), self._batch)

    def _left(self, free: int, slack: int = 0) -> Mapping[str, float]:
        """By project and stream in hand, how many rows it may take yet after `slack` more."""
        left: dict[str, float] = {}
        for project, n in self._projects.items():
            left[project] = left_for(n + slack, free - slack)
        for stream, n in self._streams.items():
            left[stream] = left_for(n + slack, left[project_of(stream) or stream])
        return left

    def broadcast_room(self) -> int:
        """How many of them may be broadcast mail's: a part of a batch, since the next claim, which
        may be of transactional mail, waits for this one. 0 until enough fit to be worth a claim,
        remembered so that `let_go` can tell of relief."""
        spare = self._broadcast_spare()
        self._broadcast_refused = spare < self._worth_it()
        return 0 if self._broadcast_refused else min(spare, max(self._batch // _SHARE, 1))

    def _broadcast_spare(self) -> int:
        return broadcast_part(self._window) - len(self._broadcast)

    def _worth_it(self) -> int:
        """Broadcast mail comes in batches: it is no reason for a claim of a few rows."""
        return max(min(self._batch, self._window) // _SHARE // 2, 1)

    def busy(self) -> Sequence[str]:
        """Routes, streams and projects that may not take more now; remembered, too."""
        self._refused = frozenset(self._greedy())
        return tuple(self._refused)

    def _greedy(self) -> Iterator[str]:
        left = self._left(self._window - len(self._claims))
        yield from (name for name, n in left.items() if n <= 0)
        for route, n in self._routes.items():
            if not may_take(n, left[stream_of(route) or route]):
                yield route

    def hold(self, claim: Claim, *, broadcast: bool = False) -> None:
        """Take in hand, or renew what is."""
        key = (claim.message, claim.n, claim.term)
        if key not in self._claims:
            self._count(claim.route, 1)
            if broadcast:
                self._broadcast.add(key)
        self._claims[key] = claim

    def let_go(self, rows: Iterable[Claim | Settlement]) -> bool:
        """Forget these; whether one that was refused may take a quarter batch again."""
        for row in rows:
            key = (row.message, row.n, row.term)
            claim = self._claims.pop(key, None)
            if claim is not None:
                self._broadcast.discard(key)
                self._count(claim.route, -1)
        if self._broadcast_refused and self._broadcast_spare() >= self._worth_it():
            return True
        if not self._refused:
            return False
        slack = self._batch // _SHARE
        free = self._window - len(self._claims)
        left = self._left(free, slack)

        def relieved(name: str) -> bool:
            group = name if is_group(name) else stream_of(name) or name
            room = left.get(group, free - slack)
            return room > 0 if is_group(name) else may_take(self._routes.get(name, 0) + slack, room)

        return any(map(relieved, self._refused))

    def _count(self, route: str, by: int) -> None:
        """One more or less of a route. One of an older release is its own stream and project."""
        for counts, name in (
            (self._routes, route),
            (self._streams, stream_of(route) or route),
            (self._projects, project_of(route) or route),
        ):
            held = counts.get(name, 0) + by
            if held:
                counts[name] = held
            else:
                del counts[name]
