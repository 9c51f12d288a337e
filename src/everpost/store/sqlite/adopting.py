"""adopt: what a journal accepted while no database answered, once and under its own ids."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from everpost.ids import Id
from everpost.model.message import NewMessage
from everpost.store.arrivals import Arrival, record
from everpost.store.cluster import Adopted, Aliased
from everpost.store.interface import IdempotencyKey
from everpost.store.queries import Rows
from everpost.store.sqlite.accepting import write
from everpost.store.sqlite.connection import SQL
from everpost.store.sqlite.work import Transaction, Work, fetch_rows, write_rows

__all__ = ["Adopt"]

_RECORDS = Rows(SQL["idempotency_records"])
_PUT_RECORDS = Rows(SQL["put_idempotency"])
_NAMES = Rows(SQL["names"])
_ADD_NAME = SQL["add_name"]


class Adopt(Work[Adopted | Aliased]):
    """One call of adopt. `durability`: of messages that bear none."""

    __slots__ = ("durability", "key", "messages", "project")
    verb: ClassVar[str] = "adopt"

    def __init__(
        self,
        project: int,
        messages: Sequence[NewMessage],
        key: IdempotencyKey | None,
        *,
        durability: str,
    ) -> None:
        super().__init__()
        self.project = project
        self.messages = messages
        self.key = key
        self.durability = durability

    @classmethod
    def run(cls, tx: Transaction, works: "Sequence[Adopt]") -> list[Adopted | Aliased]:
        return [work._adopt(tx) for work in works]

    def _adopt(self, tx: Transaction) -> Adopted | Aliased:
        there = self._names(tx, [message.id for message in self.messages])
        missing = [message for message in self.messages if message.id not in there]
        if missing:
            recorded, first = self._recorded(tx)
            if first:
                self._add_names(tx, first, there)
                return Aliased(first)
            if self.key is not None and not recorded:
                write_rows(tx.db, _PUT_RECORDS, record(self.project, self.key, self.messages))
            fresh = Arrival(
                self.project, missing, now=tx.now, durability=self.durability, before=True
            )
            write(tx, [fresh])
            return Adopted()
        stands_for = [there[message.id] for message in self.messages]
        of = tuple(each for each in stands_for if each is not None)
        return Aliased(of) if of and len(of) == len(stands_for) else Adopted()

    def _recorded(self, tx: Transaction) -> tuple[bool, tuple[Id, ...]]:
        """Whether the key is taken, and if that was by this very request with other ids, the
        messages that it got then."""
        if self.key is None:
            return False, ()
        for _, _, fingerprint, _, expires_at, ids in fetch_rows(
            tx.db, _RECORDS, (self.project, self.key.key)
        ):
            if expires_at <= tx.now:
                continue
            first = tuple(ids[at : at + 16] for at in range(0, len(ids), 16))
            same = fingerprint == self.key.fingerprint and len(first) == len(self.messages)
            mine = first == tuple(message.id for message in self.messages)
            there = self._names(tx, first) if same and not mine else {}
            if there and all(id_ in there and there[id_] is None for id_ in first):
                return True, first
            return True, ()
        return False, ()

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
                    "durability": self.durability if kept is None else kept.value,
                }  # fmt: skip
                tx.db.execute(_ADD_NAME, values)
