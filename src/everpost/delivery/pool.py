"""Which relay carries the next message. Pure: facts in, a choice out."""

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

__all__ = ["FAULT_MEMORY", "Candidate", "choose", "free", "preferred"]

FAULT_MEMORY = 30.0
"""Seconds for which a relay that failed us comes after all that did not."""


class Candidate(Protocol):
    """What is known of an enabled relay. `in_flight` counts its sessions in this process, `room` is
    what could start now; `faulted_at` is the monotonic second of its last fault; `turn` grows with
    each use."""

    @property
    def id(self) -> bytes: ...
    @property
    def weight(self) -> int: ...
    @property
    def room(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def faulted_at(self) -> float | None: ...
    @property
    def turn(self) -> int: ...


C = TypeVar("C", bound=Candidate)


def preferred(
    candidates: Sequence[C], *, now: float, avoid: frozenset[bytes], tried: frozenset[bytes]
) -> Sequence[C]:
    """Those that a message may go to now: never one it tried already; none it should avoid, nor one
    that failed lately, while there is another. A sound relay that is busy is worth waiting for:
    a faulty one that happens to be free is not a better choice."""
    left = [c for c in candidates if c.id not in tried] if tried else candidates
    if avoid:
        left = [c for c in left if c.id not in avoid] or left
    if len(left) < 2:
        return left
    return [c for c in left if not _faulty(c, now)] or left


def choose(candidates: Iterable[C]) -> C | None:
    """The one with room that carries least for its weight; among equals the one whose last turn is
    longest ago. None when all are full."""
    best: C | None = None
    best_rank = (0.0, 0)
    for candidate in candidates:
        if candidate.room <= 0:
            continue
        rank = ((candidate.in_flight + 1) / max(candidate.weight, 1), candidate.turn)
        if best is None or rank < best_rank:
            best, best_rank = candidate, rank
    return best


def free(candidates: Sequence[C], *, now: float) -> int:
    """How many transactions could start without waiting: the room of the relays that `preferred`
    would name."""
    none: frozenset[bytes] = frozenset()
    return sum(c.room for c in preferred(candidates, now=now, avoid=none, tried=none))


def _faulty(candidate: Candidate, now: float) -> bool:
    return candidate.faulted_at is not None and now - candidate.faulted_at < FAULT_MEMORY
