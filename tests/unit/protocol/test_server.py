"""The server core: every byte sequence gives the right events, once, or a refusal."""

import base64
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everpost.protocol.smtp import (
    Auth,
    Closed,
    Connect,
    Data,
    Event,
    Hello,
    Limits,
    Mail,
    Message,
    Offer,
    Rcpt,
    Server,
    StartTls,
    frame,
)

FULL = Offer(starttls=True, auth=("PLAIN", "LOGIN"), auth_in_clear=True)
ENVELOPE = b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n"

Judge = Callable[[Server, Event], None]


def accept_all(server: Server, event: Event) -> None:
    server.accept()


class Talk:
    """A server, its owner and what came of feeding it."""

    def __init__(
        self,
        offer: Offer = FULL,
        limits: Limits | None = None,
        judge: Judge = accept_all,
        *,
        tls: bool = False,
    ) -> None:
        self.server = Server("mx.test", offer=offer, limits=limits, tls=tls)
        self.judge = judge
        self.events: list[Event] = []
        self.said = b""
        self.go_on()

    def go_on(self) -> None:
        while (event := self.server.next_event()) is not None:
            self.events.append(event)
            if not isinstance(event, Closed):
                self.judge(self.server, event)
                if isinstance(event, StartTls):
                    self.said += self.server.take_output()
                    self.server.tls_started()
        self.said += self.server.take_output()

    def feed(self, *pieces: bytes) -> "Talk":
        for piece in pieces:
            self.server.receive(piece)
            self.go_on()
        return self

    def answers(self, *pieces: bytes) -> bytes:
        """What is said to these pieces."""
        before = len(self.said)
        self.feed(*pieces)
        return self.said[before:]

    def hello(self) -> "Talk":
        return self.feed(b"EHLO c.test\r\n")

    @property
    def messages(self) -> list[Message]:
        return [event for event in self.events if isinstance(event, Message)]


def b64(text: str) -> bytes:
    return base64.b64encode(text.encode())


# Each conversation is a list of flights: what a client sends before it waits for answers.
CONVERSATIONS: dict[str, list[bytes]] = {
    "pipelined": [
        b"EHLO c.test\r\n",
        b"MAIL FROM:<a@x.test> SIZE=20 BODY=8BITMIME\r\nRCPT TO:<b@y.test>\r\n"
        b"RCPT TO:<c@y.test>\r\nDATA\r\n",
        b"Subject: x\r\n\r\n..dot\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<d@y.test>\r\nDATA\r\n",
        b".\r\nQUIT\r\n",
    ],
    "lockstep": [
        b"HELO c.test\r\n",
        b"MAIL FROM:<a@x.test>\r\n",
        b"RCPT TO:<b@y.test>\r\n",
        b"DATA\r\n",
        b"x\r\n.\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"VRFY b\r\n",
        b"HELP\r\n",
        b"QUIT\r\n",
    ],
    "chunked": [
        b"EHLO c.test\r\n",
        b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\n"
        b"BDAT 5\r\na\r\n.\rBDAT 6 LAST\r\n\nb\r\n\r\n"
        b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nBDAT 3\r\na\r\nBDAT 0 LAST\r\nQUIT\r\n",
    ],
    "secured": [
        b"EHLO c.test\r\n",
        b"STARTTLS\r\n",
        b"EHLO c.test\r\n",
        b"AUTH PLAIN\r\n",
        b64("\0user\0pass") + b"\r\n",
        b"MAIL FROM:<a@x.test> AUTH=<>\r\n",
        b"QUIT\r\n",
    ],
    "logged in": [
        b"EHLO c.test\r\n",
        b"auth login\r\n",
        b64("user") + b"\r\n",
        b64("pass wörd") + b"\r\n",
        b"QUIT\r\n",
    ],
    "international": [
        b"EHLO c.test\r\n",
        "MAIL FROM:<é@x.test> SMTPUTF8\r\nRCPT TO:<用户@例子.测试>\r\nDATA\r\n".encode(),
        b"x\r\n.\r\n",
    ],
    "mistaken": [
        b"EHLO c.test\r\n",
        b"MAIL\r\nMAIL FROM:a@x.test\r\nRCPT TO:<b@y.test>\r\nWHAT\r\nNOOP \x07\r\n\xff\xfe\r\n"
        b"DATA\r\n",
        b"MAIL FROM:<a@x.test> SIZE=99999999999\r\n" + b"x" * 2100 + b"\r\nRSET\r\n",
        b"NOOP\n",
    ],
    "smuggled": [
        b"EHLO c.test\r\n",
        ENVELOPE,
        b"x\n.\nMAIL FROM:<e@x.test>\r\n.\r\nQUIT\r\n",
    ],
    "too large": [
        b"EHLO c.test\r\n",
        ENVELOPE,
        b"y\r\n" * 200 + b".\r\n" + ENVELOPE,
        b"small\r\n.\r\n",
    ],
}
SMALL = Limits(message=300, errors=50)


