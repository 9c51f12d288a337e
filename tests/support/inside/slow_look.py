"""A dispatch process that takes a while between its claim and its wait for more."""

import asyncio

from everpost.dispatch.loop import Dispatcher

_WHILE_S = 0.5
_patience = Dispatcher._patience


async def _slow_patience(self: Dispatcher) -> float:
    seconds = await _patience(self)
    try:
        async with asyncio.timeout(_WHILE_S):
            await asyncio.Event().wait()
    except TimeoutError:
        pass
    return seconds


Dispatcher._patience = _slow_patience  # type: ignore[method-assign]
