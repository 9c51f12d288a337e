"""Which pool carries what was claimed, and what it weighs: settings, as dispatch asks them. Pure;
made anew for each revision of the settings."""

from collections.abc import Iterator, Sequence

import msgspec

from everpost.model.pool import Route, way_of
from everpost.store.directory import Snapshot
from everpost.store.interface import Claim, Claimed, ProjectRow, StreamRow

__all__ = ["Assignment"]

_BROADCAST = "broadcast"
_MOST_KNOWN = 10_000
"""Answers that are remembered."""

_TAGS = msgspec.json.Decoder(list[tuple[str, str]])


class Assignment:
    """By one snapshot and its routes, by position."""

    def __init__(self, snapshot: Snapshot, routes: Sequence[Route]) -> None:
        self.snapshot = snapshot
        self._routes = routes
        self._pools = {row.name for row in snapshot.pools}
        self._by_recipient = any(route.recipient_domain is not None for route in routes)
        self._by_tag = any(route.tag is not None for route in routes)
        self._known: dict[tuple[int, str, str, str], str] = {}
        self._weights = {
            (row.project, row.name): (_weight(snapshot.projects.get(row.project)), _weight(row))
            for row in snapshot.streams.values()
        }
        self._broadcast = {
            (row.project, row.name)
            for row in snapshot.streams.values()
            if row.priority == _BROADCAST
        }

    def is_broadcast(self, project: int, stream: str) -> bool:
        return (project, stream) in self._broadcast

    def weights(self, claimed: Claimed) -> tuple[int, int]:
        """Of its project, and of its stream."""
        known = self._weights.get((claimed.project, claimed.stream))
        if known is None:
            return _weight(self.snapshot.projects.get(claimed.project)), 1
        return known

    def by_pool(self, claimed: Claimed) -> Iterator[tuple[str, Claimed]]:
        """What was claimed of one message, cut by the pools that its recipients' mail goes to."""
        if not self._by_recipient or len(claimed.claims) == 1:
            yield self._pool(claimed, claimed.claims[0].destination), claimed
            return
        parts: dict[str, list[Claim]] = {}
        for claim in claimed.claims:
            parts.setdefault(self._pool(claimed, claim.destination), []).append(claim)
        for pool, claims in parts.items():
            yield pool, msgspec.structs.replace(claimed, claims=tuple(claims))

    def _pool(self, claimed: Claimed, destination: str) -> str:
        # Without routes neither sender nor destination matters: one answer a stream.
        sender = claimed.sender.rpartition("@")[2].rstrip(">").lower() if self._routes else ""
        key = (claimed.project, claimed.stream, sender, destination if self._routes else "")
        pool = None if self._by_tag else self._known.get(key)
        if pool is None:
            row = self.snapshot.streams.get((claimed.project, claimed.stream))
            pool = way_of(
                self._routes,
                self._pools,
                project=claimed.project,
                stream=claimed.stream,
                sender_domain=sender,
                recipient_domain=destination,
                tags=_TAGS.decode(claimed.tags) if self._by_tag else (),
                stream_pool=None if row is None else row.pool,
            ).pool
            if not self._by_tag:
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                self._known[key] = pool
        return pool


def _weight(row: ProjectRow | StreamRow | None) -> int:
    return 1 if row is None else max(row.weight, 1)
