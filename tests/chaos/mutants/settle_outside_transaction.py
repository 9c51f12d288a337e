"""Mutant: a recipient's state and the line of its timeline are written by two transactions."""

from everpost.store.sqlite.moves import Moves
from tests.chaos.mutants.mutating import mutate


def _write(self: Moves) -> None:
    events, self._events = self._events, []
    _original(self)
    self._tx.db.execute("COMMIT")
    self._tx.db.execute("BEGIN IMMEDIATE")
    self._moved, self._attempts, self._events = [], [], events
    _original(self)


for _name in ("_moved", "_attempts", "_events"):
    assert _name in Moves.__slots__
_original = mutate(Moves, "write", _write)
