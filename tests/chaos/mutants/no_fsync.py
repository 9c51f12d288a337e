"""Mutant: the store flushes nothing (PRAGMA synchronous = OFF)."""

from everpost.model.message import Durability
from everpost.store.sqlite import connection
from tests.chaos.mutants.mutating import mutate

mutate(connection, "_SYNCHRONOUS", dict.fromkeys(Durability, 0))
