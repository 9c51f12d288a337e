"""Work that runs beside the rest of a process, and ends it when it fails."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Coroutine

from everpost import telemetry

__all__ = ["beside", "faulted"]

_FAULTS: list[str] = []


@contextlib.asynccontextmanager
async def beside(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run `work` beside the rest; an unexpected end of it ends the process (the supervisor starts
    it again, with a clean state)."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(_end_with)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _end_with(task: "asyncio.Future[None]") -> None:
    if task.cancelled() or task.exception() is None:
        return
    telemetry.event("role.fault", error=repr(task.exception()))
    _FAULTS.append(repr(task.exception()))
    os.kill(os.getpid(), signal.SIGTERM)


def faulted() -> bool:
    """Whether some work of this process has failed so: its end is none that was asked for."""
    return bool(_FAULTS)
