"""What reading a message answers, from its rows' columns. What a disk has changed is shown as far
as it can be read, and the alarm `row_corrupt` is raised. Every engine uses it."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from everpost import telemetry
from everpost.ids import made_at
from everpost.model.outcome import AttemptRecord
from everpost.model.states import HeldReason, InDoubtPolicy, State
from everpost.store.mail_rows import AttemptRow, EventRow, MessageRow, RecipientRow

__all__ = ["as_attempt", "as_event", "as_message", "as_recipient", "json_or", "policy_of"]

W = TypeVar("W", bound=StrEnum)

_NO_LISTS: Mapping[str, list[Any]] = {}
_UNREADABLE = {"type": "unreadable"}

_json = msgspec.json.decode


def json_or(text: str, default: Any, type: Any = Any) -> Any:
    """Stored JSON; `default` where it cannot be read any more."""
    try:
        return _json(text, type=type)
    except (msgspec.DecodeError, UnicodeError) as error:
        telemetry.alarm("row_corrupt").raise_(error=str(error))
        return default


def as_message(row: Sequence[Any], recipients: Sequence[RecipientRow]) -> MessageRow:
    """From the columns of `messages_by_id`."""
    (
        id_, project, stream, message_id, sender, subject, lists, tags, metadata, scheduled_at,
        expires_at, in_doubt, dialect, sandbox, durability, size, content,
    ) = row  # fmt: skip
    shown = json_or(lists, _NO_LISTS, dict[str, list[Any]])
    return MessageRow(
        id=id_,
        project=project,
        stream=stream,
        created_at=made_at(id_),
        message_id=message_id,
        sender=sender,
        subject=subject,
        to=shown.get("to", []),
        cc=shown.get("cc", []),
        bcc=shown.get("bcc", []),
        reply_to=shown.get("reply_to", []),
        tags=json_or(tags, [], list[tuple[str, str]]),
        metadata=json_or(metadata, {}, dict[str, Any]),
        scheduled_at=scheduled_at,
        expires_at=expires_at,
        in_doubt=policy_of(in_doubt),
        dialect=dialect,
        sandbox=bool(sandbox),
        durability=durability,
        size=size,
        recipients=recipients,
        content_id=content,
    )


def as_recipient(row: Sequence[Any]) -> RecipientRow:
    """From the columns of `recipients_by_message`."""
    (
        _, n, address, destination, kind, state, reason, route, attempts_, not_before, expires_at,
        settled_at, via,
    ) = row  # fmt: skip
    shown = _word(State, state, State.HELD)  # no verb moves what is in no state
    return RecipientRow(
        n=n,
        address=address,
        destination=destination,
        kind=kind,
        state=shown,
        reason=reason if shown == state else HeldReason.DAMAGED,
        route=route,
        attempts=attempts_,
        not_before=not_before,
        expires_at=expires_at,
        settled_at=settled_at,
        via=via,
    )


def _word(kind: type[W], stored: str, otherwise: W) -> W:
    """A stored word of a fixed vocabulary; `otherwise` for one that the disk made."""
    try:
        return kind(stored)
    except ValueError as error:
        telemetry.alarm("row_corrupt").raise_(error=str(error))
        return otherwise


def policy_of(stored: str) -> InDoubtPolicy:
    """A stored policy; hold, which decides nothing, for one that the disk made."""
    return _word(InDoubtPolicy, stored, InDoubtPolicy.HOLD)


def as_attempt(row: Sequence[Any]) -> AttemptRow:
    """What cannot be read of an attempt is left out; its outcome is `unreadable` then."""
    n, attempt, started, ended, detail, record = row
    return AttemptRow(
        n=n,
        attempt=attempt,
        outcome=json_or(detail, _UNREADABLE, dict[str, Any]),
        record=json_or(record, AttemptRecord(started, ended), AttemptRecord),
    )


def as_event(row: Sequence[Any]) -> EventRow:
    """Data that cannot be read any more is `{"unreadable": true}`."""
    id_, seq, n, type_, at, data, position = row
    said = json_or(data, {"unreadable": True}, dict[str, Any])
    return EventRow(message=id_, seq=seq, n=n, type=type_, at=at, data=said, position=position)
