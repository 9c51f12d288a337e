"""What one process has in hand: which claims, how many of each route, what waits to start.

Bookkeeping and the order of starting; who may take a slot is `fairness`' word. No I/O, no clock.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from everpost.dispatch.dots import Dot
from everpost.dispatch.fairness import fits, is_greedy, may_take
from everpost.store.interface import CLAIMED_BYTES, Claim, Claimed, Settlement

__all__ = ["Hands", "Work", "by_destination"]

_SHARE = 4
"""One claim takes at most this part of the free window, whatever route it comes from: a single
claim must not fill what newcomers live on."""

_COPIES = 5
"""How often a message stands in memory while it is carried, at most: as content, composed,
assembled, framed for the wire, and what the transport has not passed on yet."""


_RECIPIENTS = 100
"""Of one transaction to an MX host: as many as every server must take (RFC 5321 §4.5.3.1.8)."""


class Work:
    """What goes out in one transaction: the recipients claimed of one message. `destination` is
    empty where they have several. `weight`: bytes that it takes in memory while it is carried; 0
    for a small one, which the window bounds. `since`: when it was claimed, in monotonic seconds."""

    __slots__ = ("claimed", "destination", "dotted", "on_its_way", "route", "since", "weight")

    def __init__(self, claimed: Claimed, *, since: float = 0.0) -> None:
        first = claimed.claims[0]
        self.claimed = claimed
        self.since = since
        self.route = first.route
        self.destination = first.destination
        if len(claimed.claims) > 1 and any(
            claim.destination != first.destination for claim in claimed.claims
        ):
            self.destination = ""
        self.weight = claimed.size * _COPIES if claimed.size > CLAIMED_BYTES else 0
        self.dotted = False
        """The final dot may have left."""
        self.on_its_way = False
        """Started, and delivery does not know of it yet."""


def by_destination(claimed: Claimed) -> Iterator[Claimed]:
    """What was claimed of one message, cut into what one MX host can be given at once."""
    parts: dict[str, list[Claim]] = {}
    for claim in claimed.claims:
        parts.setdefault(claim.destination, []).append(claim)
    for claims in parts.values():
        for at in range(0, len(claims), _RECIPIENTS):
            yield msgspec.structs.replace(claimed, claims=tuple(claims[at : at + _RECIPIENTS]))


class Hands:
    """`window`: claims in hand at most; `batch`: claimed at once at most; `window_bytes`: memory
    that large messages may take while they are carried."""

    def __init__(self, *, window: int, batch: int, window_bytes: int) -> None:
        self._window = window
        self._window_bytes = window_bytes
        self._batch = batch
        self._claims: dict[Dot, Claim] = {}
        self._held: Counter[str] = Counter()
        self._pending: dict[bool, dict[str, deque[Work]]] = {False: {}, True: {}}
        self._carrying = 0
        self._on_their_way = 0
        self._carried: Counter[str] = Counter()
        self._bytes = 0
        self._carried_bytes: Counter[str] = Counter()
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
                _take(self._held, claim.route, 1)
        held = len(self._claims)
        slack = self._batch // _SHARE
        return any(
            may_take(self._held[route] + slack, held=held + slack, capacity=self._window)
            for route in self._refused
        )

    # -- what waits to start -----------------------------------------------------------------------

    def queue(self, work: Work, *, broadcast: bool) -> None:
        self._pending[broadcast].setdefault(work.route, deque()).append(work)

    def startable(self, free: int, most: int | None = None) -> Iterator[Work]:
        """Work that may start while delivery has `free` slots: transactional mail first, routes in
        turn, none beyond its fair share, nor beyond `most` slots. Each that is taken counts as
        carried at once.

        A large message that finds no room in memory is the next large one to start, or lighter ones
        would pass it for ever; small ones do not wait for it.
        """
        capacity = self._carrying + max(free - self._on_their_way, 0)
        large_may = True
        for lanes in (self._pending[False], self._pending[True]):
            started = True
            while started and lanes and self._carrying < capacity:
                started = False
                for route in tuple(lanes):
                    if most is not None and self._carried[route] >= most:
                        continue
                    if not may_take(self._carried[route], held=self._carrying, capacity=capacity):
                        if self._carrying >= capacity:
                            return
                        continue
                    work = lanes[route][0]
                    if work.weight and (not large_may or self._is_greedy(work)):
                        continue
                    if work.weight and not self._fits(work):
                        large_may = False
                        continue
                    self._start(lanes, work)
                    started = True
                    yield work

    def _fits(self, work: Work) -> bool:
        return fits(work.weight, held=self._bytes, capacity=self._window_bytes)

    def _is_greedy(self, work: Work) -> bool:
        held_by_route = self._carried_bytes[work.route]
        return is_greedy(work.weight, held_by_route, held=self._bytes, capacity=self._window_bytes)

    def _start(self, lanes: dict[str, deque[Work]], work: Work) -> None:
        """Take the first of its lane; the lane goes behind all others."""
        lane = lanes.pop(work.route)
        lane.popleft()
        if lane:
            lanes[work.route] = lane
        work.on_its_way = True
        self._on_their_way += 1
        self._carrying += 1
        self._carried[work.route] += 1
        if work.weight:
            self._bytes += work.weight
            self._carried_bytes[work.route] += work.weight

    def arrives(self, work: Work) -> None:
        """Delivery is told of it now, and counts its slot itself from here on."""
        if work.on_its_way:
            work.on_its_way = False
            self._on_their_way -= 1

    def carried(self, work: Work) -> None:
        """Its slot and its memory are free again."""
        self.arrives(work)
        self._carrying -= 1
        _take(self._carried, work.route, 1)
        if work.weight:
            self._bytes -= work.weight
            _take(self._carried_bytes, work.route, work.weight)

    def give_back(self) -> Sequence[Claim]:
        """Everything that waits to start, taken out of the order of starting."""
        waiting = [w for lanes in self._pending.values() for lane in lanes.values() for w in lane]
        self._pending = {False: {}, True: {}}
        return [claim for work in waiting for claim in work.claimed.claims]


def _take(counts: Counter[str], route: str, n: int) -> None:
    counts[route] -= n
    if counts[route] <= 0:
        del counts[route]
