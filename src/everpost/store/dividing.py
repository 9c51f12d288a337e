"""A claim divided among those who wait, whatever the engine: `Queue` is what an engine says and
does, `Division` whom to serve.

A route reads project/stream/destination, so the queue's projects, a project's streams and a
stream's lanes are found by skipping from one to the next. `busy` names routes that get nothing:
lanes as they are, projects and streams by what their lanes begin with ("7/", "7/news/").
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from everpost.store.turns import LAST, Turns, end_of, is_group, project_of, stream_of

__all__ = ["DUE", "ROUTE", "Division", "Queue"]

_ROUNDS = 4
_FEWEST_PROJECTS = 32
"""Projects looked at even by a small claim: while these are all, it is divided exactly."""

_MOST_STREAMS = 16
"""Of one project, looked at in one round."""

ROUTE, DUE = 6, 9
"""Columns of the rows that `take` answers with; the first two are the row's key."""


class Queue(Protocol):
    """What is due, in lanes (priority, route)."""

    def ends(self, priority: int) -> tuple[str | None, str | None]:
        """The first and the last route with due rows."""
        ...

    def projects(self, priority: int, *, after: str, upto: str, most: int) -> list[tuple[str, int]]:
        """Projects (name, weight) in order."""
        ...

    def streams(
        self, priority: int, ranges: Sequence[tuple[str, str]], *, most: int
    ) -> Iterable[tuple[int, str, int]]:
        """Streams (at, name, weight) in each of the ranges (after, upto), `most` of each."""
        ...

    def lanes(
        self, priority: int, ranges: Sequence[tuple[str, str, int]]
    ) -> Iterable[tuple[int, str]]:
        """Lanes (at, route) in each of the ranges (after, upto, most)."""
        ...

    def free_lanes(self, priority: int, *, most: int, busy: Sequence[str]) -> list[str]:
        """Lanes in order, whoever's they are, that are not busy."""
        ...

    def take(self, priority: int, lanes: Sequence[str], share: int) -> list[tuple[Any, ...]]:
        """Claim the oldest `share` rows of each lane; the rows in no order."""
        ...