def split_at(flight: bytes, cuts: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(cuts), len(flight)]
    return [flight[a:b] for a, b in pairwise(edges)]


def outcome(pieces: Iterable[Sequence[bytes]]) -> tuple[list[Event], bytes]:
    talk = Talk(limits=SMALL)
    for flight in pieces:
        talk.feed(*flight)
    return talk.events, talk.said


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversation_cut_at_any_byte_gives_the_same_events(name: str) -> None:
    script = CONVERSATIONS[name]
    whole = outcome([flight] for flight in script)
    assert outcome([flight[i : i + 1] for i in range(len(flight))] for flight in script) == whole
    for at, flight in enumerate(script):
        for cut in range(1, len(flight)):
            pieces = [[f] if i != at else split_at(f, [cut]) for i, f in enumerate(script)]
            assert outcome(pieces) == whole, cut


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_conversation_cut_anywhere_gives_the_same_events(data: st.DataObject) -> None:
    script = CONVERSATIONS[data.draw(st.sampled_from(sorted(CONVERSATIONS)))]
    pieces = [split_at(f, data.draw(st.lists(st.integers(0, len(f)), max_size=6))) for f in script]
    assert outcome(pieces) == outcome([flight] for flight in script)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([
    b"EHLO a\r\n", b"MAIL FROM:<a@x.test>\r\n", b"RCPT TO:<b@y.test>\r\n", b"DATA\r\n", b".\r\n",
    b"BDAT 3\r\n", b"BDAT 1 LAST\r\n", b"BDAT 999999999999999\r\n", b"abc", b"\r", b"\n", b"\x00",
    b"AUTH LOGIN\r\n", b"AUTH PLAIN =\r\n", b"*\r\n", b"STARTTLS\r\n", b"RSET\r\n", b"\xff" * 40,
]), max_size=30), st.sampled_from([200, 451, 550, 421]))  # fmt: skip
def test_no_byte_sequence_breaks_the_core(pieces: list[bytes], verdict: int) -> None:
    def judge(server: Server, event: Event) -> None:
        if verdict == 200 or isinstance(event, Connect | Hello | Mail | StartTls):
            server.accept()
        else:
            server.refuse(verdict, "4.0.0 no")

    talk = Talk(limits=Limits(in_turn=False, message=300, errors=3), judge=judge)
    talk.feed(*pieces)
    assert sum(isinstance(event, Closed) for event in talk.events) <= 1
    assert all(line[3:4] in b" -" for line in talk.said.split(b"\r\n") if line)


