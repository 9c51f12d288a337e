"""accept: everything of a request in one durable transaction, shared with its neighbours."""

from collections.abc import Sequence
from typing import Any, ClassVar

from everpost.model.message import Assurance, NewMessage
from everpost.model.states import State, Verb
from everpost.store.arrivals import Arrival, record
from everpost.store.interface import Accepted, Conflicting, IdempotencyKey, Replayed
from everpost.store.queries import Rows
from everpost.store.sqlite.connection import SQL
from everpost.store.sqlite.work import ACCEPTED, Transaction, Work, fetch_rows, write_rows

__all__ = ["Accept", "Answer", "write"]

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


class Accept(Work[Answer]):
    """One call of accept. The rows are made in the caller's thread, before any lock is held."""

    __slots__ = ("answer", "arrival", "key", "messages", "project")
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
    ) -> None:
        super().__init__()
        self.project = project
        self.key = key
        self.messages = messages
        self.answer = Accepted(Assurance(durability))
        self.arrival = Arrival(project, messages, now=now, durability=durability)

    @classmethod
    def run(cls, tx: Transaction, works: "Sequence[Accept]") -> list[Answer]:
        answers, fresh = _sort_out(tx, works)
        write(tx, [work.arrival for work in fresh])
        return answers


def write(tx: Transaction, arrivals: Sequence[Arrival]) -> None:
    """Their rows, but for the idempotency records."""
    for at, table in enumerate(_TABLES):
        write_rows(tx.db, table, [value for each in arrivals for value in each.tables[at]])
    for each in arrivals:
        tx.tally(each.project, ACCEPTED, each.recipients)
        tx.tally(each.project, State.QUEUED, each.recipients)
        tx.queued += each.due


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
