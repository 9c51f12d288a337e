"""Identifiers: UUID version 7 (RFC 9562 §5.7) as 16 bytes inside, as the usual text outside.

The first 48 bits are the millisecond of creation, so ids sort by age and a day partition derives
from the id alone. Randomness is handed in.
"""

import re
import secrets
from collections.abc import Callable

__all__ = ["DAY_MS", "Id", "IdMaker", "day", "made_at", "parse", "text"]

Id = bytes
"""16 bytes of a UUID."""

DAY_MS = 86_400_000

_TEXT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)


_SET_BACK_MS = 60_000
"""An id tells when something was made: where the clock was set back further, order gives way."""


class IdMaker:
    """Makes UUIDv7 ids, ascending within one process even inside one millisecond.

    RFC 9562 §6.2 method 1: a 12-bit counter follows the millisecond, 62 random bits follow it.
    """

    def __init__(
        self, now: Callable[[], int], randomness: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        self._now = now
        self._randomness = randomness
        self._last = 0
        self._counter = 0
        self._pool = b""
        self._used = 0

    def __call__(self) -> Id:
        now = self._now()
        if now > self._last or now < self._last - _SET_BACK_MS:
            self._last, self._counter = now, 0
        else:  # same millisecond, or the clock stepped back: stay ascending
            self._counter += 1
            if self._counter > 0xFFF:
                self._last, self._counter = self._last + 1, 0
        if self._used + 8 > len(self._pool):
            self._pool, self._used = self._randomness(4096), 0
        tail = self._pool[self._used : self._used + 8]
        self._used += 8
        return (
            self._last.to_bytes(6, "big")
            + (0x7000 | self._counter).to_bytes(2, "big")
            + bytes((0x80 | (tail[0] & 0x3F),))
            + tail[1:]
        )


def text(id_: Id) -> str:
    """`019ab3c2-…`: the form users see."""
    h = id_.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def parse(value: str) -> Id | None:
    """The 16 bytes of a UUID's usual text, or None when it is not one."""
    if not _TEXT.fullmatch(value):
        return None
    return bytes.fromhex(value.replace("-", ""))


def made_at(id_: Id) -> int:
    """Milliseconds since 1970 at which a version 7 id was made."""
    return int.from_bytes(id_[:6], "big")


def day(id_: Id) -> int:
    """Days since 1970 (UTC) of an id: the partition its rows belong to."""
    return made_at(id_) // DAY_MS