def test_whole_conversation_tells_what_was_said() -> None:
    talk = Talk().feed(*CONVERSATIONS["pipelined"])
    first = Mail("a@x.test", 20, "8BITMIME")
    assert talk.events == [
        Connect(),
        Hello("c.test", True),
        first,
        Rcpt("b@y.test"),
        Rcpt("c@y.test"),
        Data(first, ("b@y.test", "c@y.test")),
        Message(first, ("b@y.test", "c@y.test"), b"Subject: x\r\n\r\n.dot\r\n"),
        Mail(""),
        Rcpt("d@y.test"),
        Data(Mail(""), ("d@y.test",)),
        Message(Mail(""), ("d@y.test",), b""),
        Closed("quit"),
    ]
    codes = [line[:3] for line in talk.said.split(b"\r\n") if line[3:4] == b" "]
    assert codes == b"220 250 250 250 250 354 250 250 250 354 250 221".split()


SMUGGLED = [
    b"\n.\n", b"\n.\r", b"\r.\n", b"\r.\r", b"\n.\r\n", b"\r.\r\n", b"\r\n.\n",
    b"\r\n\x00.\r\n", b"\r\n.\r\r\n",
]  # fmt: skip


@pytest.mark.parametrize("end", SMUGGLED)
@pytest.mark.parametrize("chunked", [False, True])
def test_smuggled_end_of_data_yields_one_message_at_most(end: bytes, chunked: bool) -> None:
    evil = b"MAIL FROM:<evil@x.test>\r\nRCPT TO:<v@y.test>\r\nDATA\r\nevil\r\n"
    content = b"x" + end + evil
    talk = Talk().hello()
    if chunked:
        talk.feed(ENVELOPE.replace(b"DATA\r\n", b"BDAT %d LAST\r\n" % len(content)), content)
    else:
        talk.feed(ENVELOPE, content + b".\r\n")
    talk.feed(b"QUIT\r\n")
    assert [event for event in talk.events if isinstance(event, Mail)] == [Mail("a@x.test")]
    assert talk.events[-1] == Closed("quit")
    if b"\x00" in end:
        assert [message.content for message in talk.messages] == [content]
    else:
        assert talk.messages == []
        assert b"550 5.6.11 " in talk.said


def test_client_that_talks_before_the_greeting_is_dropped() -> None:
    server = Server("mx.test")
    assert server.next_event() == Connect()
    server.receive(b"EHLO a\r\nMAIL FROM:<a@x>\r\n")
    assert server.next_event() == Closed("early")
    server.accept()  # a verdict that comes too late changes nothing
    assert server.next_event() is None
    assert server.take_output().startswith(b"554 5.5.0 ")


