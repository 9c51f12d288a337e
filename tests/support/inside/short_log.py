"""A log whose queue holds few lines, in a server that says a good deal: two lines a message."""

from collections.abc import Sequence
from typing import Any

from everpost import telemetry
from everpost.dispatch.dots import Dot, DotLog, Step
from everpost.intake import Intake, Receipt

assert hasattr(telemetry, "_MOST_LINES")
telemetry._MOST_LINES = 20

_FILLER = "x" * 400
_accept = Intake.accept
_mark = DotLog.mark


async def _accepting(self: Intake, *args: Any, **kwargs: Any) -> Receipt:
    telemetry.event("said", filler=_FILLER)
    return await _accept(self, *args, **kwargs)


def _marking(self: DotLog, step: Step, dots: Sequence[Dot]) -> None:
    telemetry.event("said", filler=_FILLER)
    _mark(self, step, dots)


Intake.accept = _accepting  # type: ignore[method-assign]
DotLog.mark = _marking  # type: ignore[method-assign]
