"""How much a source address that nobody knows yet may send on a day. Pure."""

from everpost.model.relay import Relay

__all__ = ["plan_for"]

_DAY_MS = 86_400_000


def plan_for(relay: Relay, now: int) -> int | None:
    """Messages that the relay's warm-up plan has for the UTC day of `now` (milliseconds): none
    before the plan begins, the plan's number for each of its days; None when it has no plan or is
    warm by now. What is beyond the day's number goes to the other relays of the tier."""
    if not relay.warmup:
        return None
    day = now // _DAY_MS - relay.warmup_from // _DAY_MS
    if day < 0:
        return 0
    return relay.warmup[day] if day < len(relay.warmup) else None