@pytest.mark.parametrize(
    "flights",
    [
        [b"EHLO a\r\nMAIL FROM:<a@x.test>\r\n"],
        [b"HELO a\r\n", b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\n"],
        [b"EHLO a\r\n", ENVELOPE + b"Subject: too soon\r\n"],
        [b"EHLO a\r\n", b"AUTH PLAIN\r\n" + b64("\0u\0p") + b"\r\n"],
        [b"EHLO a\r\n", b"AUTH PLAIN " + b64("\0u\0p") + b"\r\nMAIL FROM:<a@x.test>\r\n"],
    ],
)
def test_client_that_does_not_wait_where_it_must_is_dropped(flights: list[bytes]) -> None:
    talk = Talk().feed(*flights)
    assert talk.events[-1] == Closed("early")
    assert talk.said.count(b"554 5.5.0 ") == 1
    assert talk.messages == []


def test_content_sent_while_the_verdict_on_data_is_out_is_never_taken_for_commands() -> None:
    talk = Talk(judge=lambda s, e: None if isinstance(e, Data) else s.accept()).hello()
    talk.feed(ENVELOPE, b"RSET\r\n")
    assert talk.events[-1] == Closed("early")


def test_pipelining_that_was_not_offered_is_refused() -> None:
    talk = Talk(Offer(pipelining=False)).hello()
    assert b"PIPELINING" not in talk.said
    talk.feed(b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\n")
    assert talk.events[-1] == Closed("early")


def test_owner_that_allows_it_hears_clients_out_of_turn() -> None:
    talk = Talk(limits=Limits(in_turn=False)).feed(b"HELO a\r\n" + ENVELOPE + b"x\r\n.\r\nQUIT\r\n")
    assert [m.content for m in talk.messages] == [b"x\r\n"]


def test_commands_injected_before_tls_are_forgotten() -> None:
    talk = Talk().hello()
    said = talk.answers(b"STARTTLS\r\nMAIL FROM:<evil@x.test>\r\nRCPT TO:<v@y.test>\r\n")
    assert said.startswith(b"220 2.0.0 ")
    assert said.count(b"\r\n") == 1
    assert talk.server.tls
    assert talk.server.hello is None
    assert talk.answers(b"MAIL FROM:<a@x.test>\r\n").startswith(b"503 5.5.1 ")
    assert b"STARTTLS" not in talk.answers(b"EHLO a\r\n")
    assert talk.answers(b"STARTTLS\r\n").startswith(b"503 ")
    assert not any(isinstance(event, Mail) for event in talk.events)


def test_bytes_between_starttls_and_handshake_are_forgotten() -> None:
    server = Server("mx.test", offer=FULL)
    server.next_event()
    server.accept()
    server.receive(b"STARTTLS\r\n")
    assert server.next_event() == StartTls()
    server.receive(b"QUIT\r\n")
    server.accept()
    server.receive(b"QUIT\r\n")
    server.tls_started()
    assert server.next_event() is None
    assert not server.closed


def test_extensions_not_offered_are_not_understood() -> None:
    hidden = Offer(size=False, eight_bit=False, utf8=False, chunking=False, enhanced=False)
    talk = Talk(hidden)
    assert talk.answers(b"EHLO a\r\n") == b"250-mx.test\r\n250 PIPELINING\r\n"
    for parameter in (b"SIZE=1", b"BODY=7BIT", b"SMTPUTF8", b"AUTH=<>", b"RET=HDRS"):
        assert talk.answers(b"MAIL FROM:<a@x.test> %b\r\n" % parameter).startswith(b"555 5.5.4 ")
    assert talk.answers(b"AUTH PLAIN\r\n").startswith(b"502 ")
    assert talk.answers(b"STARTTLS\r\n").startswith(b"502 ")
    talk.feed(b"BDAT 6\r\nQUIT\r\n")
    assert talk.events[-1] == Closed("confused")


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (b"MAIL FROM:<a@x.test> SIZE=-1", b"501 5.5.4"),
        (b"MAIL FROM:<a@x.test> SIZE", b"501 5.5.4"),
        (b"MAIL FROM:<a@x.test> SIZE=99999999", b"552 5.3.4"),
        (b"MAIL FROM:<a@x.test> BODY=BINARYMIME", b"501 5.5.4"),
        (b"MAIL FROM:<a@x.test> SMTPUTF8=1", b"501 5.5.4"),
        (b"MAIL FROM: <a@x.test>", b"501 5.1.7"),
        (b"MAIL FROM:<a@x.test> SIZE=1 SIZE=1", b"501 5.1.7"),
        (b"MAIL TO:<a@x.test>", b"501 5.5.4"),
        ("MAIL FROM:<é@x.test>".encode(), b"553 5.6.7"),
        ("MAıL FROM:<a@x.test>".encode(), b"500 5.5.1"),
        (b"MAILFROM:<a@x.test>", b"500 5.5.1"),
        (b"RCPT TO:<b@y.test>", b"503 5.5.1"),
        (b"DATA", b"503 5.5.1"),
        (b"BDAT 0 LAST", b"503 5.5.1"),
        (b"DATA now", b"501 5.5.4"),
        (b"RSET now", b"501 5.5.4"),
        (b"EHLO", b"501 5.5.4"),
        (b"EHLO a b", b"501 5.5.4"),
        (b"VRFY", b"501 5.5.4"),
        (b"EXPN list", b"502 5.5.1"),
        (b"STARTTLS now", b"501 5.5.4"),
        (b"AUTH CRAM-MD5", b"504 5.5.4"),
        (b"AUTH PLAIN !!!", b"501 5.5.2"),
        (b"NOOP a\rb", b"500 5.5.2"),
        (b"NOOP \x00", b"500 5.5.2"),
        (b"\xff\xff\xff\xff", b"500 5.5.2"),
        (b"", b"500 5.5.1"),
        (b"x" * 3000, b"500 5.5.6"),
    ],
)
def test_wrong_command_is_answered_and_the_session_goes_on(command: bytes, answer: bytes) -> None:
    talk = Talk(limits=Limits(message=1000)).hello()
    said = talk.answers(command + b"\r\n")
    assert said.startswith(answer + b" ")
    assert said.count(b"\r\n") == 1
    assert talk.answers(b"NOOP\r\n").startswith(b"250 ")
    talk.feed(ENVELOPE, b"x\r\n.\r\n")
    assert len(talk.messages) == 1


