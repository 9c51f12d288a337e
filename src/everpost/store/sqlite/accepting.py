"""accept: everything of a request in one durable transaction, shared with its neighbours."""

import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar
from zlib import crc32

from everpost.ids import Id, day, made_at
from everpost.model.message import Assurance, NewMessage, Priority
from everpost.model.states import State, Verb
from everpost.store.interface import Accepted, Conflicting, IdempotencyKey, Replayed
from everpost.store.queries import Rows
from everpost.store.sqlite.connection import SQL
from everpost.store.sqlite.moves import json_text
from everpost.store.sqlite.work import ACCEPTED, Transaction, Work, fetch_rows, write_rows

__all__ = ["Accept", "Answer", "checksum", "record", "row_crc", "write"]

Answer = Accepted | Replayed | Conflicting

_RECORDS = Rows(SQL["idempotency_records"])
_PUT_RECORDS = Rows(SQL["put_idempotency"])
_TABLES = (
    Rows(SQL["add_contents"]),
    Rows(SQL["add_parts"]),
    Rows(SQL["add_messages"]),
    Rows(SQL["add_recipients"]),
    Rows(SQL["add_events"]),
)
_PRIORITY = {Priority.TRANSACTIONAL: 0, Priority.BROADCAST: 1}


def checksum(sealed: bytes) -> bytes:
    """BLAKE2b-128 of stored bytes: tells bit rot from a wrong key (F9)."""
    return hashlib.blake2b(sealed, digest_size=16).digest()


def row_crc(message: Id, n: int, address: bytes, destination: bytes) -> int:
    """CRC-32 of the message id, begun with `n`, then the address, then the destination, in UTF-8:
    mail never goes to an address or a place that the disk made (F9). 0.3 µs."""
    return crc32(destination, crc32(address, crc32(message, n)))


class Accept(Work[Answer]):
    """One call of accept. The rows are made in the caller's thread, before any lock is held.
    `before`: it was accepted when its messages were made, by a journal."""

    __slots__ = ("answer", "due", "key", "messages", "project", "recipients", "tables")
    merged: ClassVar[bool] = True
    verb: ClassVar[str] = Verb.ACCEPT

    def __init__(
        self,
        project: int,
        messages: Sequence[NewMessage],
        key: IdempotencyKey | None,
        *,
        now: int,
        durability: str,
        before: bool = False,
    ) -> None:
        super().__init__()
        self.project = project
        self.key = key
        self.messages = messages
        self.answer = Accepted(Assurance(durability))
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

    @classmethod
    def run(cls, tx: Transaction, works: "Sequence[Accept]") -> list[Answer]:
        answers, fresh = _sort_out(tx, works)
        write(tx, fresh)
        return answers


def write(tx: Transaction, works: Sequence[Accept]) -> None:
    """Their rows, but for the idempotency records."""
    for at, table in enumerate(_TABLES):
        write_rows(tx.db, table, [value for work in works for value in work.tables[at]])
    for work in works:
        tx.tally(work.project, ACCEPTED, work.recipients)
        tx.tally(work.project, State.QUEUED, work.recipients)
        tx.queued += work.due


def record(project: int, key: IdempotencyKey, messages: Sequence[NewMessage]) -> tuple[Any, ...]:
    """A row of `put_idempotency`."""
    ids = b"".join(message.id for message in messages)
    return (project, key.key, key.fingerprint, key.answer, key.expires_at, ids)


def _sort_out(tx: Transaction, works: Sequence[Accept]) -> tuple[list[Answer], list[Accept]]:
    """Each call's answer by its idempotency key, and which of them are to be written.

    A record that has ended counts as absent. The same key may come several times in one batch.
    """
    keyed = [(work.project, work.key.key) for work in works if work.key is not None]
    if not keyed:
        return [work.answer for work in works], list(works)
    records: dict[tuple[int, str], tuple[bytes, bytes]] = {}
    for project, key, fingerprint, answer, expires_at, _ in fetch_rows(
        tx.db, _RECORDS, [value for pair in dict.fromkeys(keyed) for value in pair]
    ):
        if expires_at > tx.now:
            records[project, key] = (fingerprint, answer)
    answers: list[Answer] = []
    fresh: list[Accept] = []
    values: list[Any] = []
    for work in works:
        key = work.key
        if key is not None:
            known = records.get((work.project, key.key))
            if known is not None:
                same = known[0] == key.fingerprint
                answers.append(Replayed(known[1]) if same else Conflicting())
                continue
            records[work.project, key.key] = (key.fingerprint, key.answer)
            values += record(work.project, key, work.messages)
        answers.append(work.answer)
        fresh.append(work)
    write_rows(tx.db, _PUT_RECORDS, values)
    return answers, fresh
