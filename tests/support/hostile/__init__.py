"""Hostile inputs and what must come of them: one table for every door and room.

Rows carry their number of RELIABILITY §5. A test of a room takes the places it knows
(`rows("mailbox")`); a door sends the same value through its own surface and expects the same.
docs/reference/hostile-input.md shows the table with the tests that run it.
"""

from collections.abc import Sequence

from tests.support.hostile.mailboxes import MAILBOXES
from tests.support.hostile.requests import EMAIL, PATH_IDS, QUERIES, REQUESTS
from tests.support.hostile.row import (
    PLACES,
    Hostile,
    HostileQuery,
    HostileRequest,
    HostileSetting,
    HostileWire,
    shown,
)
from tests.support.hostile.settings import GOOD, SETTINGS
from tests.support.hostile.values import VALUES
from tests.support.hostile.wires import SMUGGLED, WIRES

__all__ = [
    "EMAIL",
    "GOOD",
    "PATH_IDS",
    "PLACES",
    "QUERIES",
    "REQUESTS",
    "ROWS",
    "SETTINGS",
    "SMUGGLED",
    "WIRES",
    "Hostile",
    "HostileQuery",
    "HostileRequest",
    "HostileSetting",
    "HostileWire",
    "rows",
    "shown",
]

ROWS: Sequence[Hostile] = (*MAILBOXES, *VALUES)


def rows(*places: str) -> list[Hostile]:
    """The rows of these places."""
    return [row for row in ROWS if row.place in places]
