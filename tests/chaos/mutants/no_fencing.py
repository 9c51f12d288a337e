"""Mutant: whoever says that a claim is its own is believed, whatever owner and term the store has;
and nobody looks at the deadline before the final dot."""

from collections.abc import Sequence
from typing import Any

import msgspec

from everpost.dispatch.attempt import Attempts
from everpost.store.sqlite import claiming
from everpost.store.sqlite.settling import Settle
from everpost.store.sqlite.work import Transaction
from tests.chaos.mutants.mutating import mutate


class _Any:
    """Equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def _run(cls: type[Settle], tx: Transaction, works: Sequence[Settle]) -> list[Sequence[bool]]:
    anybody: Any = _Any()
    for work in works:
        work.owner = anybody
        work.settlements = [msgspec.structs.replace(s, term=anybody) for s in work.settlements]
    answers: list[Sequence[bool]] = _original.__func__(cls, tx, works)
    return answers


def _deadline(self: Attempts, work: object) -> int:
    return 1 << 62


def _extend(tx: Transaction, owner: bytes, claims: Sequence[Any], *, lease_ms: int) -> Any:
    return [True] * len(claims)


_original = mutate(Settle, "run", classmethod(_run))
mutate(Attempts, "_deadline", _deadline)
mutate(claiming, "extend", _extend)
