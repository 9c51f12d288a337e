"""The reading verbs, on connections and in threads of their own: a slow list holds up neither a
writer nor the event loop. Each function is one read transaction on the primary, so that whoever has
written finds it (F34)."""

from collections.abc import Sequence
from typing import Any

import msgspec

from everpost import telemetry
from everpost.ids import Id
from everpost.model.states import State
from everpost.store.checksums import checksum
from everpost.store.interface import (
    AttemptRow,
    EventRow,
    IdempotencyKey,
    MessageRow,
    QueueFacts,
    RecipientRow,
    StoreCorrupt,
)
from everpost.store.mail_columns import as_attempt, as_message, as_recipient
from everpost.store.postgres.connection import SQL, Db
from everpost.store.postgres.recovery import as_outbox_event
from everpost.store.postgres.work import ACCEPTED, fetch_all, integer
from everpost.store.turns import LAST, is_group

__all__ = [
    "answered",
    "attempts",
    "content",
    "events",
    "facts",
    "message",
    "messages",
    "next_due",
    "parts",
]

_IDS = {
    (None, False): SQL["message_ids_older"],
    (None, True): SQL["message_ids_newer"],
    (True, False): SQL["sandbox_ids_older"],
    (True, True): SQL["sandbox_ids_newer"],
    (False, False): SQL["sent_ids_older"],
    (False, True): SQL["sent_ids_newer"],
}
"""By `sandbox` and whether the page goes towards newer messages."""

_STANDS_FOR = SQL["stands_for"]
_ANSWERED = SQL["answered"]
_MESSAGES = SQL["messages_by_id"]
_RECIPIENTS = SQL["recipients_by_message"]
_CONTENT = SQL["content"]
_ATTEMPTS = SQL["attempts_of_message"]
_EVENTS = SQL["events_of_message"]
_PARTS = SQL["parts"]
_BY_INDEX = SQL["by_index"]
_TALLIES = SQL["tallies"]
_DUE_NOW = SQL["due_now"]
_DUE_UNSEEN = SQL["due_unseen"]
_LANE_HEADS = SQL["lane_heads"]
_NEXT_LATER = SQL["next_later"]

_AFTER_ALL_IDS = b"\xff" * 17
_MOST_COUNTED = 10_000
_MOST_LANES = 20_000


def message(db: Db, project: int, id_: Id) -> MessageRow | None:
    """One message with its content, whose checksum is verified: damaged content is not shown."""
    named = fetch_all(db, _STANDS_FOR, (project, id_))
    found = _by_id(db, project, [row[0] for row in named]) if named else []
    if not found:
        return None
    row = msgspec.structs.replace(found[0], id=id_)
    for key_id, sealed, digest in fetch_all(db, _CONTENT, (row.content_id,)):
        if checksum(sealed) == digest:
            return msgspec.structs.replace(row, key_id=key_id, sealed=sealed)
        telemetry.alarm("content_corrupt").raise_(message=id_)
    return row


def messages(
    db: Db,
    project: int,
    *,
    limit: int,
    after: Id | None,
    before: Id | None,
    sandbox: bool | None,
) -> tuple[Sequence[MessageRow], bool]:
    """A page, newest first, by keyset: as quick a million messages down as on the first page."""
    newer = before is not None and after is None
    bound = before if newer else after
    values = {
        "project": project,
        "bound": _AFTER_ALL_IDS if bound is None else bound,
        "most": limit + 1,
    }
    fetch_all(db, _BY_INDEX)
    ids = [row[0] for row in fetch_all(db, _IDS[sandbox, newer], values)]
    page = ids[:limit]
    if newer:
        page.reverse()
    return _by_id(db, project, page), len(ids) > limit


def _by_id(db: Db, project: int, ids: Sequence[Id]) -> list[MessageRow]:
    recipients: dict[Id, list[RecipientRow]] = {id_: [] for id_ in ids}
    for row in fetch_all(db, _RECIPIENTS, (list(ids),)):
        recipients[row[0]].append(as_recipient(row))
    found = {row[0]: row for row in fetch_all(db, _MESSAGES, (list(ids), project))}
    return [as_message(found[id_], recipients[id_]) for id_ in ids if id_ in found]


