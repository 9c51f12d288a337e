"""How a process is told that it is to end: that it leaves, and then to stop.

SIGTERM and SIGINT say stop. Behind a load balancer a node leaves first: readiness fails while
everything still works, until the balancer has seen it (`http.linger_s`). Under a supervisor that is
its business: it says LEAVE to all, waits, and then says stop. A process that was started by hand
waits itself; a second signal cuts that short.
"""

import asyncio
import signal

from everpost.recovery.spawning import LEAVE

__all__ = ["Ending"]


class Ending:
    """`leaving` is set first, then `stop`. `linger_s`: seconds between the two after SIGTERM."""

    def __init__(self, *, linger_s: float = 0.0) -> None:
        self.leaving = asyncio.Event()
        self.stop = asyncio.Event()
        self._linger_s = linger_s

    def listen(self) -> None:
        """Take the signals, for the life of the running loop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.tell)
        loop.add_signal_handler(LEAVE, self.leaving.set)

    def tell(self) -> None:
        """As a signal does."""
        if self._linger_s and not self.leaving.is_set():
            asyncio.get_running_loop().call_later(self._linger_s, self.stop.set)
        else:
            self.stop.set()
        self.leaving.set()
