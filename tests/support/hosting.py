"""A `ScriptedServer` beside a test that is not asynchronous: in a thread with a loop of its own."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.tiny_smtp import ScriptedServer, serve

__all__ = ["hosted", "url_of"]


@contextmanager
def hosted(
    server: ScriptedServer, host: str = "127.0.0.1", port: int = 0
) -> Iterator[ScriptedServer]:
    """The server on a loopback port until the end of the block."""
    listens, stop = threading.Event(), asyncio.Event()
    loop: asyncio.AbstractEventLoop | None = None

    async def main() -> None:
        nonlocal loop
        async with serve(server, host, port):
            loop = asyncio.get_running_loop()
            listens.set()
            await stop.wait()
        async with asyncio.timeout(10):  # its sessions end by themselves, now that they are cut
            while server.ended < server.connections:
                await asyncio.sleep(0)

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert listens.wait(20), "the server does not listen"
    try:
        yield server
    finally:
        assert loop is not None
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)


def url_of(server: ScriptedServer, login: str = "") -> str:
    """As `everpost relays add` takes it; `login` is `name:password`."""
    return f"smtp://{login}{'@' if login else ''}127.0.0.1:{server.port}"
