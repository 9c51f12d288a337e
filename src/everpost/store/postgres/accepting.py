"""accept: everything of a request in one durable transaction, shared with its neighbours.

The message's id decides whether a request has been written: what is there stays as it is. So the
same call may come again after a COMMIT whose answer was lost (F29), from this lane or from a
journal.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from everpost.ids import Id
from everpost.model.message import Assurance, NewMessage
from everpost.model.states import State, Verb
from everpost.store.arrivals import DURABILITY_AT, MESSAGE_WIDTH, Arrival, record
from everpost.store.interface import (
    Accepted,
    Conflicting,
    IdempotencyKey,
    Replayed,
    StoreError,
    StoreUnavailable,
)
from everpost.store.postgres.connection import SQL
from everpost.store.postgres.work import (
    ACCEPTED,
    Rows,
    Transaction,
    Work,
    fetch_rows,
    write_rows,
)

__all__ = ["Accept", "Answer", "put_records", "write"]

Answer = Accepted | Replayed | Conflicting

_RECORDS = Rows(SQL["idempotency_records"])
_PUT_RECORDS = Rows(SQL["put_idempotency"])
_ADD_CONTENTS = Rows(SQL["add_contents"])
_ADD_PARTS = Rows(SQL["add_parts"])
_ADD_MESSAGES = Rows(SQL["add_messages"])
_ADD_RECIPIENTS = Rows(SQL["add_recipients"])
_ADD_EVENTS = Rows(SQL["add_events"])
_BEAR_DURABILITY = Rows(SQL["bear_durability"])
_RECORD_WIDTH = _PUT_RECORDS.width


class Accept(Work[Answer]):
    """One call of accept. The rows are made in the caller's thread. `expected`: what a COMMIT will
    most likely mean."""

    __slots__ = ("arrival", "expected", "key", "messages", "project")
    merged: ClassVar[bool] = True
    verb: ClassVar[str] = Verb.ACCEPT

    def __init__(
        self,
        project: int,
        messages: Sequence[NewMessage],
        key: IdempotencyKey | None,
        *,
        now: int,
        expected: Assurance,
    ) -> None:
        super().__init__()
        self.project = project
        self.key = key
        self.messages = messages
        self.expected = expected
        self.arrival = Arrival(project, messages, now=now, durability=expected.value)

    def ids(self) -> tuple[Id, ...]:
        return tuple(message.id for message in self.messages)

    def bear(self, assurance: Assurance) -> list[Any]:
        """Its messages' rows say what they get; (project, id, that) of those that are changed."""
        if assurance is self.expected:
            return []
        rows, changed = self.arrival.tables[2], []
        for n, message in enumerate(self.messages):
            if message.durability is None:
                rows[n * MESSAGE_WIDTH + DURABILITY_AT] = assurance.value
                changed += [message.project, message.id, assurance.value]
        self.expected = assurance
        return changed

    @classmethod
    def run(cls, tx: Transaction, works: "Sequence[Accept]") -> list[Answer]:
        changed = [value for work in works for value in work.bear(tx.assurance)]
        answers, fresh = _sort_out(tx, works)
        write(tx, [work.arrival for work in fresh])
        if tx.doubted:  # they may be there, with what they were to get then
            write_rows(tx.db, _BEAR_DURABILITY, changed)
        return answers


def write(tx: Transaction, arrivals: Sequence[Arrival]) -> None:
    """Their rows, but for the idempotency records; not of those whose messages are there."""
    arrivals = _add_messages(tx, arrivals)
    contents, parts, _, recipients, events = (
        [value for each in arrivals for value in each.tables[at]] for at in range(5)
    )
    write_rows(tx.db, _ADD_CONTENTS, contents)
    write_rows(tx.db, _ADD_PARTS, parts)
    write_rows(tx.db, _ADD_RECIPIENTS, recipients)
    write_rows(tx.db, _ADD_EVENTS, events)
    for each in arrivals:
        tx.tally(each.project, ACCEPTED, each.recipients)
        tx.tally(each.project, State.QUEUED, each.recipients)
        tx.queued += each.due


def _add_messages(tx: Transaction, arrivals: Sequence[Arrival]) -> Sequence[Arrival]:
    """Those whose messages were not there; all of one request are, or none."""
    values = [value for each in arrivals for value in each.tables[2]]
    added = fetch_rows(tx.db, _ADD_MESSAGES, values)
    if len(added) * MESSAGE_WIDTH == len(values):
        return arrivals
    tx.touch()
    new = {id_ for (id_,) in added}
    fresh = []
    for each in arrivals:
        ids = each.tables[2][::MESSAGE_WIDTH]
        fewer = len(new.intersection(ids))
        if fewer == len(ids):
            fresh.append(each)
        elif fewer:
            raise StoreError("some messages of a request exist already, others do not")
    return fresh


def put_records(tx: Transaction, records: Sequence[Any]) -> set[tuple[int, str]]:
    """Write a flat list of `record` rows, but for those of keys that are taken; which were written.
    Whoever is writing the same key is waited for. In order, so that no two wait for each other."""
    rows = [tuple(records[at : at + _RECORD_WIDTH]) for at in range(0, len(records), _RECORD_WIDTH)]
    rows.sort(key=lambda row: row[:2])
    values = [value for row in rows for value in row]
    return set(fetch_rows(tx.db, _PUT_RECORDS, values, before=(tx.now,)))


def _sort_out(tx: Transaction, works: Sequence[Accept]) -> tuple[list[Answer], list[Accept]]:
    """Each call's answer by its idempotency key, and which of them are to be written.

    A record that has ended counts as absent. The same key may come several times in one batch: the
    first of them is written, if any.
    """
    accepted = Accepted(tx.assurance)
    first: dict[tuple[int, str], Accept] = {}
    for work in works:
        if work.key is not None:
            first.setdefault((work.project, work.key.key), work)
    if not first:
        return [accepted] * len(works), list(works)
    records = [
        value
        for work in first.values()
        if work.key is not None
        for value in record(work.project, work.key, work.messages)
    ]
    written = put_records(tx, records)
    known = _known(tx, [pair for pair in first if pair not in written])
    answers: list[Answer] = []
    fresh: list[Accept] = []
    for work in works:
        key = work.key
        pair = (work.project, "" if key is None else key.key)
        if key is None or (pair in written and first[pair] is work):
            answers.append(accepted)
            fresh.append(work)
            continue
        leader = first[pair].key
        if pair in known:
            fingerprint, answer, ids = known[pair]
        elif pair in written and leader is not None:
            fingerprint, answer, ids = leader.fingerprint, leader.answer, b""
        else:
            raise StoreUnavailable("an idempotency record went while it was looked at")
        if ids and ids == b"".join(work.ids()):  # our own, of before
            answers.append(accepted)
            fresh.append(work)
        else:
            same = fingerprint == key.fingerprint
            answers.append(Replayed(answer) if same else Conflicting())
    return answers, fresh


def _known(
    tx: Transaction, pairs: Sequence[tuple[int, str]]
) -> dict[tuple[int, str], tuple[bytes, bytes, bytes]]:
    """What is recorded under keys that are taken: (fingerprint, answer, message ids)."""
    if not pairs:
        return {}
    tx.touch()
    return {
        (project, key): (fingerprint, answer, ids or b"")
        for project, key, fingerprint, answer, _, ids in fetch_rows(
            tx.db, _RECORDS, [value for pair in pairs for value in pair]
        )
    }
