"""The record of a run, read in bulk from the file of a stopped store."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import apsw

__all__ = ["Element", "Recorded", "read_record"]


@dataclass(frozen=True, slots=True)
class Element:
    """One recipient. `in_doubt`: attempts that were; `first_ms`: when the first one began."""

    state: str
    reason: str = ""
    in_doubt: int = 0
    first_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """One message. `elements`: its recipients by local part."""

    id: str
    name: str
    message_id: str
    policy: str
    scheduled_ms: int | None
    elements: dict[str, Element]


_MESSAGES = "SELECT id, subject, message_id, in_doubt, scheduled_at FROM messages"
_DOUBTS = "SELECT message, recipient FROM events WHERE type = 'in_doubt'"
_FIRSTS = "SELECT message, n, min(started_at) FROM attempts GROUP BY message, n"
_RECIPIENTS = "SELECT message, n, address, state, coalesce(reason, '') FROM recipients"


def read_record(store: Path) -> list[Recorded]:
    """All messages of the store at `store`, whatever state their rows are in."""
    db = apsw.Connection(str(store), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        doubts = Counter(db.execute(_DOUBTS))
        firsts = {(message, n): at for message, n, at in db.execute(_FIRSTS)}
        elements: dict[bytes, dict[str, Element]] = {}
        for message, n, address, state, reason in db.execute(_RECIPIENTS):
            local = str(address).partition("@")[0]
            elements.setdefault(message, {})[local] = Element(
                state, reason, doubts[message, n], firsts.get((message, n))
            )
        return [
            Recorded(str(UUID(bytes=id_)), name, message_id, policy, due, elements.get(id_, {}))
            for id_, name, message_id, policy, due in db.execute(_MESSAGES)
        ]
    finally:
        db.close()
