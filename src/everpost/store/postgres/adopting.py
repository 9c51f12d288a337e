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
    merged: ClassVar[bool] = True
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
        """What is new, and whose key is free, shares its statements; a journal may hold a minute's
        mail. The others are few, and come one by one."""
        tx.touch()  # the journal forgets what it hears of
        new = _new(tx, works)
        write(tx, [work._arrival(tx, work.messages) for work in new])
        written = set(new)
        return [Adopted() if work in written else work._adopt(tx) for work in works]

    def _arrival(self, tx: Transaction, messages: Sequence[NewMessage]) -> Arrival:
        durability = tx.assurance.value
        return Arrival(self.project, messages, now=tx.now, durability=durability, before=True)

    def _adopt(self, tx: Transaction) -> Adopted | Aliased:
        there = _names(tx, [(self.project, message.id) for message in self.messages])
        missing = [message for message in self.messages if message.id not in there]
        if missing:
            first = self._recorded(tx)
            if first:
                self._add_names(tx, first, there)
                return Aliased(first)
            write(tx, [self._arrival(tx, missing)])
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
            pairs = [(self.project, id_) for id_ in first]
            there = _names(tx, pairs) if same and not mine else {}
            if there and all(id_ in there and there[id_] is None for id_ in first):
                return first
        return ()

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


def _names(tx: Transaction, pairs: Sequence[tuple[int, Id]]) -> Mapping[Id, Id | None]:
    """Of these (project, id) the messages that are there, and what they are further names of."""
    return dict(fetch_rows(tx.db, _NAMES, [value for pair in pairs for value in pair]))


def _new(tx: Transaction, works: Sequence[Adopt]) -> list[Adopt]:
    """Those of which nothing is there, and nothing recorded under their key; it is recorded now."""
    seen = set(_names(tx, [(work.project, each.id) for work in works for each in work.messages]))
    plain: list[Adopt] = []
    keyed: dict[tuple[int, str], Adopt] = {}
    for work in works:
        ids = {message.id for message in work.messages}
        if seen & ids:
            continue
        if work.key is None:
            plain.append(work)
        elif (work.project, work.key.key) not in keyed:
            keyed[work.project, work.key.key] = work
        else:
            continue
        seen |= ids
    records = [
        value
        for work in keyed.values()
        if work.key is not None
        for value in record(work.project, work.key, work.messages)
    ]
    written = put_records(tx, records)
    return plain + [work for pair, work in keyed.items() if pair in written]
