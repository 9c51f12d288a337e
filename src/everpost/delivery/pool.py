"""Which relay carries the next message, and which tiers serve. Pure: facts in, a choice out.

Turns go round by weight, smoothly: each relay has a moment when its next one is due, and the
earliest has it. It is compared with a second, drawn by weight among the others: if what it has in
flight and how long it takes make it clearly dearer, or if its last one failed, the second one gets
the message. So a relay that turns slow gets less before it fails, and is looked at again now and
then.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from itertools import accumulate
from typing import Generic, Protocol, TypeVar

import msgspec

__all__ = ["Candidate", "Entry", "Group", "Turns", "outlier", "serving"]

DEARER = 2.0
"""A relay is passed over when it costs more than this many times as much as the second one."""
AT_EASE = 2.0
"""Transactions in flight, for an average weight, that count for nothing: a few more or less of
them are chance."""
AT_EASE_S = 0.05
"""Seconds that count for nothing either: relays on the same network differ by chance."""
LOOK_AGAIN = 16
LOOK_AGAIN_AT_MOST = 64
"""A relay that was passed over this often has its turn, unless what it has in flight is piling up:
the first for one that is four times as dear or less, the second where it is far more."""
LOOK_AGAIN_SOON = 4
"""The same of a relay whose last transaction failed, which decides soon whether it stays."""
MOST_OWED = 2
"""Turns at half the price, for a relay that was passed over for a moment only."""
LEAST_SHARE = 0.01
RETURN_MARGIN = 1.1
"""The next tier helps until there is so much more than what called it."""
OUTLIER_TIMES = 10.0
OUTLIER_SECONDS = 2.0
"""A relay is an outlier when it takes this many times the median of the others, and this much
longer."""
OUTLIER_OTHERS = 2
"""How many others it takes to tell."""


class Candidate(Protocol):
    """What is known of a relay. `room`: transactions that could start now; `doubtful`: its last one
    failed; `share` (0 to 1): the part of its weight that it may have, `latency`: seconds that a
    transaction takes (0: not known), both at a monotonic second."""

    @property
    def weight(self) -> int: ...
    @property
    def room(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def doubtful(self) -> bool: ...
    def share(self, now: float) -> float: ...
    def latency(self, now: float) -> float: ...


C = TypeVar("C", bound=Candidate)


class Entry(Generic[C]):
    """A relay's place in the turns of one pool. `due`: its next turn, in rounds; `owed`: turns
    at half the price; `passed`: times in a row that it was passed over."""

    __slots__ = ("due", "index", "owed", "passed", "queued", "relay")

    def __init__(self, relay: C) -> None:
        self.relay = relay
        self.due = 0.0
        self.owed = 0
        self.passed = 0
        self.index = 0
        self.queued = False


class Turns(Generic[C]):
    """The turns of the relays that serve a pool. `random` gives numbers in [0, 1). A choice costs
    the logarithm of their number."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._round = 0.0
        self._order = 0
        self._entries: Sequence[Entry[C]] = ()
        self._until: list[int] = []  # sums of weights, for drawing
        self._mean = 1.0
        self._line: list[tuple[float, int, Entry[C]]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def serve(self, entries: Sequence[Entry[C]], *, at_once: Sequence[Entry[C]] = ()) -> None:
        """Replace those that serve. Who comes has its first turn after one of its rounds, whoever
        stays keeps its place; those `at_once` are next."""
        stay = set(self._entries)
        self._entries = tuple(entries)
        weights = [_weight(entry.relay) for entry in entries]
        self._until = list(accumulate(weights))
        self._mean = sum(weights) / len(weights) if weights else 1.0
        for index, entry in enumerate(entries):
            entry.index = index
            if entry not in stay:
                entry.owed = entry.passed = 0
                entry.due = self._round + 1 / weights[index]
        for entry in at_once:
            entry.due = 0.0
        for gone in stay.difference(entries):
            gone.queued = False
        self._line = []
        for entry in entries:
            entry.queued = True
            self._order += 1
            self._line.append((entry.due, self._order, entry))
        heapify(self._line)

    def wake(self, entry: Entry[C]) -> None:
        """It has room again: it takes its turn among the others, and makes up for nothing."""
        if not entry.queued:
            entry.due = max(entry.due, self._round)
            self._push(entry)

    def choose(self, now: float, fits: Callable[[C], bool] | None = None) -> C | None:
        """Whose turn it is, among those with room that `fits`; None when there is none."""
        if len(self._entries) == 1:  # always the same one's
            only = self._entries[0].relay
            return only if only.room > 0 and (fits is None or fits(only)) else None
        first = self._first(fits)
        if first is None:
            return None
        self._round = max(self._round, first.due)
        chosen = self._second(first, now, fits)
        step = self._step(chosen, now)
        if chosen.owed:
            chosen.owed -= 1
            step /= 2
        chosen.due = max(chosen.due, self._round) + step
        return chosen.relay

    def _first(self, fits: Callable[[C], bool] | None) -> Entry[C] | None:
        line = self._line
        unfit: list[tuple[float, int, Entry[C]]] = []
        first = None
        while line:
            head = line[0]
            entry = head[2]
            if head[0] < entry.due:  # it had a turn since
                self._order += 1
                heapreplace(line, (entry.due, self._order, entry))
            elif entry.relay.room <= 0:
                heappop(line)
                entry.queued = False
            elif fits is None or fits(entry.relay):
                first = entry
                break
            else:
                unfit.append(heappop(line))
        for head in unfit:
            heappush(line, head)
        return first

    def _second(self, first: Entry[C], now: float, fits: Callable[[C], bool] | None) -> Entry[C]:
        """The first one, or the one that it is compared with."""
        second = self._draw(first)
        if second is None or second.relay.room <= 0:
            return first
        if fits is not None and not fits(second.relay):
            return first
        share = second.relay.share(now)
        if share < 1.0 and self._random() >= share:
            return first
        load, other = self._load(first.relay), self._load(second.relay)
        takes, takes_other = first.relay.latency(now), second.relay.latency(now)
        if not takes or not takes_other:
            takes = takes_other = 1.0
        else:
            takes, takes_other = takes + AT_EASE_S, takes_other + AT_EASE_S
        doubtful = first.relay.doubtful and not second.relay.doubtful
        times = takes * (load + AT_EASE) / (takes_other * (other + AT_EASE))
        if times <= DEARER and not doubtful:
            first.passed = 0
            return first
        first.passed += 1
        at = _look_at(times) if times > DEARER else LOOK_AGAIN_SOON
        if first.passed >= at and load <= DEARER * (other + AT_EASE):
            first.passed = 0
            return first
        first.due += self._step(first, now)
        first.owed = MOST_OWED
        return second

    def _draw(self, first: Entry[C]) -> Entry[C] | None:
        """Another one, by weight."""
        own = _weight(first.relay)
        others = self._until[-1] - own
        if not others:
            return None
        at = self._random() * others
        if at >= self._until[first.index] - own:
            at += own
        return self._entries[min(bisect_right(self._until, at), len(self._entries) - 1)]

    def _load(self, relay: C) -> float:
        return relay.in_flight * self._mean / _weight(relay)

    @staticmethod
    def _step(entry: Entry[C], now: float) -> float:
        """From one turn to the next, in rounds."""
        return 1 / (_weight(entry.relay) * max(entry.relay.share(now), LEAST_SHARE))

    def _push(self, entry: Entry[C]) -> None:
        self._order += 1
        entry.queued = True
        heappush(self._line, (entry.due, self._order, entry))


def _look_at(times: float) -> float:
    """How often a relay is passed over that is so many times as dear."""
    return min(max(LOOK_AGAIN, LOOK_AGAIN / 4 * times), LOOK_AGAIN_AT_MOST)


def _weight(relay: Candidate) -> int:
    return max(relay.weight, 1)


class Group(msgspec.Struct, frozen=True, gc=False):
    """Relays that come into service together: those of one tier, our own site's apart from others.
    Weights: of all that are enabled, and of those in health."""

    tier: int
    whole: float
    healthy: float


def serving(groups: Sequence[Group], *, spill_below: float, now_serving: int = 0) -> int:
    """How many of the groups, from the first, carry mail: the next one helps while the health of
    those before is below its share of the first tier's weight (of our own site's weight, where the
    next one is the rest of the tier). `now_serving`: the answer of before; who was called goes only
    when there is a little more than that."""
    first_tier = sum(g.whole for g in groups if g.tier == groups[0].tier)
    healthy = 0.0
    for at, group in enumerate(groups):
        healthy += group.healthy
        following = groups[at + 1 : at + 2]
        aside = bool(following) and following[0].tier == group.tier
        whole = group.whole if aside else first_tier
        margin = RETURN_MARGIN if now_serving > at + 1 else 1.0
        if healthy > 0 and healthy >= min(spill_below * margin, 1.0) * whole:
            return at + 1
    return len(groups)


def outlier(latency: float, others: Sequence[float]) -> bool:
    """Whether a relay is very slow beside the others of its pool; seconds."""
    if len(others) < OUTLIER_OTHERS:
        return False
    median = sorted(others)[(len(others) - 1) // 2]
    return latency > max(OUTLIER_TIMES * median, median + OUTLIER_SECONDS)
