"""When the next attempt is due: exponential back-off with jitter, never past the message's end."""

import msgspec

__all__ = ["RELAY_FAULT", "RetryPolicy", "retry_at"]

_MAX_DOUBLINGS = 30


class RetryPolicy(msgspec.Struct, frozen=True):
    """`first_ms` before the second attempt, doubled each time up to `cap_ms` (RFC 5321 §4.5.4.1
    advises 30 minutes between attempts; one-time codes cannot wait that long at first)."""

    first_ms: int
    cap_ms: int


RELAY_FAULT = RetryPolicy(first_ms=10_000, cap_ms=300_000)
"""After a fault of the relay itself the destination has said nothing: look again soon."""


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
