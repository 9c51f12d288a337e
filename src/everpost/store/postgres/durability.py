"""Whether what this server acknowledges is safe, by what it says of itself. Pure.

PostgreSQL answers a COMMIT when its settings of that moment are met, and each session may have
weaker ones, so they are looked at in every transaction (`Facts` comes with BEGIN). Whether a
standby is connected is known less often: without one a COMMIT does not lie, it waits.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from everpost.model.message import Assurance

__all__ = ["Facts", "Judgement", "judge", "named_standbys"]

_SAFE_COMMITS = frozenset({"on", "remote_apply"})
"""`remote_write` does not wait for a standby's disk, `local` and `off` for none."""

_QUORUM = re.compile(r"\s*(?:(?:FIRST|ANY)\s+)?(\d+)\s*\(", re.IGNORECASE)


class Facts(NamedTuple):
    """What a server said of itself. `standbys`: connected synchronous ones; None: not asked, or
    this user may not see it."""

    recovering: bool
    read_only: bool
    timeline: int
    commit: str
    names: str
    fsync: bool
    pages: bool
    standbys: int | None = None


class Judgement(NamedTuple):
    """`writable`: it takes writes at all. `problems`: why an answer of success would mean less than
    the settings demand, or why there would be none; empty: `assurance` is what it means. `weak`:
    those of them that lie in the server's settings, and stay until somebody changes them."""

    writable: bool
    problems: tuple[str, ...]
    assurance: Assurance
    weak: tuple[str, ...] = ()

    @property
    def durable(self) -> bool:
        return not self.problems


def named_standbys(names: str) -> int:
    """How many standbys a COMMIT waits for, by `synchronous_standby_names`."""
    if not names.strip():
        return 0
    counted = _QUORUM.match(names)
    return int(counted[1]) if counted else 1


def judge(facts: Facts, *, standbys: int, relaxed: bool, oldest: int = 0) -> Judgement:
    """`standbys` is how many must have what is acknowledged; `oldest` the highest timeline that was
    seen before: a server below it is a branch that others have left. `relaxed`: nothing is asked of
    its settings."""
    writable = not (facts.recovering or facts.read_only) and facts.timeline >= oldest
    passing = _not_the_primary(facts, oldest)
    if relaxed:
        return Judgement(writable, passing, Assurance.RELAXED)
    weak = tuple(_weak(facts, standbys))
    if not weak and facts.standbys is not None and facts.standbys < standbys:
        passing += (f"{facts.standbys} synchronous standbys are connected, {standbys} are needed",)
    named = named_standbys(facts.names) > 0
    assurance = Assurance.REPLICATED if named else Assurance.COMMITTED
    return Judgement(writable, passing + weak, assurance, weak)


def _not_the_primary(facts: Facts, oldest: int) -> tuple[str, ...]:
    if facts.recovering:
        return ("the server is a standby",)
    if facts.timeline < oldest:
        return (f"the server is on timeline {facts.timeline}, and {oldest} was seen already",)
    if facts.read_only:
        return ("the server is read-only",)
    return ()


def _weak(facts: Facts, standbys: int) -> Iterator[str]:
    if not facts.fsync:
        yield "fsync is off: a power cut loses what was acknowledged"
    if not facts.pages:
        yield "full_page_writes is off: a power cut may damage the database"
    if facts.commit not in _SAFE_COMMITS:
        yield f"synchronous_commit is {facts.commit}: it must be on or remote_apply"
    named = named_standbys(facts.names)
    if named < standbys:
        yield (
            f"a COMMIT waits for {named} synchronous standbys, postgres.standbys is {standbys}: "
            "set synchronous_standby_names (Patroni: synchronous_mode_strict)"
        )
