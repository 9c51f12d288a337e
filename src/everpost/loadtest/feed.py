"""The sink's feed of arrivals: written by a sink, read by a load test, on one machine or two.

The first line says who writes: address, and the boot of its machine. Two processes of one boot
share a monotonic clock; of two boots only the wall clocks can be compared.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from everpost import telemetry
from everpost.loadtest.reception import Arrival

__all__ = ["FeedReader", "FeedWriter", "boot", "watch_end"]

_FLUSH_S = 0.02
_CHUNK = 1 << 18


def boot() -> str:
    """What tells this boot of this machine from any other; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def watch_end(descriptor: int, then: Callable[[], None]) -> None:
    """Call `then` when the descriptor (a pipe, a terminal) ends."""
    loop = asyncio.get_running_loop()

    def look() -> None:
        try:
            ended = not os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            ended = True
        if ended:
            loop.remove_reader(descriptor)
            then()

    loop.add_reader(descriptor, look)


class FeedWriter:
    """Writes arrivals as lines, a few at once. `ended` is called when nobody reads any more."""

    def __init__(self, path: Path, *, ended: Callable[[], None]) -> None:
        self._path = path
        self._ended = ended
        self._lines: list[bytes] = []
        self._encode = msgspec.json.Encoder().encode
        self._timer: asyncio.TimerHandle | None = None
        self._fd = -1

    def open(self, host: str, port: int) -> None:
        """Begin with the line that says who writes. Raises OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._fd = 1 if str(self._path) == "-" else os.open(self._path, flags, 0o600)
        self._lines.append(
            self._encode({"feed": {"host": host, "port": port, "boot": boot()}}) + b"\n"
        )
        self._flush()

    def add(self, arrival: Arrival) -> None:
        """Write this one soon."""
        self._lines.append(self._encode(arrival) + b"\n")
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_S, self._flush)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._flush()
        if self._fd > 2:
            os.close(self._fd)
        self._fd = -1

    def _flush(self) -> None:
        self._timer = None
        data, self._lines = b"".join(self._lines), []
        try:
            while data and self._fd >= 0:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            telemetry.event("sink.feed_ended", error=str(error))
            self._fd = -1
            self._ended()


class _Origin(msgspec.Struct):
    boot: str = ""


class _Line(msgspec.Struct):
    """Any line of a feed; a sink's other lines (`listening`, counts) share its standard output."""

    feed: _Origin | None = None
    mark: str | None = None
    at: float = 0.0
    time: float = 0.0
    recipients: list[str] = []


class FeedReader:
    """Cuts what is read into lines; calls `arrived(mark, recipients, at)` for each arrival, with
    `at` on this machine's monotonic clock. `wall_minus_monotonic`: the difference of its clocks."""

    def __init__(
        self, arrived: Callable[[str, int, float], None], *, wall_minus_monotonic: float
    ) -> None:
        self._arrived = arrived
        self._difference = wall_minus_monotonic
        self._decode = msgspec.json.Decoder(_Line).decode
        self._rest = b""
        self._here = boot()
        self.same_machine = True
        """Whether the sink's clock is ours; known after the first line."""
        self.garbled = 0

    def feed(self, data: bytes) -> None:
        """Take more bytes."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if line.startswith(b"{"):
                self._take(line)

    def _take(self, text: bytes) -> None:
        try:
            line = self._decode(text)
        except msgspec.DecodeError:
            self.garbled += 1
            return
        if line.feed is not None:
            self.same_machine = bool(self._here) and line.feed.boot == self._here
        elif line.mark is not None:
            at = line.at if self.same_machine else line.time - self._difference
            self._arrived(line.mark, len(line.recipients), at)
