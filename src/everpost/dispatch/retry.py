"""When the next attempt is due: exponential back-off with jitter, never past the message's end."""

import re

import msgspec

__all__ = ["GREYLISTED", "RELAY_FAULT", "RetryPolicy", "come_back_at", "named_wait", "retry_at"]

_MAX_DOUBLINGS = 30
_SHORTEST_WAIT_MS, _LONGEST_WAIT_MS = 60_000, 3_600_000
_SPREAD_MS = 1_000
_UNITS = {"s": 1_000, "m": 60_000, "h": 3_600_000}
_wait = re.compile(
    r"\b(?:in|for|after|wait)(?: (?:about|another|at least))? ([0-9]{1,5}) ?"
    r"(s|m|h)(?:ec|ecs|econds?|in|ins|inutes?|ours?|rs)?\b"
).search


class RetryPolicy(msgspec.Struct, frozen=True):
    """`first_ms` before the second attempt, doubled each time up to `cap_ms` (RFC 5321 §4.5.4.1
    advises 30 minutes between attempts; one-time codes cannot wait that long at first)."""

    first_ms: int
    cap_ms: int


RELAY_FAULT = RetryPolicy(first_ms=10_000, cap_ms=300_000)
"""After a fault of the relay itself the destination has said nothing: look again soon."""

GREYLISTED = RetryPolicy(first_ms=300_000, cap_ms=1_800_000)
"""A greylist takes the message when it comes back after some minutes (F68), five with most; before
that it is asked in vain, and the default back-off would wait longer and longer after."""


def retry_at(
    policy: RetryPolicy, *, attempts: int, now: int, expires_at: int, jitter: float
) -> int | None:
    """When to try again, in milliseconds, after `attempts` finished attempts (at least 1).

    `jitter` in [0, 1) spreads the delay over [1, 1.25) times its base, so that what failed
    together does not come back together (F38). A retry that would fall past `expires_at` is due
    at `expires_at`, to be settled as expired then; None when that moment is already over.
    """
    if now >= expires_at:
        return None
    doublings = min(max(attempts - 1, 0), _MAX_DOUBLINGS)
    base = min(policy.first_ms << doublings, policy.cap_ms)
    return min(now + int(base * (1 + jitter / 4)), expires_at)


def named_wait(text: str) -> int | None:
    """Milliseconds that a greylist's answer asks us to wait ("try again in 300 seconds"), within a
    minute and an hour; None when it names no time."""
    found = _wait(" ".join(text.lower().split()))
    if found is None:
        return None
    wait = int(found[1]) * _UNITS[found[2]]
    return min(max(wait, _SHORTEST_WAIT_MS), _LONGEST_WAIT_MS)


def come_back_at(until: int, *, now: int, expires_at: int, jitter: float) -> int:
    """When what must not be tried before `until` is due: a little later, spread over a quarter of
    the wait, so that not all that waited comes at once (I19); or at its own end."""
    spread = _SPREAD_MS + max(until - now, 0) // 4
    return min(max(until, now) + int(spread * jitter), expires_at)
