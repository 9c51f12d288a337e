"""The pump: deadlines, cuts and hooks, with a core and a transport of the test's own."""

import asyncio
from collections.abc import Generator
from typing import Any

import pytest

from everpost.net.conversation import Conversation, Garbled, Interrupted, Lost, Step, TimedOut

Talk = Generator[Step, list[bytes], Any]


class LineCore:
    """Each line that comes answers one question; `!` breaks the protocol, `.` ends it."""

    def __init__(self, due: int = 0) -> None:
        self.due = due
        self.broken: str | None = None
        self.closing = False
        self.unasked: bytes | None = None
        self._lines: list[bytes] = []
        self._rest = b""

    @property
    def clean(self) -> bool:
        return not self._lines and not self._rest and self.broken is None

    def ask(self, replies: int) -> None:
        self.due += replies

    def feed(self, received: bytes) -> None:
        *lines, self._rest = (self._rest + received).split(b"\n")
        for line in lines:
            if line == b"!" or not self.due:
                self.unasked = None if line == b"!" else line
                self.broken = "it broke"
                return
            self.due -= 1
            self._lines.append(line)
            if line == b".":
                self.closing, self.due = True, 0

    def take(self) -> list[bytes]:
        lines, self._lines = self._lines, []
        return lines


class Transport(asyncio.Transport):
    """Keeps what is written; ends the conversation as a real one would."""

    def __init__(self, conversation: Conversation[bytes]) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closing = False
        self._conversation = conversation
        conversation.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self._conversation.connection_lost, None)

    close = abort


def pair(due: int = 0) -> tuple[Conversation[bytes], Transport]:
    conversation = Conversation(LineCore(due))
    return conversation, Transport(conversation)


def ask(text: bytes, asks: int = 1, within: float = 5.0, **other: Any) -> Talk:
    return (yield Step(text, asks=asks, within=within, **other))


async def started(conversation: Conversation[bytes], script: Talk) -> "asyncio.Task[Any]":
    task = asyncio.ensure_future(conversation.run(script))
    await asyncio.sleep(0)
    return task


def test_script_reads_from_top_to_bottom() -> None:
    def script() -> Talk:
        (hello,) = yield Step(b"", asks=0, within=5)
        a, b = yield Step(b"ab", asks=2, within=5)
        return [hello, a, b]

    async def main() -> None:
        conversation, transport = pair(due=1)
        conversation.data_received(b"early\n")  # the banner may come before anybody waits
        task = await started(conversation, script())
        assert transport.written == [b"ab"]
        conversation.data_received(b"1\n2")
        assert not task.done()
        conversation.data_received(b"\n")
        assert await task == [b"early", b"1", b"2"]
        assert conversation.usable
        assert await conversation.run(iter_nothing()) == "nothing"

    asyncio.run(main())


def test_a_greeting_that_ends_the_session_is_heard_though_nobody_waited_yet() -> None:
    """421 in the first packet, read before the script begins."""

    async def main() -> None:
        conversation, transport = pair(due=1)
        conversation.data_received(b".\n")
        await asyncio.sleep(0)
        assert await conversation.run(ask(b"", asks=0)) == [b"."]
        assert transport.written == []
        assert not conversation.usable

    asyncio.run(main())


def iter_nothing() -> Talk:
    return "nothing"
    yield  # a script without steps


@pytest.mark.parametrize(
    ("misfortune", "error"),
    [("lost", Lost), ("late", TimedOut), ("garbled", Garbled)],
)
def test_what_goes_wrong_is_thrown_where_it_went_wrong(
    misfortune: str, error: type[Interrupted]
) -> None:
    seen: list[Interrupted] = []

    def script() -> Talk:
        try:
            yield Step(b"q", asks=2, within=0.05)
        except Interrupted as cut:
            seen.append(cut)
        try:
            yield Step(b"more", asks=1, within=5)
        except Interrupted as cut:
            seen.append(cut)
        return "ended"

    async def main() -> None:
        conversation, transport = pair()
        task = await started(conversation, script())
        conversation.data_received(b"1\n")
        if misfortune == "lost":
            conversation.connection_lost(ConnectionResetError("reset"))
        elif misfortune == "garbled":
            conversation.data_received(b"!\n")
        assert await task == "ended"
        first, second = seen
        assert type(first) is error
        assert (first.answers, first.written) == ([b"1"], True)
        assert (second.answers, second.written) == ([], False)
        assert transport.written == [b"q"]
        assert not conversation.usable
        await conversation.gone()

    asyncio.run(main())


def test_an_answer_gives_the_next_one_its_own_time_and_half_an_answer_does_not() -> None:
    async def main() -> None:
        conversation, _ = pair()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        task = await started(conversation, ask(b"q", asks=2, within=0.1))
        loop.call_at(begun + 0.06, conversation.data_received, b"1\n")
        loop.call_at(begun + 0.12, conversation.data_received, b"half")
        with pytest.raises(TimedOut):
            await task
        assert 0.15 <= loop.time() - begun < 0.5

    asyncio.run(main())


