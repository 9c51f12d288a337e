"""Whether the disk is slow: commits that take long, several in a row. Pure."""

__all__ = ["Pace"]

_SLOW_S = 0.5
"""A commit of a healthy disk takes a few milliseconds, whatever it holds."""
_IN_A_ROW = 3
"""One may wait for a neighbour's burst, or a checkpoint's flush."""


class Pace:
    """`slow` turns true after three slow commits in a row, and false after three that were not."""

    __slots__ = ("_other", "slow")

    def __init__(self) -> None:
        self.slow = False
        self._other = 0

    def seen(self, seconds: float) -> None:
        """One commit took so long."""
        if (seconds > _SLOW_S) == self.slow:
            self._other = 0
            return
        self._other += 1
        if self._other == _IN_A_ROW:
            self.slow = not self.slow
            self._other = 0