def test_rcpt_parameters_and_order() -> None:
    talk = Talk(limits=Limits(recipients=2)).hello().feed(b"MAIL FROM:<a@x.test>\r\n")
    assert talk.answers(b"MAIL FROM:<a@x.test>\r\n").startswith(b"503 ")
    assert talk.answers(b"DATA\r\n").startswith(b"503 5.5.1 Say RCPT")
    assert talk.answers(b"RCPT TO:<b@y.test> NOTIFY=NEVER\r\n").startswith(b"555 5.5.4 ")
    assert talk.answers(b"RCPT TO:<b@@y.test>\r\n").startswith(b"501 5.1.3 ")
    assert talk.answers("RCPT TO:<é@y.test>\r\n".encode()).startswith(b"553 5.6.7 ")
    assert talk.answers(b"DATA\r\n").startswith(b"554 5.5.1 ")
    assert talk.answers(b"RCPT TO:<Postmaster>\r\nRCPT TO:<b@y.test>\r\n").count(b"250 2.1.5") == 2
    assert talk.answers(b"RCPT TO:<c@y.test>\r\n").startswith(b"452 4.5.3 ")
    assert talk.answers(b"EHLO again\r\n").startswith(b"250-")
    assert talk.answers(b"DATA\r\n").startswith(b"503 ")  # EHLO ended the transaction


def test_mail_before_hello_is_refused() -> None:
    assert Talk().answers(b"MAIL FROM:<a@x.test>\r\n").startswith(b"503 5.5.1 ")


@pytest.mark.parametrize("line", [b"NOOP\n", b"\n", b"EHLO a\nMAIL FROM:<a@x.test>\r\n"])
def test_line_ended_by_lf_alone_ends_the_session(line: bytes) -> None:
    talk = Talk().hello().feed(line)
    assert talk.events[-1] == Closed("confused")
    assert talk.said.endswith(b"521 5.5.2 Lines end with CR LF\r\n")


@pytest.mark.parametrize(
    "line", [b"POST / HTTP/1.1\r\n", b"GET / HTTP/1.0\r\n", b"connect x:25\r\n"]
)
def test_browser_led_here_is_sent_off_at_its_first_line(line: bytes) -> None:
    talk = Talk().feed(line)
    assert talk.events[-1] == Closed("confused")


def test_endless_line_costs_no_memory_and_one_answer() -> None:
    talk = Talk().hello()
    for _ in range(1000):
        talk.feed(b"x" * 10_000)
        assert talk.server._inbox.waiting <= 2048
    assert talk.answers(b"\r\n").startswith(b"500 5.5.6 ")
    assert talk.answers(b"NOOP\r\n").startswith(b"250 ")


def test_endless_content_costs_no_more_than_the_limit() -> None:
    talk = Talk(limits=Limits(message=10_000)).hello().feed(ENVELOPE)
    for _ in range(100):
        talk.feed(b"y" * 9_000 + b"\r\n")
        body = talk.server._inbox._body
        assert body is not None
        assert len(body) < 30_000
    assert talk.answers(b".\r\n").startswith(b"552 5.3.4 ")
    assert talk.messages == []
    talk.feed(ENVELOPE, b"small\r\n.\r\n")
    assert len(talk.messages) == 1


