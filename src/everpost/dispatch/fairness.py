"""Who may take a slot next, so that one slow destination never holds up the others."""

__all__ = ["may_take"]

_GREED = 3
"""A route may hold at most this many times what is left free."""


def may_take(held_by_route: int, *, held: int, capacity: int) -> bool:
    """Whether a route that holds `held_by_route` of `held` slots may take one more.

    The dynamic threshold of shared-memory switches (Choudhury and Hahne 1998): a route may hold
    at most `_GREED` times the free slots. One greedy route alone gets three quarters of the
    capacity, k of them together leave 1/(1 + 3k) free, so a newcomer always finds room; nothing
    is reserved for routes that have no mail. A route that holds nothing may take any free slot.
    """
    free = capacity - held
    if free <= 0:
        return False
    return held_by_route == 0 or held_by_route < _GREED * free
