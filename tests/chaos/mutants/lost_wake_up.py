"""Mutant: a dispatch process that begins to wait forgets what woke it before, and no polling makes
up for that."""

from everpost.net.wake import WakeListener
from tests.chaos.mutants.mutating import mutate

_FOR_EVER_S = 3600.0


async def _wait(self: WakeListener, seconds: float) -> bool:
    if not self.path.name.startswith("dispatch."):
        return bool(await _original(self, seconds))
    self._event.clear()
    return bool(await _original(self, _FOR_EVER_S))


_original = mutate(WakeListener, "wait", _wait)
