"""What processes tell each other through the store, beside the mail itself: notes of what they
found out, leases of what only one may do, and shares of limits that hold over all of them.

Nothing here is needed for an accepted message to survive. A process that cannot reach the store
goes on with what it knows; shares end by time.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from everpost.ids import Id
from everpost.model.shares import Ask, Grant

__all__ = ["Note", "Sharing"]


class Note(msgspec.Struct, frozen=True):
    """Something one process found out and others should know until `expires_at` (milliseconds):
    a later note of the same kind and key replaces it. `version` orders notes; the store sets it."""

    kind: str
    key: str
    data: Mapping[str, Any]
    expires_at: int
    version: int = 0


class Sharing(Protocol):
    """dispatch's and upkeep's slice."""

    async def note(self, notes: Sequence[Note]) -> None:
        """Write notes, in one transaction."""
        ...

    async def noted(self, kinds: Sequence[str], *, after: int = 0) -> tuple[int, Sequence[Note]]:
        """The newest version of all, and the notes of these kinds written after version `after`
        that have not expired, oldest first. Cheap when there is nothing new."""
        ...

    async def lead(self, name: str, owner: Id, *, lease_ms: int) -> int | None:
        """Take or renew the lease `name`: its term while it is ours, None while it is another's.
        A new owner gets a new term, and so does one whose own lease had ended. Cheap while it is
        another's."""
        ...

    async def yield_lead(self, name: str, owner: Id) -> None:
        """Give the lease back, if it is ours."""
        ...

    async def share(
        self, owner: Id, asks: Sequence[Ask], *, lease_ms: int, among: int = 1
    ) -> Sequence[Grant]:
        """Shares of limits, in the asks' order. Over all owners, seats granted and not expired
        never exceed `cap`, nor do the uses granted in one window; seats are divided fairly among
        those who want them, so that a share shrinks at its renewal when others come. Each dispatch
        process that is registered and has no seat finds its part when it comes, and so do those
        that are not there yet, up to `among` in all; of a budget each finds its part of what is
        left."""
        ...

    async def leave(self, owner: Id) -> None:
        """Give back all seats of an owner."""
        ...
