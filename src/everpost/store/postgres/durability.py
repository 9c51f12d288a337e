"""Whether what this server acknowledges is safe, by what it says of itself. Pure.

PostgreSQL answers a COMMIT when its settings of that moment are met, and each session may have
weaker ones, so they are looked at in every transaction (`Facts` comes with BEGIN). Whether a
standby is connected is known less often: without one a COMMIT does not lie, it waits.
"""

import re
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
    the settings demand; empty: `assurance` is what it means."""

    writable: bool
    problems: tuple[str, ...]
    assurance: Assurance

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
    problems = list(_not_the_primary(facts, oldest))
    if relaxed:
        return Judgement(writable, tuple(problems), Assurance.RELAXED)
    if not facts.fsync:
        problems.append("fsync is off: a power cut loses what was acknowledged")
    if not facts.pages:
        problems.append("full_page_writes is off: a power cut may damage the database")
    if facts.commit not in _SAFE_COMMITS:
        problems.append(f"synchronous_commit is {facts.commit}: it must be on or remote_apply")
    problems += _too_few(facts, standbys)
    named = named_standbys(facts.names) > 0
    return Judgement(
        writable, tuple(problems), Assurance.REPLICATED if named else Assurance.COMMITTED
    )


def _not_the_primary(facts: Facts, oldest: int) -> tuple[str, ...]:
    if facts.recovering:
        return ("the server is a standby",)
    if facts.timeline < oldest:
        return (f"the server is on timeline {facts.timeline}, and {oldest} was seen already",)
    if facts.read_only:
        return ("the server is read-only",)
    return ()


def _too_few(facts: Facts, standbys: int) -> tuple[str, ...]:
    named = named_standbys(facts.names)
    if named < standbys:
        return (
            f"a COMMIT waits for {named} synchronous standbys, postgres.standbys is {standbys}: "
            "set synchronous_standby_names (Patroni: synchronous_mode_strict)",
        )
    if facts.standbys is not None and facts.standbys < standbys:
        return (f"{facts.standbys} synchronous standbys are connected, {standbys} are needed",)
    return ()
