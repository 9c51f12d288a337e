"""What is accepted, as rows of the engines' tables: made in the caller's thread, before any
transaction begins."""

from collections.abc import Sequence
from typing import Any

import msgspec

from everpost.ids import day, made_at
from everpost.model.message import NewMessage, Priority
from everpost.store.checksums import checksum, row_crc
from everpost.store.mail_rows import IdempotencyKey

__all__ = ["DURABILITY_AT", "MESSAGE_WIDTH", "Arrival", "json_text", "record"]

_PRIORITY = {Priority.TRANSACTIONAL: 0, Priority.BROADCAST: 1}
_encode = msgspec.json.Encoder().encode

DURABILITY_AT = 14
"""Column of a message's row."""
MESSAGE_WIDTH = 21


def json_text(value: Any) -> str:
    """JSON as text."""
    return _encode(value).decode()


def record(project: int, key: IdempotencyKey, messages: Sequence[NewMessage]) -> tuple[Any, ...]:
    """A row of `put_idempotency`."""
    ids = b"".join(message.id for message in messages)
    return (project, key.key, key.fingerprint, key.answer, key.expires_at, ids)


class Arrival:
    """The rows of one request. `tables`: flat lists of values for `add_contents`, `add_parts`,
    `add_messages`, `add_recipients` and `add_events`. `due`: how many of its `recipients` are.
    `durability`: of messages that bear none. `before`: it was accepted when its messages were made,
    by a journal. Raises ValueError for a message of another project."""

    __slots__ = ("due", "project", "recipients", "tables")

    def __init__(
        self,
        project: int,
        messages: Sequence[NewMessage],
        *,
        now: int,
        durability: str,
        before: bool = False,
    ) -> None:
        self.project = project
        self.recipients = 0
        self.due = 0
        self.tables: tuple[list[Any], ...] = ([], [], [], [], [])
        for message in messages:
            if message.project != project:
                raise ValueError("a message of another project")
            self._add(message, now, durability, made_at(message.id) if before else now)

    def _add(self, message: NewMessage, now: int, durability: str, accepted_at: int) -> None:
        contents, parts, messages, recipients, events = self.tables
        id_, project, not_before = message.id, message.project, message.not_before
        contents += (id_, project, message.key_id, message.sealed, checksum(message.sealed))
        for hash_, sealed in message.parts:
            parts += (project, day(id_), hash_, message.key_id, sealed, checksum(sealed))
        lists = {
            "to": message.to,
            "cc": message.cc,
            "bcc": message.bcc,
            "reply_to": message.reply_to,
        }
        kept = durability if message.durability is None else message.durability.value
        messages += (
            id_, project, message.stream, id_, message.message_id, message.sender,
            message.subject, json_text(lists), json_text(message.tags),
            json_text(message.metadata), message.in_doubt.value, message.scheduled_at,
            message.expires_at, message.dialect, kept, int(message.sandbox), message.size,
            message.return_token, message.group, message.api_key, message.only,
        )  # fmt: skip
        due = int(not_before <= now)
        priority = _PRIORITY[message.priority]
        lanes = f"{project}/{message.stream}/"
        for n, to in enumerate(message.recipients, 1):
            recipients += (
                id_, n, project, to.address, to.destination, to.kind.value, priority,
                lanes + to.destination, not_before, due, message.expires_at,
                row_crc(id_, n, to.address.encode(), to.destination.encode()),
            )  # fmt: skip
        count = len(message.recipients)
        events += (id_, 1, None, "accepted", accepted_at, f'{{"recipients":{count}}}')
        self.recipients += count
        self.due += count * due
