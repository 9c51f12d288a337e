"""What is known of a relay's health: a value that processes share and people read."""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

__all__ = ["CircuitState", "Health", "Standing"]


class CircuitState(StrEnum):
    """closed: it gets its share of the mail. open: none, but for probes. half_open: a little, which
    decides whether it comes back."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """One relay's circuit. `why` is short and for people, `phase` and `speaker` say where the
    evidence came from; `since` and `until` (open: the earliest way back) are milliseconds since
    1970; `ejections` counts how often it was taken out of late, which makes `until` grow."""

    relay: bytes
    state: CircuitState
    why: str = ""
    phase: str | None = None
    speaker: str | None = None
    since: int = 0
    until: int | None = None
    ejections: int = 0


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What one process saw of a relay in the last minute: transactions tried, those it did its work
    for (delivered, or refused by the destination), its own faults; now in flight, and connections
    open. `worked_at` is when it last did its work, however long ago (milliseconds since 1970).
    `latency_ms` maps p50, p95 and p99 of whole transactions."""

    relay: bytes
    tried: int = 0
    worked: int = 0
    faults: int = 0
    in_flight: int = 0
    sessions: int = 0
    worked_at: int | None = None
    latency_ms: Mapping[str, float] = {}
