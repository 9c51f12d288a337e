"""Who may take a slot next, so that one slow destination never holds up the others, nor one
project or stream, and broadcast mail always leaves room for transactional.

The dynamic threshold of shared-memory switches (Choudhury and Hahne 1998): one may hold at most so
many times what is left free. A greedy one alone gets most of the capacity, several of them together
leave some of it free, so a newcomer always finds room, and nothing is reserved for those that have
no mail. It is applied thrice: to a project by what is free, to a stream by what that leaves to its
project, to a route by what that leaves to its stream.
"""

__all__ = ["broadcast_part", "fits", "is_greedy", "left_for", "may_take"]

_GREED = 5
"""A route may hold at most this many times what is left to its stream."""

_GROUP_GREED = 15
"""And a project or stream of what is left to all: mostly there is only one. With these, one route
alone gets about three quarters of everything."""

_MEMORY_GREED = 3


def left_for(held_by_group: int, free: float) -> float:
    """How many of `free` slots a project or stream that holds so many may take yet; 0 or less:
    none. One that holds nothing may take them all."""
    if not held_by_group:
        return free
    return (_GROUP_GREED * free - held_by_group) / (_GROUP_GREED + 1)


def may_take(held_by_route: int, left: float) -> bool:
    """Whether a route that holds so many slots may take one more, of those left to its stream. One
    that holds nothing may take any."""
    return left > 0 and (held_by_route == 0 or held_by_route < _GREED * left)


def broadcast_part(capacity: int) -> int:
    """How much of it broadcast mail may hold: the rest is for transactional mail alone, which need
    not wait for a slow broadcast to end before it starts."""
    return capacity - max(capacity // 4, 1) if capacity > 1 else capacity


def fits(weight: int, *, held: int, capacity: int) -> bool:
    """Whether a message of `weight` bytes may join `held` bytes of others. One that is heavier than
    the whole capacity goes alone."""
    return held == 0 or held + weight <= capacity


def is_greedy(weight: int, held_by_route: int, *, held: int, capacity: int) -> bool:
    """Whether a route would leave too few of the bytes to others by taking `weight` more: the same
    threshold, by what is left afterwards, since messages differ in weight."""
    left = capacity - held - weight
    return held_by_route > 0 and held_by_route + weight >= _MEMORY_GREED * left
