"""The sink's feed: what a load test hears of arrivals, and the sink that it runs itself."""

import asyncio
import json
import os
import re
from pathlib import Path

import pytest

from everpost.loadtest.far_sink import FeedFile, NoSink, SinkProcess
from everpost.loadtest.feed import FeedReader, boot
from everpost.loadtest.sink import SinkOptions, run_sink
from tests.support.waiting import wait_until

CONTENT = b"X-Loadtest-Id: r1.7\r\nSubject: x\r\n\r\nX-Loadtest-Id: r1.9\r\n\r\n.\r\n"

Arrived = list[tuple[str, int, float]]


def _reader(arrived: Arrived, difference: float = 0.0) -> FeedReader:
    return FeedReader(lambda *what: arrived.append(what), wall_minus_monotonic=difference)


async def _send(host: str, port: int, *, recipients: int = 1) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        assert (await reader.readline()).startswith(b"220 ")
        rcpt = [b"RCPT TO:<b@y.test>\r\n"] * recipients
        for words in (b"HELO c\r\n", b"MAIL FROM:<a@x.test>\r\n", *rcpt, b"DATA\r\n", CONTENT):
            writer.write(words)
            assert (await reader.readline())[:1] in b"23"
    finally:
        writer.close()
        await writer.wait_closed()


def test_an_arrival_is_fed_late_or_without_its_mark(tmp_path: Path) -> None:
    feed = tmp_path / "feed"
    arrived: Arrived = []

    async def main() -> None:
        ready: asyncio.Future[tuple[str, int]] = asyncio.get_running_loop().create_future()
        sink = asyncio.create_task(
            run_sink(
                SinkOptions(feed=feed),
                on_ready=lambda host, port: ready.set_result((host, port)),
                stop_after=2,
            )
        )
        host, port = await ready
        async with FeedFile(feed, _reader(arrived)):
            await _send(host, port)
            async with asyncio.timeout(10):
                while not arrived:
                    await asyncio.sleep(0)
            assert not sink.done()  # it was told while the sink went on
            await _send(host, port, recipients=3)
            await sink

    asyncio.run(main())
    assert [(mark, recipients) for mark, recipients, _ in arrived] == [("r1.7", 1), ("r1.7", 3)]
    first = json.loads(feed.read_text().splitlines()[0])
    assert first["feed"]["boot"] == boot()


def test_clocks_of_two_machines_are_compared_as_one() -> None:
    arrived: Arrived = []
    reader = _reader(arrived, difference=1000.0)
    reader.feed(b'{"feed": {"host": "h", "port": 1, "boot": "another"}}\n')
    reader.feed(b'{"mark": "r1.1", "at": 5.0, "time": 1500.0, "recipients": ["a"]}\n')
    assert (arrived, reader.same_machine) == ([("r1.1", 1, 500.0)], False)
    here = json.dumps({"feed": {"boot": boot()}}).encode()
    reader.feed(here + b'\n{"mark": "r1.2", "at": 5.0, "time": 1500.0, "recipients": []}\n')
    assert arrived[1:] == [("r1.2", 0, 5.0)]


def test_lines_cut_anywhere_or_of_another_kind() -> None:
    whole = (
        b"The sink listens on 127.0.0.1:1.\n"
        b'{"listening": {"host": "h", "port": 1}}\n{"connections": 1}\n{nonsense\n'
        b'{"mark": "r1.1", "at": 5.0, "recipients": ["a", "b"]}\n'
    )
    for cut in range(len(whole)):
        arrived: Arrived = []
        reader = _reader(arrived)
        reader.feed(whole[:cut])
        reader.feed(whole[cut:])
        assert (arrived, reader.garbled) == ([("r1.1", 2, 5.0)], 1)


def test_a_feed_that_is_not_there() -> None:
    async def main() -> None:
        async with FeedFile(Path("/nonexistent/feed"), _reader([])):
            pass

    with pytest.raises(NoSink, match="No such file"):
        asyncio.run(main())


def test_a_sink_that_cannot_listen_is_waited_for() -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            with pytest.raises(NoSink, match=r"192\.0\.2\.1"):
                await SinkProcess("192.0.2.1:25", [], _reader([])).__aenter__()

    asyncio.run(main())


def test_a_sink_of_its_own_outlives_the_load_test() -> None:
    async def main() -> int:
        sink = SinkProcess("127.0.0.1:0", ["dot delay=0.001"], _reader([]))
        async with sink:
            assert sink._process is not None
            return sink._process.pid

    pid = asyncio.run(main())
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), seconds=10, what="the sink to end")


def test_what_a_sink_says_of_itself_is_taken_for_an_arrival() -> None:
    """A whole life through the command line: listening, feed, counts share one output."""
    arrived: Arrived = []
    seen: list[bytes] = []

    class Listening(FeedReader):
        def feed(self, data: bytes) -> None:
            seen.append(data)
            super().feed(data)

    async def main() -> None:
        reader = Listening(lambda *what: arrived.append(what), wall_minus_monotonic=0.0)
        async with SinkProcess("127.0.0.1:0", [], reader):
            async with asyncio.timeout(10):
                while (found := re.search(rb'"port": ?(\d+)', b"".join(seen))) is None:
                    await asyncio.sleep(0)
            await _send("127.0.0.1", int(found[1]))

    asyncio.run(main())
    assert [mark for mark, *_ in arrived] == ["r1.7"]
