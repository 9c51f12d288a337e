"""adopt: what a journal accepted while no database answered, once and under its own ids."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from everpost.ids import Id
from everpost.model.message import NewMessage
from everpost.store.arrivals import Arrival, record
from everpost.store.cluster import Adopted, Aliased
from everpost.store.interface import IdempotencyKey
from everpost.store.postgres.accepting import put_records, write
from everpost.store.postgres.connection import SQL
from everpost.store.postgres.work import Rows, Transaction, Work, fetch_rows, run

__all__ = ["Adopt"]

_RECORDS = Rows(SQL["idempotency_records"])
_NAMES = Rows(SQL["names"])
_ADD_NAME = SQL["add_name"]


class Adopt(Work[Adopted | Aliased]):
    """One call of adopt."""

    __slots__ = ("key", "messages", "project")
    verb: ClassVar[str] = "adopt"

    def __init__(
        self, project: int, messages: Sequence[NewMessage], key: IdempotencyKey | None
    ) -> None:
        super().__init__()
        self.project = project
        self.messages = messages
        self.key = key

    @classmethod
    def run(cls, tx: Transaction, works: "Sequence[Adopt]") -> list[Adopted | Aliased]:
        return [work._adopt(tx) for work in works]

    def _adopt(self, tx: Transaction) -> Adopted | Aliased:
        tx.touch()  # the journal forgets what it hears of
        there = self._names(tx, [message.id for message in self.messages])
        missing = [message for message in self.messages if message.id not in there]
        if missing:
            first = self._recorded(tx)
            if first:
                self._add_names(tx, first, there)
                return Aliased(first)
            fresh = Arrival(
                self.project, missing, now=tx.now, durability=tx.assurance.value, before=True
            )
            write(tx, [fresh])
            return Adopted()
        stands_for = [there[message.id] for message in self.messages]
        of = tuple(each for each in stands_for if each is not None)
        return Aliased(of) if of and len(of) == len(stands_for) else Adopted()

    def _recorded(self, tx: Transaction) -> tuple[Id, ...]:
        """The messages that this very request got with other ids, if its key is taken. A free key
        is written."""
        if self.key is None or put_records(tx, record(self.project, self.key, self.messages)):
            return ()
        for _, _, fingerprint, _, _, ids in fetch_rows(
            tx.db, _RECORDS, (self.project, self.key.key)
        ):
            known = ids or b""
            first = tuple(known[at : at + 16] for at in range(0, len(known), 16))
            same = fingerprint == self.key.fingerprint and len(first) == len(self.messages)
            mine = first == tuple(message.id for message in self.messages)
            there = self._names(tx, first) if same and not mine else {}
            if there and all(id_ in there and there[id_] is None for id_ in first):
                return first
        return ()

    def _names(self, tx: Transaction, ids: Sequence[Id]) -> Mapping[Id, Id | None]:
        """Of these the messages that are there, and what they are further names of."""
        values = [value for id_ in ids for value in (self.project, id_)]
        return dict(fetch_rows(tx.db, _NAMES, values))

    def _add_names(
        self, tx: Transaction, first: Sequence[Id], there: Mapping[Id, Id | None]
    ) -> None:
        for message, of in zip(self.messages, first, strict=True):
            if message.id not in there:
                kept = message.durability
                values = {
                    "name": message.id, "project": self.project, "of": of,
                    "durability": tx.assurance.value if kept is None else kept.value,
                }  # fmt: skip
                run(tx.db, _ADD_NAME, values)