@pytest.mark.parametrize("pieces", [1, 2])
def test_message_of_the_very_limit_passes_and_one_octet_more_does_not(pieces: int) -> None:
    content = b".\r\n" * 100  # the form that stuffing makes longest
    framed = frame(content)
    for limit, taken in ((300, 1), (299, 0)):
        talk = Talk(limits=Limits(message=limit)).hello().feed(ENVELOPE)
        talk.feed(*split_at(framed, [200] * (pieces - 1)))
        assert [message.content for message in talk.messages] == [content] * taken
        talk.feed(ENVELOPE.replace(b"DATA\r\n", b"BDAT 300 LAST\r\n" + content))
        assert [message.content for message in talk.messages] == [content] * taken * 2
        assert talk.said.count(b"552 5.3.4 ") == 2 * (1 - taken)


def test_refused_chunk_is_read_over_and_not_taken_for_commands() -> None:
    talk = Talk(limits=Limits(message=100)).hello()
    said = talk.answers(b"BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")
    assert said.startswith(b"503 ")
    assert said.endswith(b"250 2.0.0 Ok\r\n")
    talk.feed(b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\n")
    said = talk.answers(
        b"BDAT 60\r\n", b"a" * 60, b"BDAT 60 LAST\r\n", b"QUIT\r\n" * 10, b"NOOP\r\n"
    )
    assert [line[:3] for line in said.split(b"\r\n")[:-1]] == [b"250", b"552", b"250"]
    assert not talk.server.closed


def test_data_does_not_follow_bdat() -> None:
    talk = Talk().hello().feed(ENVELOPE.replace(b"DATA\r\n", b"BDAT 3\r\na\r\n"))
    assert talk.answers(b"DATA\r\n").startswith(b"503 ")
    assert talk.answers(b"RCPT TO:<c@y.test>\r\n").startswith(b"503 ")


@pytest.mark.parametrize("argument", [b"", b"x", b"-1", b"1 FIRST", b"1" * 16, "1 LAſT".encode()])
def test_malformed_bdat_ends_the_session_for_its_length_is_unknown(argument: bytes) -> None:
    talk = Talk().hello().feed(b"BDAT " + argument + b"\r\n")
    assert talk.events[-1] == Closed("confused")


def test_owner_decides_every_answer() -> None:
    verdicts = {
        "Mail": (451, "4.7.1 Later"),
        "Rcpt": (550, "5.1.1 No\nsuch user"),
        "Data": (554, "5.7.1 No"),
        "Message": (452, "4.3.1 Full\x1b[31m\r\n250 2.0.0 Ok"),
    }
    refusing: set[str] = set()

    def judge(server: Server, event: Event) -> None:
        name = type(event).__name__
        if name in refusing:
            server.refuse(*verdicts[name])
        else:
            server.accept("2.0.0 as you like" if name == "Mail" else None)

    talk = Talk(judge=judge).hello()
    refusing = {"Mail"}
    assert talk.answers(b"MAIL FROM:<a@x.test>\r\n") == b"451 4.7.1 Later\r\n"
    assert talk.answers(b"RCPT TO:<b@y.test>\r\n").startswith(b"503 ")
    refusing = {"Rcpt"}
    assert talk.answers(b"MAIL FROM:<a@x.test>\r\n") == b"250 2.0.0 as you like\r\n"
    assert talk.answers(b"RCPT TO:<b@y.test>\r\n") == b"550-5.1.1 No\r\n550 such user\r\n"
    assert talk.answers(b"DATA\r\n").startswith(b"554 5.5.1 ")
    refusing = {"Data"}
    talk.feed(b"RCPT TO:<b@y.test>\r\n")
    assert talk.answers(b"DATA\r\n") == b"554 5.7.1 No\r\n"
    refusing = {"Message"}
    talk.feed(b"DATA\r\n")
    assert talk.answers(b"x\r\n.\r\n") == b"452-4.3.1 Full?[31m?\r\n452 250 2.0.0 Ok\r\n"
    assert talk.answers(b"RCPT TO:<b@y.test>\r\n").startswith(b"503 ")


def test_refusal_with_421_closes() -> None:
    talk = Talk(judge=lambda s, e: s.refuse(421, "4.3.2 Bye") if type(e) is Mail else s.accept())
    talk.hello().feed(b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\n")
    assert talk.events[-1] == Closed("refused")
    assert talk.said.endswith(b"421 4.3.2 Bye\r\n")


def test_refused_greeting_closes() -> None:
    talk = Talk(judge=lambda s, e: s.refuse(554, "5.7.1 Not you"))
    assert talk.events == [Connect(), Closed("refused")]
    assert talk.said == b"554 5.7.1 Not you\r\n"


def test_verdict_without_a_question_is_a_fault_of_the_owner() -> None:
    talk = Talk()
    with pytest.raises(RuntimeError):
        talk.server.accept()
    with pytest.raises(RuntimeError):
        talk.server.tls_started()
    with pytest.raises(ValueError, match="refuses nothing"):
        talk.server.refuse(250, "Ok")
    with pytest.raises(ValueError, match="mechanisms"):
        Server("mx.test", offer=Offer(auth=("CRAM-MD5",)))


def test_nothing_is_read_until_the_verdict_is_there() -> None:
    talk = Talk(judge=lambda s, e: None if isinstance(e, Rcpt) else s.accept()).hello()
    talk.feed(b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nRCPT TO:<c@y.test>\r\n")
    assert talk.server.awaits_verdict
    assert talk.events[-1] == Rcpt("b@y.test")
    talk.server.accept()
    talk.go_on()
    assert talk.events[-1] == Rcpt("c@y.test")


def test_owner_that_never_answers_and_never_stops_reading_is_saved_from_itself() -> None:
    talk = Talk(judge=lambda s, e: None if isinstance(e, Rcpt) else s.accept()).hello()
    talk.feed(b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\n")
    talk.feed(*[b"RCPT TO:<c@y.test>\r\n" * 5000] * 12)
    assert talk.events[-1] == Closed("confused")


def test_too_many_errors_end_the_session() -> None:
    talk = Talk(limits=Limits(errors=3)).hello().feed(b"A\r\nB\r\nC\r\nNOOP\r\n")
    assert talk.events[-1] == Closed("errors")
    assert talk.said.endswith(b"421 4.7.0 Too many errors\r\n")


def test_owner_hangs_up_between_transactions() -> None:
    talk = Talk().hello()
    assert talk.server.idle
    talk.feed(b"MAIL FROM:<a@x.test>\r\n")
    assert not talk.server.idle
    talk.server.hang_up()
    talk.server.hang_up()
    talk.go_on()
    assert talk.events[-1] == Closed("hung_up")
    assert talk.said.endswith(b"421 4.3.2 Service closing\r\n")
    assert talk.answers(b"NOOP\r\n") == b""


# --- AUTH -----------------------------------------------------------------------------------------


def refuse_logins(server: Server, event: Event) -> None:
    if isinstance(event, Auth):
        server.refuse(535, "5.7.8 Credentials invalid")
    else:
        server.accept()


@pytest.mark.parametrize(
    "flights",
    [
        [b"AUTH PLAIN " + b64("id\0user\0pass")],
        [b"auth plain", b64("id\0user\0pass")],
        [b"AUTH LOGIN", b64("user"), b64("pass")],
        [b"AUTH LOGIN " + b64("user"), b64("pass")],
    ],
)
def test_login_gives_the_credentials_once(flights: list[bytes]) -> None:
    talk = Talk().hello().feed(*(flight + b"\r\n" for flight in flights))
    login = talk.events[-1]
    assert isinstance(login, Auth)
    assert (login.username, login.password) == ("user", "pass")
    assert "pass" not in repr(login)
    assert talk.said.endswith(b"235 2.7.0 Authentication successful\r\n")
    assert talk.server.username == "user"
    assert talk.answers(b"AUTH PLAIN\r\n").startswith(b"503 ")


def test_login_before_tls_is_refused_and_not_listed() -> None:
    talk = Talk(Offer(starttls=True, auth=("PLAIN",))).hello()
    assert b"AUTH" not in talk.said
    assert talk.answers(b"AUTH PLAIN " + b64("\0u\0p") + b"\r\n").startswith(b"538 5.7.11 ")
    talk.feed(b"STARTTLS\r\n")
    assert b"AUTH PLAIN\r\n" in talk.answers(b"EHLO a\r\n")
    assert talk.answers(b"AUTH PLAIN " + b64("\0u\0p") + b"\r\n").startswith(b"235 ")


@pytest.mark.parametrize(
    "response",
    [
        b64("a\0b\0c\0d"),
        b64("user"),
        b64("\0\0pass"),
        b64("\0us\r\ner\0p"),
        base64.b64encode(b"\0\xff\0p"),
    ],
)
def test_malformed_plain_credentials_are_a_failed_login(response: bytes) -> None:
    talk = Talk().hello()
    assert talk.answers(b"AUTH PLAIN " + response + b"\r\n").startswith(b"535 5.7.8 ")
    assert not any(isinstance(event, Auth) for event in talk.events)


def test_nul_in_a_login_response_is_a_failed_login() -> None:
    talk = Talk().hello()
    assert talk.answers(b"AUTH LOGIN " + b64("a\0b") + b"\r\n").startswith(b"535 ")
    talk.feed(b"AUTH LOGIN " + b64("a") + b"\r\n")
    assert talk.answers(b64("p\0q") + b"\r\n").startswith(b"535 ")


def test_cancelled_login_leaves_the_session_alive() -> None:
    talk = Talk().hello().feed(b"AUTH LOGIN\r\n", b64("u") + b"\r\n")
    assert talk.answers(b"*\r\n").startswith(b"501 5.7.0 ")
    assert talk.answers(b"NOOP\r\n").startswith(b"250 ")


def test_huge_login_response_is_refused_without_being_kept() -> None:
    talk = Talk().hello()
    megabyte = b"A" * 1_000_000
    assert talk.answers(b"AUTH PLAIN " + megabyte, megabyte, b"\r\n").startswith(b"500 5.5.6 ")
    talk.feed(b"AUTH PLAIN\r\n")
    assert talk.answers(megabyte, b"\r\n").startswith(b"500 5.5.6 ")
    assert talk.answers(b"NOOP\r\n").startswith(b"250 ")


def test_long_but_lawful_login_response_is_read() -> None:
    talk = Talk().hello().feed(b"AUTH PLAIN\r\n", b64("\0u\0" + "p" * 9000) + b"\r\n")
    login = talk.events[-1]
    assert isinstance(login, Auth)
    assert len(login.password) == 9000


def test_guessing_ends_the_session() -> None:
    talk = Talk(judge=refuse_logins).hello()
    for _ in range(3):
        talk.feed(b"AUTH PLAIN " + b64("\0u\0p") + b"\r\n")
    assert talk.events[-1] == Closed("errors")
    assert talk.said.endswith(b"421 4.7.0 Too many failed logins\r\n")


def test_login_within_a_transaction_or_after_helo_is_refused() -> None:
    talk = Talk().hello().feed(b"MAIL FROM:<a@x.test>\r\n")
    assert talk.answers(b"AUTH PLAIN\r\n").startswith(b"503 ")
    assert Talk().feed(b"HELO a\r\n").answers(b"AUTH PLAIN\r\n").startswith(b"503 ")