class Division:
    """One claim's. `turns` is what the process remembers from claim to claim."""

    __slots__ = ("_busy", "_queue", "_turns")

    def __init__(self, queue: Queue, *, busy: frozenset[str], turns: Turns) -> None:
        self._queue = queue
        self._busy = busy
        self._turns = turns

    def take(self, priority: int, room: int) -> list[tuple[Any, ...]]:
        """Up to `room` due rows of one priority, oldest first in each lane. Every round divides
        what the one before it left among those who still have rows; the last one gives all of it to
        whoever comes first."""
        taken: list[tuple[Any, ...]] = []
        more = True
        for more_rounds in reversed(range(_ROUNDS)):
            left = room - len(taken)
            if not (more and left):
                break
            if more_rounds:
                rows, more = self._round(priority, left)
            else:
                rows = self._whoever_comes_first(priority, left)
            taken += rows
        return taken

    def _round(self, priority: int, room: int) -> tuple[list[tuple[Any, ...]], bool]:
        """Rows by everybody's share, and whether there may be more of them."""
        shares, more = self._shares(priority, room)
        by_share: dict[int, list[str]] = {}
        for stream, (lanes, share) in self._lanes_of(priority, shares).items():
            each, extra = divmod(share, len(lanes))
            more |= each == 1 and not extra  # it may have lanes beyond these
            for at, lane in enumerate(lanes):
                by_share.setdefault(each + (at < extra), []).append(lane)
            self._turns.served((priority, stream), lanes[-1])
        taken: list[tuple[Any, ...]] = []
        for share, lanes in by_share.items():
            rows = self._queue.take(priority, lanes, share)
            if share > 1:
                rows.sort(key=_age)
                had = Counter(row[ROUTE] for row in rows)
                more |= share in had.values()
            taken += rows
        return taken, more or 1 in by_share

    def _shares(self, priority: int, room: int) -> tuple[Mapping[str, int], bool]:
        """How many rows each stream may take, and whether there are projects or streams beyond
        these."""
        first, last = self._queue.ends(priority)
        if first is None or last is None:
            return {}, False
        stream = stream_of(first)
        if stream and stream_of(last) == stream:
            return {} if self._is_busy(stream) else {stream: room}, False
        projects, complete = self._projects(priority, max(room, _FEWEST_PROJECTS))
        parts = self._turns.divide((priority, ""), room, projects, complete=complete)
        shares = {name: part for name, part in parts.items() if not is_group(name)}
        named = [name for name, part in parts.items() if part and is_group(name)]
        for project, streams, all_ in self._streams(priority, named):
            complete &= all_
            whole = (priority, project)
            shares |= self._turns.divide(whole, parts[project], streams, complete=all_)
        complete &= all(parts.values()) and all(shares.values())
        return {name: share for name, share in shares.items() if share}, not complete

    def _is_busy(self, stream: str) -> bool:
        return bool(self._busy) and (stream in self._busy or project_of(stream) in self._busy)

    def _projects(self, priority: int, most: int) -> tuple[list[tuple[str, int]], bool]:
        """Projects (name, weight) in turn, `most` of them, and whether these are all."""
        last = self._turns.after((priority, ""))
        found = self._queue.projects(priority, after=end_of(last), upto=LAST, most=most)
        if last and len(found) < most:
            found += self._queue.projects(
                priority, after="", upto=end_of(last), most=most - len(found)
            )
        free = [(name, max(weight, 1)) for name, weight in found if name not in self._busy]
        return free, len(found) < most

    def _streams(
        self, priority: int, projects: Sequence[str]
    ) -> Iterator[tuple[str, list[tuple[str, int]], bool]]:
        """By project its streams (name, weight) in turn, and whether these are all."""
        if not projects:
            return
        after = [self._turns.after((priority, project)) for project in projects]
        ranges = [(end_of(a) if a else p, end_of(p)) for p, a in zip(projects, after, strict=True)]
        found: dict[int, list[tuple[str, int]]] = {}
        for at, name, weight in self._queue.streams(priority, ranges, most=_MOST_STREAMS):
            found.setdefault(at, []).append((name, max(weight, 1)))
        for at, project in enumerate(projects):
            streams = found.get(at, [])
            if after[at] and not streams:
                self._turns.served((priority, project), "")
            all_ = len(streams) < _MOST_STREAMS and not after[at]
            yield project, [s for s in streams if s[0] not in self._busy], all_

    def _lanes_of(
        self, priority: int, shares: Mapping[str, int]
    ) -> Mapping[str, tuple[list[str], int]]:
        """By stream its lanes in turn, as many as rows are wanted, and its share."""
        lanes: dict[str, list[str]] = {name: [] for name in shares}
        before: dict[str, tuple[str, str, int]] = {}
        ranges: dict[str, tuple[str, str, int]] = {}
        for name, share in shares.items():
            after = self._turns.after((priority, name))
            if is_group(name):
                ranges[name] = (after or name, end_of(name), share)
                if after:
                    before[name] = (name, after, share)
            else:
                lanes[name].append(name)
        passed_over = Counter(map(stream_of, self._busy))
        for wanted in (ranges, before):
            asked = {
                name: (after, upto, share - len(lanes[name]) + passed_over[name])
                for name, (after, upto, share) in wanted.items()
                if share > len(lanes[name])
            }
            if asked:
                names = list(asked)
                for at, lane in self._queue.lanes(priority, list(asked.values())):
                    found = lanes[names[at]]
                    if lane not in self._busy and len(found) < shares[names[at]]:
                        found.append(lane)
        return {name: (found, shares[name]) for name, found in lanes.items() if found}

    def _whoever_comes_first(self, priority: int, room: int) -> list[tuple[Any, ...]]:
        taken: list[tuple[Any, ...]] = []
        for lane in self._queue.free_lanes(priority, most=room, busy=list(self._busy)):
            rows = self._queue.take(priority, [lane], room - len(taken))
            rows.sort(key=_age)
            taken += rows
            if len(taken) == room:
                break
        return taken


def _age(row: Sequence[Any]) -> tuple[Any, ...]:
    return (row[DUE], *row[:2])
