"""Whether the disk has room for new mail: refused before it is full, so that what was accepted can
still be delivered and settled, which frees space (F4)."""

__all__ = ["Room"]

_COPIES = 2
"""A message is written to the log and, by a checkpoint, to the database file."""
_ROWS_BYTES = 8 * 1024
"""Pages that a message's rows and indexes touch, at worst."""
_SLACK = 4
"""Room is there again when a quarter more than needed is free, so that the answer does not change
with every message."""


class Room:
    """Knows the free space from time to time (`look`) and what was accepted since (`add`)."""

    __slots__ = ("_free", "_needed", "_since", "low")

    def __init__(self, needed: int) -> None:
        """`needed`: bytes that must stay free; 0 lets the disk fill."""
        self._needed = needed
        self._free: int | None = None
        self._since = 0
        self.low = False
        """New mail is to be refused."""

    def look(self, free: int) -> None:
        """`free` bytes were found just now."""
        self._free = free
        self._since = 0
        if self.low:
            self.low = free < self._needed + self._needed // _SLACK
        else:
            self.low = free < self._needed

    def add(self, size: int) -> None:
        """A request of `size` bytes was accepted."""
        self._since += _COPIES * size + _ROWS_BYTES
        if self._needed and self._free is not None and self._free - self._since < self._needed:
            self.low = True
