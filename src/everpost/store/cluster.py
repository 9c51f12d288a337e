"""What a store of several nodes knows beyond one of one: nodes, its own standing, and what a
node's journal accepted while no database answered."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from everpost.ids import Id
from everpost.model.message import NewMessage
from everpost.store.mail_rows import IdempotencyKey

__all__ = ["Adopted", "Adopting", "Aliased", "NodeRow", "Nodes", "Standing", "StoreState"]


class NodeRow(msgspec.Struct, frozen=True):
    """One node. `address`: the URL under which its peers reach it, or empty. `skew_ms`: its wall
    clock less the store's. Times by the store's clock; `appear` sets `seen_at`."""

    name: str
    site: str
    version: str
    address: str
    roles: tuple[str, ...]
    started_at: int
    seen_at: int = 0
    skew_ms: int = 0


class Nodes(Protocol):
    """Who is there."""

    async def appear(self, node: NodeRow) -> None:
        """Write the row of that name: a sign of life."""
        ...

    async def nodes(self) -> Sequence[NodeRow]:
        """By name."""
        ...

    async def disappear(self, name: str) -> None: ...


class Adopted(msgspec.Struct, frozen=True, gc=False):
    """The messages are in the store, now or since before."""


class Aliased(msgspec.Struct, frozen=True, gc=False):
    """Their key had been accepted with other messages: these are only further names of those,
    in order."""

    of: tuple[Id, ...]


class Adopting(Protocol):
    """The journal's slice."""

    async def adopt(
        self, project: int, messages: Sequence[NewMessage], key: IdempotencyKey | None = None
    ) -> Adopted | Aliased:
        """Write what a journal has accepted, in one durable transaction, with the durability that
        each message bears. Idempotent: what is there by its id stays as it is. Aliased only where
        the key's record has the same fingerprint: messages whose key was recorded for another
        payload were promised, too, and are written without it. Raises StoreUnavailable."""
        ...


class StoreState(msgspec.Struct, frozen=True):
    """What the engine last saw of itself. `durable`: an answer of success means what the settings
    say; `problems`: in words for operators, why not. `timeline` grows with every failover."""

    reachable: bool = True
    writable: bool = True
    durable: bool = True
    problems: tuple[str, ...] = ()
    timeline: int = 1
    standbys: int = 0
    skew_ms: int = 0


class Standing(Protocol):
    """For readiness and for the journal."""

    def state(self) -> StoreState:
        """From memory: costs nothing, asks nobody."""
        ...
