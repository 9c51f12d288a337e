"""Mutant: nothing is written into the dot log."""

from collections.abc import Sequence

from everpost.dispatch.dots import Dot, DotLog, Step
from tests.chaos.mutants.mutating import mutate


def _mark(self: DotLog, step: Step, dots: Sequence[Dot]) -> None:
    return


mutate(DotLog, "mark", _mark)
