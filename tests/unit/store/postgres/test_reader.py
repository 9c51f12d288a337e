"""What waits to be read while no server answers."""

import asyncio
import threading

import pytest

from everpost.store.interface import StoreUnavailable
from everpost.store.postgres.connection import Db
from everpost.store.postgres.reader import Reader


def test_reads_that_wait_for_a_host_that_is_gone_are_all_refused_soon() -> None:
    """Whoever asks for the host waits until the kernel gives up: not each of a thousand in turn."""
    never = threading.Event()
    tried = 0

    def connect() -> Db:
        nonlocal tried
        tried += 1
        never.wait(0.2)
        raise StoreUnavailable("no route to host")

    async def scene() -> None:
        reader = Reader(connect, lanes=1)
        reader.start()
        waiting = [reader.do(lambda db: None) for _ in range(1_000)]
        async with asyncio.timeout(8):
            for one in waiting:
                with pytest.raises(StoreUnavailable):
                    await one
        await reader.close()
        assert tried < 5

    asyncio.run(scene())
