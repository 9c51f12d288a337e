"""What a failover demonstration comes to. Pure: what was sent and what arrived in, figures out."""

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

__all__ = ["Arrived", "Figures", "Trouble", "Window", "judge", "p99", "shares"]

_SHARE_WITHIN = 0.10
_EJECT_S = 2.0
_P99_TIMES, _P99_MORE_S = 2.0, 0.150


class Arrived(msgspec.Struct, frozen=True):
    """A message at a relay; `at` in monotonic seconds."""

    relay: str
    mark: str
    at: float


class Window(msgspec.Struct, frozen=True):
    """A stretch of the run, in monotonic seconds."""

    name: str
    start: float
    end: float


class Trouble(msgspec.Struct, frozen=True):
    """What was done to a relay and what came of it, in seconds: from then until it got no more mail
    than a look now and then, or until its circuit opened; and from its revival until it got mail
    again, and until it got its share (four fifths of it, for two seconds). None: it did not
    happen."""

    relay: str
    what: str
    to_eject: float | None
    to_return: float | None
    to_full_share: float | None


class Figures(msgspec.Struct, frozen=True):
    """`share` and `weight` are parts of 1, before and after the troubles; p99 in seconds from POST
    to arrival, by window."""

    sent: int
    lost: int
    duplicates: int
    weight: Mapping[str, float]
    share_before: Mapping[str, float]
    share_after: Mapping[str, float]
    p99: Mapping[str, float]
    troubles: Sequence[Trouble]
    missed: Sequence[str] = ()


def p99(sent: Mapping[str, float], first: Mapping[str, float], window: Window) -> float:
    """Of the messages posted in the window; those that never arrived count as endless."""
    waits = sorted(
        first.get(mark, float("inf")) - at
        for mark, at in sent.items()
        if window.start <= at < window.end
    )
    return waits[min(len(waits) * 99 // 100, len(waits) - 1)] if waits else 0.0


def shares(arrived: Sequence[Arrived], relays: Sequence[str], window: Window) -> dict[str, float]:
    """Each relay's part of what arrived in the window."""
    counts = Counter(a.relay for a in arrived if window.start <= a.at < window.end)
    total = counts.total()
    return {relay: counts[relay] / total if total else 0.0 for relay in relays}


def judge(figures: Figures) -> list[str]:
    """What misses its bar, in words."""
    missed = []
    if figures.lost:
        missed.append(f"{figures.lost} lost")
    if figures.duplicates:
        missed.append(f"{figures.duplicates} duplicates")
    for name, share in (("before", figures.share_before), ("after", figures.share_after)):
        for relay, weight in figures.weight.items():
            if abs(share[relay] - weight) > _SHARE_WITHIN * weight:
                missed.append(f"share of {relay} {name}: {share[relay]:.1%} of {weight:.1%}")
    for trouble in figures.troubles:
        if trouble.to_eject is None or trouble.to_eject > _EJECT_S:
            took = "never" if trouble.to_eject is None else f"after {trouble.to_eject:.1f} s"
            missed.append(f"{trouble.relay} {trouble.what}: left {took}")
        if trouble.to_return is None:
            missed.append(f"{trouble.relay} {trouble.what}: did not come back")
    quiet = figures.p99["before"]
    most = max(_P99_TIMES * quiet, quiet + _P99_MORE_S)
    for name, value in figures.p99.items():
        if name != "before" and value > most:
            missed.append(f"p99 {name}: {value * 1000:.0f} ms of {most * 1000:.0f} ms")
    return missed
