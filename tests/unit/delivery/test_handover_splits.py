"""However the network cuts the far end's bytes, and wherever it ends, outcomes are the same, or as
definite as they can be. The real pump and the real core, on a transport of the test's own."""

import asyncio
from collections.abc import Callable

from hypothesis import example, given, settings
from hypothesis import strategies as st

from everpost.clock import SystemClock
from everpost.delivery.handover import HandOver
from everpost.delivery.timeouts import Timeouts
from everpost.model.message import Form, Rendered
from everpost.model.outcome import Bounced, Deferred, Delivered, InDoubt, Outcome
from everpost.net.conversation import Conversation
from everpost.protocol.smtp.client import Client
from everpost.protocol.smtp.extensions import Extensions
from everpost.protocol.smtp.replies import Reply

RECIPIENTS = ("a@x.test", "b@x.test")
Cut = Callable[[bytes], list[bytes]]


class FarEnd(asyncio.Transport):
    """Answers each write with the next of `answers`, cut into pieces, then hangs up."""

    def __init__(self, conversation: Conversation[Reply], answers: list[bytes], cut: Cut) -> None:
        super().__init__()
        self._conversation = conversation
        self._answers = list(answers)
        self._cut = cut
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self.written = b""
        conversation.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data
        if self._answers:
            for piece in self._cut(self._answers.pop(0)):
                self._loop.call_soon(self._give, piece)
        else:
            self._loop.call_soon(self.abort)

    def _give(self, piece: bytes) -> None:
        if not self._closing:
            self._conversation.data_received(piece)

    def is_closing(self) -> bool:
        return self._closing

    def abort(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._conversation.connection_lost, None)


def outcomes(
    envelope: bytes, final: bytes | None, cut: Cut = lambda b: [b]
) -> tuple[list[Outcome | None], int, bytes]:
    """Outcomes, how often the dot was marked, and what was written."""

    async def main() -> tuple[list[Outcome | None], int, bytes]:
        core = Client()
        core.due = 0  # greeted already
        conversation = Conversation(core)
        answers = [envelope] if final is None else [envelope, final]
        far = FarEnd(conversation, answers, cut)
        marks: list[int] = []
        handover = HandOver(
            Extensions(pipelining=True),
            len(RECIPIENTS),
            timeouts=Timeouts(),
            now=SystemClock().monotonic,
            before_dot=lambda: marks.append(len(far.written)),
        )
        data = Rendered(b"A: b\r\n\r\nhi\r\n", Form.SEVEN_BIT, b"")
        assert handover.prepare("me@s.test", RECIPIENTS, data)
        # A script of answers that leaves some out would wait for them: hang up instead.
        asyncio.get_running_loop().call_later(0.02, far.abort)
        await conversation.run(handover.script())
        far.abort()
        await conversation.gone()
        return handover.outcomes, len(marks), far.written

    return asyncio.run(main())


MAIL = st.sampled_from([b"250 ok\r\n", b"250-a\r\n250 b\r\n", b"550 5.7.1 no\r\n", b"421 bye\r\n"])
RCPT = st.sampled_from(
    [b"250 2.1.5 ok\r\n", b"550 5.1.1 no\r\n", b"450-4.2.0 x\r\n450 4.2.0 y\r\n", b"421 bye\r\n"]
)
DATA = st.sampled_from([b"354 go\r\n", b"354-go\r\n354 on\r\n", b"554 no\r\n", b"junk\r\n"])
FINAL = st.sampled_from(
    [
        b"250 ok\r\n",
        b"250-a\r\n250 b\r\n",
        b"451 4.3.0 later\r\n",
        b"554 5.6.0 no\r\n",
        b"421 bye\r\n",
        b"354 hm\r\n",
        b"junk\r\n",
        b"250 ok\r\n250 twice\r\n",
        b"250-a\r\n251 b\r\n",
    ]
)


@settings(max_examples=25, deadline=None)
@given(st.tuples(MAIL, RCPT, RCPT, DATA), FINAL, st.data())
@example((b"250 ok\r\n", b"250 ok\r\n", b"550 5.1.1 no\r\n", b"354 go\r\n"), b"250 ok\r\n", None)
def test_cutting_the_far_ends_bytes_anywhere_changes_no_outcome(
    answers: tuple[bytes, ...], final: bytes, draw: st.DataObject | None
) -> None:
    envelope = b"".join(answers)
    whole = outcomes(envelope, final)
    assert None not in whole[0]
    assert whole == outcomes(envelope, final, lambda b: [b[i : i + 1] for i in range(len(b))])
    points = range(1, len(envelope))
    for at in points if draw is None else [draw.draw(st.sampled_from(points))]:
        assert whole == outcomes(envelope, final, lambda b, at=at: [b[:at], b[at:]])  # type: ignore[misc]


def test_end_of_the_connection_anywhere_is_definite_before_the_dot_and_doubtful_after() -> None:
    envelope = b"250 ok\r\n250 ok\r\n550 5.1.1 no\r\n354 go\r\n"
    refused_at = envelope.index(b"354")
    for at in range(len(envelope)):
        (first, second), marks, written = outcomes(envelope[:at], None)
        assert marks == 0
        assert b"hi" not in written
        assert isinstance(first, Deferred)
        assert isinstance(second, Bounced if at >= refused_at else Deferred)
    final = b"250-all\r\n250 good\r\n"
    for at in range(len(final)):
        (first, second), marks, _ = outcomes(envelope, final[:at])
        assert marks == 1
        assert isinstance(first, InDoubt)
        assert isinstance(second, Bounced)
    (first, second), marks, _ = outcomes(envelope, final)
    assert isinstance(first, Delivered)
    assert marks == 1
