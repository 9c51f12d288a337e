"""Wake-ups between processes of one machine: Unix datagrams in the data directory.

A wake-up says only "look now". It may be lost, doubled or late; whoever waits also polls.
"""

import asyncio
import contextlib
import errno
import itertools
import os
import socket
from pathlib import Path

__all__ = ["WakeListener", "Waker"]


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


class Waker:
    """Wakes the processes of one role, one after the other in turn."""

    def __init__(self, folder: Path, role: str) -> None:
        self._folder = folder
        self._role = role
        self._socket = socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        self._peers: list[str] = []
        self._turn = itertools.count()

    def wake(self, *, everyone: bool = False) -> None:
        """Tell one process of the role (or every one) to look now; never blocks, never fails."""
        peers = self._peers or self._find()
        for _ in range(len(peers)):
            peer = peers[next(self._turn) % len(peers)]
            if self._send(peer) and not everyone:
                return

    def _find(self) -> list[str]:
        try:
            names = sorted(os.listdir(self._folder))
        except OSError:
            names = []
        self._peers = [
            str(self._folder / n)
            for n in names
            if n.startswith(f"{self._role}.") and n.endswith(".wake")
        ]
        return self._peers

    def forget(self) -> None:
        """Look for the role's processes again at the next wake-up (they change at restarts)."""
        self._peers = []

    def _send(self, peer: str) -> bool:
        try:
            self._socket.sendto(b"!", peer)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ENOBUFS):
                return True  # its queue is full of wake-ups already
            self._peers = []
            return False
        return True

    def close(self) -> None:
        self._socket.close()
