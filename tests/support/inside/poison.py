"""Mail that ends the process that composes it, until the file `CURED` is there: a subject `poison:
killed` by a signal, `poison: loops` by never coming back. Mail `beside` takes its time, so that it
is being composed when that happens, as often as it may be."""

import asyncio
import os
import signal
from pathlib import Path

from everpost.dispatch import settle
from everpost.dispatch.rendering import Renderer, Stored
from everpost.model.message import Content

_WHILE_S = 0.3
_CURED = Path(os.environ["CURED"])
assert hasattr(settle, "_SUSPECT_MS")
settle._SUSPECT_MS = int(os.environ.get("SUSPECT_MS", settle._SUSPECT_MS))
_open = Renderer.open
_here = asyncio.Event()


def _harms() -> bool:
    return not _CURED.exists()


async def _opening(self: Renderer, stored: Stored, sealed: bytes | None) -> Content:
    content = await _open(self, stored, sealed)
    if content.subject.startswith("poison") and _harms():
        if content.subject == "poison: killed":
            os.kill(os.getpid(), signal.SIGKILL)
        while True:
            pass
    if content.subject.startswith("beside") and _harms():
        try:
            async with asyncio.timeout(_WHILE_S):
                await _here.wait()
        except TimeoutError:
            pass
    return content


Renderer.open = _opening  # type: ignore[method-assign]
