"""Wake-ups of dispatchers: datagrams on this host, notices to others."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from everpost.assembly.engine import address_of
from everpost.assembly.naming import many_nodes, node_name
from everpost.config import Settings
from everpost.net.waker import Waker

__all__ = ["Wakers", "open_wakers"]


class Wakers:
    """Tells dispatchers to look now; `notify` tells other hosts'."""

    def __init__(self, folder: Path, notify: Callable[[], None] | None = None) -> None:
        self._here = Waker(folder, "dispatch")
        self._notify = notify
        self.heard: Callable[[], None] | None = None
        """What a notice from another host calls: this process's own dispatcher."""

    def wake(self, *, everyone: bool = False) -> None:
        """One of this host, or every one of it; other hosts' hear of it, too."""
        self._here.wake(everyone=everyone)
        if self._notify is not None:
            self._notify()

    def forget(self) -> None:
        """Look for this host's again at the next wake-up."""
        self._here.forget()

    def hear(self) -> None:
        """A notice has come."""
        if self.heard is not None:
            self.heard()


@contextlib.contextmanager
def open_wakers(settings: Settings, *, listening: bool) -> Iterator[Wakers]:
    """Until the end of the block. `listening`: this process has a dispatcher."""
    folder = settings.node.data / "run"
    if not many_nodes(settings):
        yield Wakers(folder)
        return
    from everpost.store.postgres.notices import Notices

    loop = asyncio.get_running_loop()

    def heard() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(wakers.hear)

    notices = Notices(
        address_of(settings.postgres, direct=True).connect,
        origin=f"{node_name(settings)}/{os.getpid()}",
        heard=heard if listening else None,
    )
    wakers = Wakers(folder, notices.tell)
    notices.start()
    try:
        yield wakers
    finally:
        notices.close()
