"""Looks, about once a second, at what the API's process may run out of: disk and descriptors."""

import asyncio
import os
from pathlib import Path

from everpost import telemetry
from everpost.api import Admission, HttpServer
from everpost.net.descriptors import Descriptors, limit, most_connections

__all__ = ["Watch"]

_ROUND_S = 1.0
_OPEN = telemetry.gauge("everpost_descriptors_open", "File descriptors of the API's process")
_ALLOWED = telemetry.gauge(
    "everpost_descriptors_limit", "File descriptors that the API's process may open"
)
_CONNECTIONS = telemetry.gauge("everpost_http_connections", "Open HTTP connections")


class Watch:
    """Tells admission about the disk and the listeners how many connections they may take."""

    def __init__(
        self, *, data: Path, admission: Admission, server: HttpServer, connections: int
    ) -> None:
        """`connections`: of one listener, where nothing else is in the way."""
        self._data = data
        self._admission = admission
        self._server = server
        self._wanted = connections
        self._descriptors = Descriptors()
        self._disk: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Round after round until cancelled. What cannot be seen leaves things as they are."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(_ROUND_S)
        finally:
            self._descriptors.close()
            if self._disk is not None:
                self._disk.cancel()

    async def look(self) -> None:
        """One round."""
        try:
            await self._look_at_descriptors()
        except OSError as error:
            telemetry.event("watch.failed", error=str(error))
        if self._disk is None or self._disk.done():
            self._disk = asyncio.create_task(self._look_at_disk())
        # A disk that hangs holds up neither the loop nor the other looks.
        await asyncio.wait([self._disk], timeout=_ROUND_S)
        alarm = telemetry.alarm("disk_low")
        if self._admission.room.low:
            alarm.raise_()
        else:
            alarm.clear()
        self._admission.show()

    async def _look_at_disk(self) -> None:
        try:
            self._admission.room.look(await asyncio.to_thread(free_bytes, self._data))
        except OSError as error:
            telemetry.event("watch.failed", error=str(error))

    async def _look_at_descriptors(self) -> None:
        found, allowed, here = self._descriptors.open(), limit(), self._server.connections
        most = most_connections(allowed=allowed, others=found - here, wanted=self._wanted)
        self._server.most_connections(most)
        exhausted = self._descriptors.exhausted()
        alarm = telemetry.alarm("descriptors")
        if exhausted or (most < self._wanted and here >= most):
            alarm.raise_(open=found, allowed=allowed)
        else:
            alarm.clear()
        if exhausted:
            self._server.pause()
        else:
            await self._server.resume()
        _OPEN.set(found)
        _ALLOWED.set(allowed)
        _CONNECTIONS.set(here)


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write below `path`. Raises OSError."""
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize
