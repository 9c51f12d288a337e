"""Where a load test hears of arrivals: a sink of its own, in a process of its own, or the feed of
one that runs elsewhere."""

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType

from everpost.loadtest.feed import FeedReader

__all__ = ["FeedFile", "NoSink", "SinkProcess", "Source"]

_START_S = 15.0
_END_S = 10.0
_POLL_S = 0.02
_CHUNK = 1 << 18


class NoSink(Exception):
    """The sink, or its feed, cannot be used; the text says why."""


class SinkProcess(AbstractAsyncContextManager["SinkProcess"]):
    """`everpost sink` on `listen`, with rules; its feed goes to `reader`. It ends with us: when we
    are gone, so is the other end of its standard input."""

    def __init__(self, listen: str, rules: Sequence[str], reader: FeedReader) -> None:
        self._words = ["sink", "--json", "--listen", listen, "--feed", "-", "--until-eof"]
        for rule in rules:
            self._words += ["--rule", rule]
        self._reader = reader
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._heard = asyncio.Event()

    async def __aenter__(self) -> "SinkProcess":
        """Return once it listens. Raises NoSink."""
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "everpost", *self._words),
            stdin=pipe, stdout=pipe, stderr=pipe,
            start_new_session=True,  # Ctrl-C is for us; it ends when we have heard all
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())
        heard = asyncio.create_task(self._heard.wait())
        try:
            await asyncio.wait(
                {heard, self._reading}, timeout=_START_S, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            heard.cancel()
        if not self._heard.is_set():
            said = await self._end()
            raise NoSink(said.strip().removeprefix("everpost: ") or "the sink did not start")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end()

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while chunk := await self._process.stdout.read(_CHUNK):
            self._heard.set()
            self._reader.feed(chunk)

    async def _end(self) -> str:
        """Let it end, or end it; what it had to say."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(_END_S):
                if self._reading is not None:
                    await self._reading
                said = await process.stderr.read()
                await process.wait()
                return said.decode("utf-8", "replace")
        except TimeoutError:
            process.kill()
            await process.wait()
            return ""


class FeedFile(AbstractAsyncContextManager["FeedFile"]):
    """A file that a sink writes (`everpost sink --feed FILE`) and that grows while we read it; "-"
    is standard input."""

    def __init__(self, path: Path, reader: FeedReader) -> None:
        self._path = path
        self._reader = reader
        self._fd = -1
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "FeedFile":
        """Raises NoSink."""
        try:
            self._fd = 0 if str(self._path) == "-" else os.open(self._path, os.O_RDONLY)
        except OSError as error:
            raise NoSink(f"the feed {self._path}: {error.strerror}") from error
        os.set_blocking(self._fd, False)
        self._following = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        self._read_on()
        if self._fd > 0:
            os.close(self._fd)
        elif self._fd == 0:
            os.set_blocking(0, True)  # the shell's, too

    async def _follow(self) -> None:
        while True:
            self._read_on()
            await asyncio.sleep(_POLL_S)

    def _read_on(self) -> None:
        try:
            while chunk := os.read(self._fd, _CHUNK):
                self._reader.feed(chunk)
        except BlockingIOError:
            pass


Source = Callable[[FeedReader], SinkProcess | FeedFile]
"""Makes the source of arrivals."""
