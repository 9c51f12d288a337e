"""A process's share of a limit that holds over all processes: what it asks for, what it gets."""

from typing import Literal

import msgspec

__all__ = ["Ask", "Grant"]


class Ask(msgspec.Struct, frozen=True):
    """A process's wish for its share of a limit, named `name`, of `cap` over all processes.

    seats: places to be held at once. `want`: as many as it could use; `used`: those it cannot give
    up now. budget: uses in a window of `window_ms` (windows are counted from 1970 UTC, so a day is
    a UTC day); `want`: as many as it expects to use in the next slice.
    """

    name: str
    kind: Literal["seats", "budget"]
    cap: int
    want: int
    used: int = 0
    window_ms: int = 0


class Grant(msgspec.Struct, frozen=True):
    """What was granted, until `until` (milliseconds; of seats in steady time, of a budget in wall
    time): seats in all, or that many more uses. `left`:
    what the limit has left for anybody; 0: ask again in the next window, or later. Of seats, below
    0 is how many others lack.

    Seats may be fewer than those that the ask called `used`: no new work may take one, and those
    stay counted as its owner's until a later ask no longer names them.
    """

    name: str
    amount: int
    until: int
    left: int = 0