def test_one_timer_serves_steps_with_longer_and_shorter_deadlines() -> None:
    def script() -> Talk:
        yield Step(b"a", asks=1, within=60)
        yield Step(b"b", asks=1, within=0.05)

    async def main() -> None:
        conversation, _ = pair()
        task = await started(conversation, script())
        conversation.data_received(b"1\n")
        with pytest.raises(TimedOut, match=r"no answer in 0\.05 s"):
            await task

    asyncio.run(main())


def test_before_is_called_at_the_last_moment_and_can_stop_the_write() -> None:
    calls: list[str] = []

    def refuse() -> None:
        calls.append("refuse")
        raise RuntimeError("no")

    async def main() -> None:
        conversation, transport = pair()
        with pytest.raises(RuntimeError):
            await conversation.run(ask(b"secret", before=refuse))
        assert transport.written == []
        assert transport.closing
        await conversation.gone()
        # Once the connection is gone, nobody is asked any more.
        with pytest.raises(Lost):
            await conversation.run(ask(b"secret", before=refuse))
        assert calls == ["refuse"]

    asyncio.run(main())


def test_before_is_not_called_on_a_transport_that_is_closing() -> None:
    async def main() -> None:
        conversation, transport = pair()
        transport.closing = True
        with pytest.raises(Lost):
            await conversation.run(ask(b"x", before=lambda: pytest.fail("called")))

    asyncio.run(main())


def test_flush_waits_until_the_bytes_are_taken() -> None:
    def script() -> Talk:
        yield Step(b"1", asks=0, within=5, flush=True)
        yield Step(b"2", asks=0, within=5, flush=True)
        yield Step(b"3", asks=0, within=0.05, flush=True)

    async def main() -> None:
        conversation, transport = pair()
        conversation.pause_writing()
        task = await started(conversation, script())
        assert transport.written == [b"1"]
        conversation.resume_writing()
        await task
        assert transport.written == [b"1", b"2", b"3"]
        conversation.pause_writing()
        with pytest.raises(TimedOut):
            await conversation.run(ask(b"4", asks=0, within=0.05, flush=True))

    asyncio.run(main())


def test_answer_before_its_time_interrupts_a_flush() -> None:
    async def main() -> None:
        conversation, _ = pair()
        conversation.pause_writing()
        task = await started(conversation, ask(b"1", asks=0, flush=True))
        conversation.data_received(b"552 enough\n")
        with pytest.raises(Garbled):
            await task

    asyncio.run(main())


def test_one_answer_too_many_cuts_a_step_that_asked_for_several() -> None:
    async def main() -> None:
        conversation, _ = pair()
        task = await started(conversation, ask(b"q", asks=2))
        conversation.data_received(b"1\n2\n3\n")
        with pytest.raises(Garbled) as caught:
            await task
        assert (caught.value.answers, caught.value.unasked) == ([b"1", b"2"], b"3")
        conversation, _ = pair()
        task = await started(conversation, ask(b"q"))
        conversation.data_received(b"1\n2\n")
        assert await task == [b"1"]
        assert not conversation.usable

    asyncio.run(main())


def test_cancelled_caller_closes_the_connection() -> None:
    cleaned: list[bool] = []

    def script() -> Talk:
        try:
            yield Step(b"q", asks=1, within=5)
        finally:
            cleaned.append(True)

    async def main() -> None:
        conversation, transport = pair()
        task = await started(conversation, script())
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert transport.closing
        assert cleaned == [True]
        conversation.data_received(b"late\n")
        await conversation.gone()
        assert not conversation.usable

    asyncio.run(main())


@pytest.mark.parametrize("word", [b"!\n", b"x\n"])
def test_idle_connection_that_speaks_is_closed(word: bytes) -> None:
    async def main() -> None:
        conversation, transport = pair()
        open_: set[Conversation[bytes]] = set()
        conversation.stand_among(open_)
        assert open_ == {conversation}
        conversation.data_received(word)
        assert transport.closing
        assert not conversation.usable
        await conversation.gone()
        assert open_ == set()
        conversation.stand_among(open_)
        assert open_ == set()
        assert conversation.peer is None
        conversation.close()
        conversation.abort()

    asyncio.run(main())


def test_closing_word_ends_the_step_with_what_there_is() -> None:
    async def main() -> None:
        conversation, _ = pair()
        task = await started(conversation, ask(b"q", asks=3))
        conversation.data_received(b"1\n.\n")
        assert await task == [b"1", b"."]
        assert not conversation.usable
        with pytest.raises(Lost):
            await conversation.run(ask(b"q"))

    asyncio.run(main())


def test_two_scripts_at_once_are_our_own_fault() -> None:
    async def main() -> None:
        conversation, _ = pair()
        task = await started(conversation, ask(b"q"))
        other = ask(b"q")
        with pytest.raises(RuntimeError):
            await conversation.run(other)
        conversation.data_received(b"1\n")
        assert await task == [b"1"]

    asyncio.run(main())
