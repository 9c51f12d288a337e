"""Mutant: idempotency keys are remembered by the process, not by the store."""

from collections.abc import Sequence

from everpost.store.interface import Accepted, Conflicting, IdempotencyKey, Replayed
from everpost.store.sqlite import accepting
from everpost.store.sqlite.accepting import Accept, Answer
from everpost.store.sqlite.work import Transaction
from tests.chaos.mutants.mutating import mutate

_known: dict[tuple[int, str], IdempotencyKey] = {}


def _sort_out(tx: Transaction, works: Sequence[Accept]) -> tuple[list[Answer], list[Accept]]:
    answers: list[Answer] = []
    fresh: list[Accept] = []
    for work in works:
        key = work.key
        known = None if key is None else _known.get((work.project, key.key))
        if key is not None and known is not None:
            same = known.fingerprint == key.fingerprint
            answers.append(Replayed(known.answer) if same else Conflicting())
            continue
        if key is not None:
            _known[work.project, key.key] = key
        answers.append(Accepted())
        fresh.append(work)
    return answers, fresh


mutate(accepting, "_sort_out", _sort_out)
