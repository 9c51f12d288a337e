"""Dividing a limit among the processes that want a part of it. Pure; every engine uses it."""

from collections.abc import Mapping

from everpost.ids import Id

__all__ = ["divide", "part_of_budget"]


def divide(cap: int, wants: Mapping[Id, int], *, turn: int) -> Mapping[Id, int]:
    """Whole seats for each owner, at most what it wants, `cap` in all, as even as wishes allow:
    what one does not want goes to the others.

    Where there are fewer seats than owners, those who get one change with `turn` (a number that
    counts up with time), so that everybody has a seat at some time.
    """
    shares = dict.fromkeys(wants, 0)
    wishing = sorted(owner for owner, want in wants.items() if want > 0)
    rotates = cap < len(wishing)
    left = max(cap, 0)
    while wishing and left >= len(wishing):
        step = min(left // len(wishing), *(wants[o] - shares[o] for o in wishing))
        for owner in wishing:
            shares[owner] += step
        left -= step * len(wishing)
        wishing = [o for o in wishing if shares[o] < wants[o]]
    start = turn * left % len(wishing) if rotates and wishing else 0
    for owner in (wishing[start:] + wishing[:start])[:left]:
        shares[owner] += 1
    return shares


def part_of_budget(want: int, *, left: int, processes: int) -> int:
    """Uses for one of so many processes: never so much that nothing is left for another one that
    asks later in the same window, but for the last few."""
    return max(min(want, -(-left // max(processes, 1))), 0)
