"""The sending end of wake-ups (`wake` has the other): without an event loop, so that the supervisor
may use it."""

import errno
import itertools
import os
import socket
from pathlib import Path

__all__ = ["Waker"]


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
