"""What goes out in one transaction, and how a claimed message is cut into that."""

from collections.abc import Iterator

import msgspec

from everpost.model.pool import DEFAULT_POOL
from everpost.store.interface import CLAIMED_BYTES, Claim, Claimed
from everpost.store.turns import project_of, stream_of

__all__ = ["Work", "by_destination"]

_COPIES = 5
"""How often a message stands in memory while it is carried, at most: as content, composed,
assembled, framed for the wire, and what the transport has not passed on yet."""

_RECIPIENTS = 100
"""Of one transaction to an MX host: as many as every server must take (RFC 5321 §4.5.3.1.8)."""


class Work:
    """What goes out in one transaction: the recipients claimed of one message, through one pool.
    `route` is the lane it waits in, of `stream` and `project` (an older release's route is both,
    under names of its own); `destination` is empty where they
    have several. `weight`: bytes that it takes in memory while it is carried; 0 for a small one,
    which the window bounds. `since`: when it was claimed, in monotonic seconds; `expires_at`: when
    the first of its claims' lifetimes ends, in milliseconds."""

    __slots__ = (
        "broadcast", "claimed", "destination", "dotted", "expires_at", "on_its_way", "pool",
        "project", "route", "since", "stream", "weight",
    )  # fmt: skip

    def __init__(
        self,
        claimed: Claimed,
        *,
        pool: str = DEFAULT_POOL,
        broadcast: bool = False,
        since: float = 0.0,
    ) -> None:
        first = claimed.claims[0]
        self.claimed = claimed
        self.pool = pool
        self.broadcast = broadcast
        self.since = since
        self.route = first.route
        self.stream = stream_of(first.route) or first.route
        self.project = project_of(first.route) or f"/{first.route}"
        self.destination = first.destination
        self.expires_at = first.expires_at
        if len(claimed.claims) > 1:
            self.expires_at = min(claim.expires_at for claim in claimed.claims)
            if any(claim.destination != first.destination for claim in claimed.claims):
                self.destination = ""
        self.weight = claimed.size * _COPIES if claimed.size > CLAIMED_BYTES else 0
        self.dotted = False
        """The final dot may have left."""
        self.on_its_way = False
        """Started, and delivery does not know of it yet."""


def by_destination(claimed: Claimed) -> Iterator[Claimed]:
    """What was claimed of one message, cut into what one MX host can be given at once."""
    parts: dict[str, list[Claim]] = {}
    for claim in claimed.claims:
        parts.setdefault(claim.destination, []).append(claim)
    for claims in parts.values():
        for at in range(0, len(claims), _RECIPIENTS):
            yield msgspec.structs.replace(claimed, claims=tuple(claims[at : at + _RECIPIENTS]))
