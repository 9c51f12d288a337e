"""Who may take a slot next, so that one slow destination never holds up the others."""

__all__ = ["fits", "is_greedy", "may_take"]

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


def fits(weight: int, *, held: int, capacity: int) -> bool:
    """Whether a message of `weight` bytes may join `held` bytes of others. One that is heavier than
    the whole capacity goes alone."""
    return held == 0 or held + weight <= capacity


def is_greedy(weight: int, held_by_route: int, *, held: int, capacity: int) -> bool:
    """Whether a route would leave too few of the bytes to others by taking `weight` more: the same
    threshold as `may_take`, by what is left afterwards, since messages differ in weight."""
    return held_by_route > 0 and not may_take(
        held_by_route + weight, held=held + weight, capacity=capacity
    )
