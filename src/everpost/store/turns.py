"""How a claim is divided among those who wait. Pure; engines say who waits.

Projects share by weight, then a project's streams, then a stream's destinations evenly in turn.
What a claim cannot divide evenly is carried to the next one, so that over many claims everybody
gets his share to within one claim, and what one does not use is divided among the others.
"""

from collections.abc import Mapping, Sequence
from math import floor
from typing import Final, TypeVar

__all__ = ["LAST", "Turns", "end_of", "is_group", "project_of", "stream_of"]

LAST: Final = "\U0010ffff"
"""Sorts after every character of a route."""

_MOST_KEPT = 20_000
"""Groups that something is remembered of; beyond that the longest remembered starts anew."""

V = TypeVar("V")
Key = tuple[int, str]
"""A priority, and a group's prefix: "1/" a project, "1/news/" a stream, "" the whole queue."""


def is_group(name: str) -> bool:
    """Whether this names a project or a stream rather than one lane."""
    return name.endswith("/")


def end_of(name: str) -> str:
    """The last route that could belong to a project, stream or lane."""
    return name + LAST if is_group(name) else name


def stream_of(route: str) -> str:
    """The stream that a lane belongs to; "" for a route of a release that had none in it."""
    return route[: route.rfind("/") + 1]


def project_of(name: str) -> str:
    """The project that a lane or a stream belongs to; "" as with `stream_of`."""
    return name[: name.find("/") + 1]


class Turns:
    """What one process has to remember from claim to claim, by priority."""

    __slots__ = ("_after", "_carried")

    def __init__(self) -> None:
        self._after: dict[Key, str] = {}
        self._carried: dict[Key, float] = {}

    def after(self, group: Key) -> str:
        """Whom of this group was served last ("" for nobody): the next turn is for who follows."""
        return self._after.get(group, "")

    def served(self, group: Key, last: str) -> None:
        _keep(self._after, group, last)

    def divide(
        self, parent: Key, room: int, groups: Sequence[tuple[str, int]], *, complete: bool
    ) -> Mapping[str, int]:
        """How many of `room` rows each of `groups` (name, weight), in turn, may take. Unless this
        is all of them (`complete`), each gets as many rows as it weighs when its turn comes, and
        the next division begins where this one ended."""
        if complete and len(groups) < 2:
            return {name: room for name, _ in groups}
        if complete:
            return self._by_weight(parent[0], room, groups)
        return self._in_turn(parent, room, groups)

    def _by_weight(
        self, priority: int, room: int, groups: Sequence[tuple[str, int]]
    ) -> Mapping[str, int]:
        """The largest remainders round up, and what that is too much or too little is carried."""
        unit = room / sum(weight for _, weight in groups)
        owed: dict[str, float] = {}
        for name, weight in groups:
            carried = self._carried.get((priority, name), 0.0)
            owed[name] = weight * unit + min(max(carried, -1.0), 1.0)
        shares = {name: max(floor(due), 0) for name, due in owed.items()}
        left = room - sum(shares.values())
        while left:
            step = 1 if left > 0 else -1
            for name in sorted(owed, key=lambda n: step * (shares[n] - owed[n])):
                if left and shares[name] + step >= 0:
                    shares[name] += step
                    left -= step
        for name, due in owed.items():
            _keep(self._carried, (priority, name), due - shares[name])
        return shares

    def _in_turn(
        self, parent: Key, room: int, groups: Sequence[tuple[str, int]]
    ) -> Mapping[str, int]:
        """Deficit round robin (Shreedhar and Varghese 1995), a row for each unit of weight."""
        shares: dict[str, int] = {}
        for name, weight in groups:
            key = (parent[0], name)
            due = weight + self._carried.get(key, 0.0)
            whole = max(floor(due), 0)
            shares[name] = min(whole, room)
            room -= shares[name]
            if shares[name] < whole:  # its turn goes on when there is room again
                _keep(self._carried, key, due - shares[name] - weight)
                break
            _keep(self._carried, key, due - whole)
            self.served(parent, name)
            if not room:
                break
        return shares


def _keep(kept: dict[Key, V], key: Key, value: V) -> None:
    """The newest stands last; the oldest goes when there are too many."""
    kept.pop(key, None)
    kept[key] = value
    if len(kept) > _MOST_KEPT:
        del kept[next(iter(kept))]
