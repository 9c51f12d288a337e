"""What one process does for all nodes while it leads: it takes over what nodes that are gone have
left, and forgets them in the end.

Everything here may be done twice: one that was stopped while it led, and goes on after another has
taken the lead, changes nothing that it may not (F89). Claims are fenced by their terms; who is
forgotten too soon writes himself down again with his next sign of life.
"""

from collections.abc import Sequence
from typing import Protocol

from everpost import telemetry
from everpost.clock import Clock
from everpost.recovery.leading import Leading
from everpost.recovery.presence import Presence, is_gone
from everpost.recovery.rescuer import Rescuer
from everpost.store.cluster import NodeRow, Nodes
from everpost.store.interface import Note

__all__ = ["LEADER", "Company"]

LEADER = "leader"
"""Kind of the note that says which node leads."""
_FORGOTTEN_MS = 86_400_000
_TELL_MS = 10_000
_TOLD_FOR_MS = 30_000


class _Store(Nodes, Protocol):
    """What is asked of the store here."""

    async def note(self, notes: Sequence[Note]) -> None: ...


class Company:
    """All nodes, as seen by `name`. `gone_s`: as the settings have it."""

    def __init__(
        self,
        *,
        name: str,
        store: _Store,
        leading: Leading,
        presence: Presence,
        rescuer: Rescuer,
        clock: Clock,
        gone_s: float,
    ) -> None:
        self._name = name
        self._store = store
        self._leading = leading
        self._presence = presence
        self._rescuer = rescuer
        self._clock = clock
        self._gone_ms = int(gone_s * 1000)
        self._told: tuple[int | None, int] = (None, 0)
        self._missing: frozenset[str] = frozenset()

    def stretch_ms(self) -> int:
        """For how long the store has been answering."""
        return self._presence.stretch_ms()

    async def leads(self) -> bool:
        """Whether this process leads now. Raises StoreError."""
        leads = await self._leading.ask()
        if leads:
            await self._tell()
        else:  # another process leads, and its alarm is what counts
            self._missing = frozenset()
            telemetry.alarm("node_gone").clear()
        return leads

    async def _tell(self) -> None:
        """For people: nothing goes by it."""
        term, now = self._leading.term, self._clock.now()
        said, at = self._told
        if said == term and abs(now - at) < _TELL_MS:
            return
        self._told = term, now
        data = {"node": self._name, "term": term}
        await self._store.note([Note(LEADER, "upkeep", data, now + _TOLD_FOR_MS)])

    async def look_after(self) -> int:
        """Take over what other nodes have left; how many claims. Raises StoreError."""
        nodes = {node.name: node for node in await self._store.nodes()}
        now, stretch_ms = self._clock.now(), self._presence.stretch_ms()

        def gone(name: str) -> bool:
            return is_gone(nodes.get(name), now=now, stretch_ms=stretch_ms, gone_ms=self._gone_ms)

        self._raise({name for name in nodes if name != self._name and gone(name)})
        moved = await self._rescuer.of_other_nodes(gone, stretch_ms=stretch_ms)
        for node in nodes.values():
            if gone(node.name) and self._is_over(node, now) and self._leading.leads:
                await self._store.disappear(node.name)
                telemetry.event("node.forgotten", node=node.name)
        return moved

    def _raise(self, missing: set[str]) -> None:
        if missing != self._missing:
            for name in missing - self._missing:
                telemetry.event("node.gone", node=name)
            self._missing = frozenset(missing)
        alarm = telemetry.alarm("node_gone")
        if missing:
            alarm.raise_(nodes=sorted(missing))
        else:
            alarm.clear()

    def _is_over(self, node: NodeRow, now: int) -> bool:
        return node.name != self._name and now - node.seen_at >= _FORGOTTEN_MS

    async def step_down(self) -> None:
        """At the end of this process."""
        await self._leading.step_down()
