"""Which pool carries what was claimed, and what it weighs: settings, as dispatch asks them. Pure,
but for the alarm about a route that nobody can read; made anew for each revision of the settings.
"""

from collections.abc import Iterator

import msgspec

from everpost import telemetry
from everpost.model.pool import DEFAULT_POOL, Route, pool_for
from everpost.store.directory import Snapshot
from everpost.store.interface import Claim, Claimed, ProjectRow, RouteRow, StreamRow

__all__ = ["Assignment"]

_BROADCAST = "broadcast"
_MOST_KNOWN = 10_000
"""Answers that are remembered."""

_TAGS = msgspec.json.Decoder(list[tuple[str, str]])


class Assignment:
    """By one snapshot. A route to a pool that is gone does not count, nor does such a pool of a
    stream: the next that fits decides, in the end the default pool. A route that cannot be read
    raises the alarm `route_unusable:<name>`; `before`, by the last snapshot, raised it for others.
    """

    def __init__(self, snapshot: Snapshot, before: "Assignment | None" = None) -> None:
        self.snapshot = snapshot
        names = {row.id: row.name for row in snapshot.pools}
        self._pools = {*names.values(), DEFAULT_POOL}
        self._unreadable: set[str] = set()
        routes = (self._route(row, names.get(row.pool)) for row in snapshot.routes)
        self._routes = tuple(route for route in routes if route is not None)
        for name in (set() if before is None else before._unreadable) - self._unreadable:
            _alarm(name).clear()
        self._by_recipient = any(route.recipient_domain is not None for route in self._routes)
        self._by_tag = any(route.tag is not None for route in self._routes)
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

    def _route(self, row: RouteRow, pool: str | None) -> Route | None:
        """None where its pool is gone, or it cannot be read (a later release may know more)."""
        if pool is None:
            return None
        try:
            return msgspec.convert({**row.settings, "name": row.name, "pool": pool}, Route)
        except msgspec.ValidationError as error:
            self._unreadable.add(row.name)
            _alarm(row.name).raise_(route=row.name, reason="its row", error=str(error))
            return None

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
        if not self._routes:
            return self._of_stream(claimed) or DEFAULT_POOL
        sender = claimed.sender.rpartition("@")[2].rstrip(">").lower()
        key = (claimed.project, claimed.stream, sender, destination)
        pool = None if self._by_tag else self._known.get(key)
        if pool is None:
            pool = pool_for(
                self._routes,
                project=claimed.project,
                stream=claimed.stream,
                sender_domain=sender,
                recipient_domain=destination,
                tags=_TAGS.decode(claimed.tags) if self._by_tag else (),
                stream_pool=self._of_stream(claimed),
            )
            if not self._by_tag:
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                self._known[key] = pool
        return pool

    def _of_stream(self, claimed: Claimed) -> str | None:
        row = self.snapshot.streams.get((claimed.project, claimed.stream))
        return row.pool if row is not None and row.pool in self._pools else None


def _weight(row: ProjectRow | StreamRow | None) -> int:
    return 1 if row is None else max(row.weight, 1)


def _alarm(route: str) -> telemetry.Alarm:
    return telemetry.alarm(f"route_unusable:{route}")
