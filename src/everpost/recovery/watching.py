"""Decides, from facts and `now`, whether a child hangs, when it is started again, and whether it is
in a loop of crashes. All times are seconds of one monotonic clock."""

from dataclasses import dataclass
from enum import Enum

__all__ = [
    "CRASH_LOOP",
    "HEALTHY_S",
    "Life",
    "Patience",
    "Record",
    "Verdict",
    "backoff_s",
    "ended",
    "judge",
    "slept",
    "steadied",
]

CRASH_LOOP = 3
"""So many short lives in a row are a loop."""
HEALTHY_S = 10.0
"""A life of so long ends a row of short ones."""
_FIRST_S = 0.1
_CAP_S = 30.0
_CAP_READY_S = 2.0
_SLEPT_S = 3.0


class Verdict(Enum):
    """What is to be done about a child that runs."""

    FINE = "fine"
    HUNG = "hung"
    """It is silent: its event loop stands still, or the process does."""
    LATE = "late"
    """It is not ready within its time."""


@dataclass(frozen=True, slots=True)
class Patience:
    """`hung_s`: silence that is borne, 0 for any; `start_s`: from its start until it is ready."""

    hung_s: float
    start_s: float


@dataclass(frozen=True, slots=True)
class Life:
    """One process. `heard`: its last beat, None before the first; `excused`: silence before this
    moment is not its own."""

    started: float
    heard: float | None = None
    ready: bool = False
    excused: float = 0.0

    @property
    def lived_s(self) -> float:
        """Until it was last heard of: what hangs does not live."""
        return 0.0 if self.heard is None else self.heard - self.started


@dataclass(frozen=True, slots=True)
class Record:
    """What is remembered of a child from life to life: short lives in a row, and when the next
    begins (None: it runs)."""

    short_lives: int = 0
    due: float | None = None

    @property
    def loops(self) -> bool:
        return self.short_lives >= CRASH_LOOP


def judge(life: Life, patience: Patience, *, now: float) -> Verdict:
    """Before its first beat only its start is measured: loading a program from a slow disk makes no
    sound."""
    if not life.ready and now - max(life.started, life.excused) > patience.start_s:
        return Verdict.LATE
    if life.heard is None or not patience.hung_s:
        return Verdict.FINE
    silent = now - max(life.heard, life.excused)
    return Verdict.HUNG if silent > patience.hung_s else Verdict.FINE


def slept(*, asked_s: float, passed_s: float) -> bool:
    """Whether the supervisor itself stood still while it meant to look after `asked_s`: it was
    paused, or the whole machine was. Then nobody's silence says anything."""
    return passed_s - asked_s > _SLEPT_S


def backoff_s(failures: int, *, ready: bool = False) -> float:
    """Seconds before the next start after `failures` short lives in a row (0: at once).

    One that came to be `ready` can start; what ends it then is its work. Mail that kills is held
    after a few deaths, and until then other mail must not wait for long (decision 0022)."""
    cap = _CAP_READY_S if ready else _CAP_S
    return 0.0 if failures == 0 else float(min(_FIRST_S * 2.0 ** min(failures - 1, 16), cap))


def ended(record: Record, life: Life, *, now: float) -> Record:
    """After the end of a life."""
    failures = 0 if life.lived_s >= HEALTHY_S else record.short_lives + 1
    return Record(failures, now + backoff_s(failures, ready=life.ready))


def steadied(record: Record, life: Life) -> Record:
    """While it lives: a row of short lives is over as soon as this one is no longer short."""
    if record.short_lives and life.ready and life.lived_s >= HEALTHY_S:
        return Record(0, record.due)
    return record