def attempts(db: Db, project: int, id_: Id) -> Sequence[AttemptRow]:
    return [as_attempt(row) for row in _of_named(db, _ATTEMPTS, project, id_)]


def events(db: Db, project: int, id_: Id) -> Sequence[EventRow]:
    return [as_outbox_event(row) for row in _of_named(db, _EVENTS, project, id_)]


def _of_named(db: Db, query: bytes, project: int, name: Id) -> list[tuple[Any, ...]]:
    """Rows of the message of that name."""
    named = fetch_all(db, _STANDS_FOR, (project, name))
    return fetch_all(db, query, named[0]) if named else []


def answered(db: Db, project: int, key: str, *, now: int) -> IdempotencyKey | None:
    """What an idempotency key was answered with; None when it is free, or free again."""
    for fingerprint, answer, expires_at in fetch_all(db, _ANSWERED, (project, key)):
        if expires_at > now:
            return IdempotencyKey(key, fingerprint, answer, expires_at)
    return None


def content(db: Db, id_: Id) -> bytes:
    """Sealed content. Raises StoreCorrupt when it is missing or damaged."""
    for _, sealed, digest in fetch_all(db, _CONTENT, (id_,)):
        if checksum(sealed) == digest:
            return bytes(sealed)
    telemetry.alarm("content_corrupt").raise_(content=id_)
    raise StoreCorrupt("the stored content of a message is missing or damaged")


def parts(db: Db, project: int, refs: Sequence[tuple[int, bytes]]) -> Sequence[tuple[int, bytes]]:
    """Large parts in the order asked for. Raises StoreCorrupt for a missing or damaged one."""
    wanted = list(dict.fromkeys(refs))
    days = [day for day, _ in wanted]
    values = (days, [hash_ for _, hash_ in wanted], project, days)
    found: dict[tuple[int, bytes], tuple[int, bytes]] = {}
    for day, hash_, key_id, sealed, digest in fetch_all(db, _PARTS, values):
        if checksum(sealed) != digest:
            telemetry.alarm("content_corrupt").raise_(part=hash_)
            raise StoreCorrupt(f"a stored part of day {day} is damaged")
        found[day, hash_] = (key_id, sealed)
    missing = [day for day, hash_ in refs if (day, hash_) not in found]
    if missing:
        telemetry.alarm("content_corrupt").raise_(missing=len(missing))
        raise StoreCorrupt(f"a stored part of day {missing[0]} is missing")
    return [found[ref] for ref in refs]


def facts(db: Db, *, now: int) -> QueueFacts:
    """From the tallies and the ends of indexes, never by counting the queue. `due` is exact up to
    10,000."""
    states: dict[str, int] = dict(fetch_all(db, _TALLIES))
    accepted = states.pop(ACCEPTED, 0)
    oldest = next_due(db, now=now)
    due = integer(db, _DUE_NOW, {"most": _MOST_COUNTED})
    if due < _MOST_COUNTED:
        due += integer(db, _DUE_UNSEEN, {"now": now, "most": _MOST_COUNTED - due})
    return QueueFacts(
        states={state.value: states.get(state.value, 0) for state in State},
        accepted=accepted,
        oldest_due_ms=0 if oldest is None else max(now - oldest, 0),
        due=due,
    )


def next_due(db: Db, busy: Sequence[str] = (), *, broadcast: bool = True, now: int) -> int | None:
    """When the earliest queued recipient is due, but for what is due already and may not be claimed
    (see `Claiming.next_due`). What has been due is, though the clock was set back since."""
    values = {
        "most": _MOST_LANES,
        "priority": int(broadcast),
        "last": LAST,
        "busy": list(busy),
        "busy_groups": [name for name in busy if is_group(name)],
    }
    fetch_all(db, _BY_INDEX)
    heads = fetch_all(db, _LANE_HEADS, values)
    times = [min(int(row[0]), now) for row in heads if row[0] is not None]
    times += [int(row[0]) for row in fetch_all(db, _NEXT_LATER)]
    return min(times, default=None)
