"""Wake-ups between processes of one machine: Unix datagrams in the data directory.

A wake-up says only "look now". It may be lost, doubled or late; whoever waits also polls.
"""

import asyncio
import contextlib
import socket
from pathlib import Path

__all__ = ["WakeListener"]


class WakeListener:
    """One process's end for one role: `folder/ROLE.NAME.wake`."""

    def __init__(self, folder: Path, role: str, name: str) -> None:
        self.path = folder / f"{role}.{name}.wake"
        self._event = asyncio.Event()
        self._socket = socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        self.path.unlink(missing_ok=True)
        self._socket.bind(str(self.path))
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._readable)

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._socket.recv(16):
                pass
        self._event.set()

    def set(self) -> None:
        """Wake the waiter from within this process."""
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """Return when woken (True) or after `seconds` (False); forgets earlier wake-ups."""
        try:
            async with asyncio.timeout(max(seconds, 0)):
                await self._event.wait()
            return True
        except TimeoutError:
            return False
        finally:
            self._event.clear()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()
        self.path.unlink(missing_ok=True)
