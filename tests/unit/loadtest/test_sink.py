"""The sink: it takes mail as a real server does, and misbehaves exactly as told."""

import asyncio
import json
import os
import signal
import smtplib
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from everpost.loadtest import Behaviour, Rule, Sink, SinkOptions, run_sink
from everpost.loadtest.behaviour import Occasion, Script
from everpost.protocol.smtp import frame
from tests.support import certificates

ENVELOPE = b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n"
CONTENT = b"Subject: x\r\nMessage-ID: <m1@x.test>\r\n\r\n.dot\r\nend\r\n"
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=sorted(LOOPS))
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a test's coroutine on either event loop, within 20 s."""

    def go(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(asyncio.wait_for(main, 20))

    return go


class Client:
    """A client that says what it is told to, and reads one answer at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(self) -> str:
        """One whole answer, its lines joined by spaces; empty at the end of the connection."""
        lines = []
        try:
            while line := (await self.reader.readline()).decode():
                lines.append(line.rstrip("\r\n"))
                if line[3:4] != "-":
                    break
        except ConnectionResetError:
            return ""
        return " ".join(lines)

    async def say(self, data: bytes, answers: int = 1) -> str:
        """The last of so many answers to `data`."""
        self.writer.write(data)
        answer = ""
        for _ in range(answers):
            answer = await self.answer()
        return answer

    async def send(self, content: bytes = CONTENT, envelope: bytes = ENVELOPE) -> str:
        """One pipelined transaction; the answer to the final dot, or to what failed before."""
        answer = await self.say(envelope, envelope.count(b"\r\n"))
        return await self.say(frame(content)) if answer.startswith("354") else answer


@asynccontextmanager
async def connected(sink: Sink, *, hello: bool = True) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(sink.host, sink.port)
    client = Client(reader, writer)
    try:
        if hello:
            assert (await client.answer()).startswith("220 ")
            assert (await client.say(b"EHLO c.test\r\n")).startswith("250")
        yield client
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except (OSError, ssl.SSLError):
            pass


def with_behaviour(**what: Any) -> SinkOptions:
    return SinkOptions(behaviour=Behaviour(**what), keep_arrivals=True)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The authority's certificate; the server's for localhost with its key."""
    folder = tmp_path_factory.mktemp("tls")
    return Path(certificates.make(folder, "localhost").ca_file), folder / "server.pem"


# --- taking mail ----------------------------------------------------------------------------------


def test_message_arrives_as_it_was_sent_and_is_counted(run: Run) -> None:
    taken: list[tuple[str, tuple[str, ...], bytes]] = []

    async def main() -> None:
        sink = Sink(SinkOptions(keep_arrivals=True), on_message=lambda *m: taken.append(m))
        async with sink, connected(sink) as client:
            assert (await client.send()).startswith("250 ")
            assert (await client.say(b"QUIT\r\n")).startswith("221 ")
            assert await client.answer() == ""
        assert taken == [("a@x.test", ("b@y.test",), CONTENT)]
        (arrival,) = sink.arrivals
        assert (arrival.message_id, arrival.size) == ("m1@x.test", len(CONTENT))
        stats = json.loads(json.dumps(sink.stats()))
        assert stats == {
            "connections": 1, "open": 0, "peak": 1, "tls": 0, "logins": 0, "messages": 1,
            "recipients": 1, "octets": len(CONTENT), "refusals": 0, "endings": {"quit": 1},
        }  # fmt: skip

    run(main())


@pytest.mark.parametrize(
    ("content", "id_"),
    [
        (b"message-id:\r\n <folded@x>\r\n\r\nx\r\n", "folded@x"),
        (b"MESSAGE-ID: bare@x\r\n\r\nx\r\n", "bare@x"),
        (b"Subject: x\r\n\r\nMessage-ID: <body@x>\r\n", ""),
        (b"X-Message-ID: <other@x>\r\n\r\nx\r\n", ""),
    ],
)
def test_message_id_is_read_from_the_header_only(content: bytes, id_: str) -> None:
    async def main() -> None:
        sink = Sink(SinkOptions(keep_arrivals=True))
        async with sink, connected(sink) as client:
            await client.send(content)
        assert [arrival.message_id for arrival in sink.arrivals] == [id_]

    asyncio.run(main())


def test_waiting_ends_with_the_message_waited_for(run: Run) -> None:
    async def main() -> None:
        async with Sink() as sink, connected(sink) as client:
            with pytest.raises(TimeoutError, match="0 of 1 messages"):
                await sink.wait_for(1, timeout=0.01)
            waiting = asyncio.create_task(sink.wait_for(2, timeout=10))
            await client.send()
            assert not waiting.done()
            await client.send()
            await waiting
            await sink.wait_for(2, timeout=0)

    run(main())


def test_maildir_keeps_every_octet_and_shows_whole_messages_only(tmp_path: Path) -> None:
    async def main() -> None:
        for headers in (False, True):
            options = SinkOptions(maildir=tmp_path / str(headers), envelope_headers=headers)
            async with Sink(options) as sink, connected(sink) as client:
                for _ in range(3):
                    await client.send(
                        envelope=ENVELOPE.replace(b"DATA", b"RCPT TO:<c@y.test>\r\nDATA")
                    )

    asyncio.run(main())
    stored = [path.read_bytes() for path in (tmp_path / "False" / "new").iterdir()]
    assert stored == [CONTENT] * 3
    head = (
        b"X-Envelope-From: <a@x.test>\r\nX-Envelope-To: <b@y.test>\r\nX-Envelope-To: <c@y.test>\r\n"
    )
    stored = [path.read_bytes() for path in (tmp_path / "True" / "new").iterdir()]
    assert stored == [head + CONTENT] * 3
    assert not list((tmp_path / "True" / "tmp").iterdir())


def test_message_that_cannot_be_stored_is_refused_and_not_counted(tmp_path: Path) -> None:
    async def main() -> None:
        sink = Sink(SinkOptions(maildir=tmp_path / "mail"))
        async with sink, connected(sink) as client:
            (tmp_path / "mail" / "new").rename(tmp_path / "elsewhere")
            assert (await client.send()).startswith("452 4.3.1 ")
        assert sink.messages == 0
        assert not list((tmp_path / "mail" / "tmp").iterdir())

    asyncio.run(main())


# --- misbehaving ----------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["mail", "rcpt", "data", "body", "dot"])
def test_refusal_at_a_phase_is_said_and_nothing_is_stored(phase: str) -> None:
    async def main() -> None:
        sink = Sink(with_behaviour(refuse={phase: "451 4.7.1 Not now"}))
        async with sink, connected(sink) as client:
            said = [await client.say(line + b"\r\n") for line in ENVELOPE.split(b"\r\n")[:3]]
            if said[-1].startswith("354"):
                said.append(await client.say(frame(CONTENT)))
            assert said.count("451 4.7.1 Not now") == 1
        assert sink.messages == 0
        assert sink.stats()["refusals"] == 1

    asyncio.run(main())


@pytest.mark.parametrize(("phase", "stored"), [("body", 0), ("dot", 1)])
def test_connection_closed_without_an_answer_leaves_the_sender_in_doubt(
    run: Run, phase: str, stored: int
) -> None:
    async def main() -> None:
        sink = Sink(with_behaviour(close=[phase]))
        async with sink, connected(sink) as client:
            assert await client.send() == ""
        assert sink.messages == stored
        assert sink.stats()["endings"] == {"dropped": 1}

    run(main())


@pytest.mark.parametrize("phase", ["connect", "banner"])
@pytest.mark.parametrize(
    ("what", "answer"),
    [
        ({"refuse": "421 4.3.2 Busy"}, "421 4.3.2 Busy"),
        ({"refuse": "554 5.7.1 No"}, "554 5.7.1 No"),
        ({"close": True}, ""),
    ],
)
def test_connection_is_refused_or_cut_before_the_greeting(
    run: Run, phase: str, what: dict[str, Any], answer: str
) -> None:
    async def main() -> None:
        sink = Sink(with_behaviour(rules=(Rule(phase, **what),)))
        async with sink, connected(sink, hello=False) as client:
            assert await client.answer() == answer
            assert await client.answer() == ""

    run(main())


def test_black_hole_takes_the_connection_and_never_speaks(run: Run) -> None:
    async def main() -> None:
        sink = Sink(with_behaviour(silent=["connect"]))
        async with sink:
            async with connected(sink, hello=False) as client:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(client.say(b"EHLO a\r\n"), 0.05)
                assert sink.stats()["open"] == 1
            async with connected(sink, hello=False):
                pass
        assert sink.stats()["open"] == 0

    run(main())


def test_silence_after_the_dot_comes_after_storing() -> None:
    async def main() -> None:
        sink = Sink(with_behaviour(silent=["dot"]))
        async with sink, connected(sink) as client:
            sending = asyncio.create_task(client.send())
            await sink.wait_for(1, timeout=5)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(sending, 0.05)

    asyncio.run(main())


@pytest.mark.parametrize("phase", ["connect", "banner", "ehlo", "mail", "rcpt", "data", "dot"])
def test_delay_at_a_phase_holds_the_answer_and_then_gives_it(run: Run, phase: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        sink = Sink(with_behaviour(delay={phase: 0.05}))
        async with sink:
            began = loop.time()
            async with connected(sink) as client:
                assert (await client.send()).startswith("250 ")
            assert loop.time() - began > 0.045

    run(main())


def test_delayed_dot_has_stored_the_message_already() -> None:
    async def main() -> None:
        async with Sink(with_behaviour(delay={"dot": 60.0})) as sink, connected(sink) as client:
            sending = asyncio.create_task(client.send())
            await sink.wait_for(1, timeout=5)
            assert not sending.done()
            sending.cancel()

    asyncio.run(main())


def test_client_that_leaves_during_a_delay_is_forgotten() -> None:
    async def main() -> None:
        sink = Sink(with_behaviour(delay={"mail": 60.0}))
        async with sink, connected(sink) as client:
            client.writer.write(b"MAIL FROM:<a@x.test>\r\n")
            client.writer.write_eof()
            assert await client.answer() == ""
        assert sink.stats()["endings"] == {"lost": 1}

    asyncio.run(main())


def test_one_domain_is_refused_and_the_others_are_taken() -> None:
    rule = Rule("rcpt", refuse="550 5.1.1 No such user", domain="*.bad.test")

    async def main() -> None:
        sink = Sink(with_behaviour(rules=(rule,)))
        async with sink, connected(sink) as client:
            await client.say(b"MAIL FROM:<a@x.test>\r\n")
            assert await client.say(b"RCPT TO:<b@mx.Bad.test>\r\n") == "550 5.1.1 No such user"
            assert (await client.say(b"RCPT TO:<b@good.test>\r\n")).startswith("250 ")
            await client.say(b"DATA\r\n")
            assert (await client.say(frame(CONTENT))).startswith("250 ")
        assert sink.arrivals[0].recipients == ("b@good.test",)

    asyncio.run(main())


def test_behaviour_changes_while_connections_are_open() -> None:
    async def main() -> None:
        sink = Sink(with_behaviour(refuse={"mail": "451 4.3.0 Ill"}))
        async with sink, connected(sink) as client:
            assert (await client.say(ENVELOPE, 3)).startswith("503 ")
            sink.behave(Behaviour())
            assert (await client.send()).startswith("250 ")

    asyncio.run(main())


def occasions(rule: Rule, count: int, chance: Callable[[], float] = lambda: 0.5) -> str:
    script = Script(Behaviour(rules=(rule,)), chance)
    return "".join(".X"[script.decide(Occasion("rcpt", 1)) is rule] for _ in range(count))


def test_rules_count_their_occasions() -> None:
    assert occasions(Rule("rcpt", close=True), 4) == "XXXX"
    assert occasions(Rule("rcpt", close=True, times=2), 4) == "XX.."
    assert occasions(Rule("rcpt", close=True, skip=2), 4) == "..XX"
    assert occasions(Rule("rcpt", close=True, every=3), 7) == "..X..X."
    assert occasions(Rule("rcpt", close=True, skip=1, every=2, times=1), 7) == "..X...."
    assert occasions(Rule("mail", close=True), 2) == ".."
    numbers = iter([0.1, 0.3, 0.29, 0.9])
    assert occasions(Rule("rcpt", close=True, probability=0.3), 4, lambda: next(numbers)) == "X.X."
    assert occasions(Rule("rcpt", close=True, match=lambda o: o.connection == 2), 2) == ".."
    assert occasions(Rule("rcpt", close=True, domain="x.test"), 2) == ".."


def test_rules_are_tried_before_plain_entries() -> None:
    behaviour = Behaviour(
        delay={"dot": 2.0},
        refuse={"dot": "451 4.0.0 x"},
        rules=(Rule("dot", close=True, times=1),),
        match=lambda occasion: occasion.sender == "a@x.test",
    )
    script = Script(behaviour, lambda: 0.0)
    first, second = (script.decide(Occasion("dot", 1, sender="a@x.test")) for _ in range(2))
    assert first is not None
    assert first.close
    assert second is not None
    assert (second.delay, second.reply) == (2.0, (451, "4.0.0 x"))
    assert script.decide(Occasion("dot", 1, sender="b@x.test")) is None


def test_rule_is_read_from_text() -> None:
    text = "rcpt refuse='550 5.1.1 No such user' domain=*.bad.test probability=0.5 times=3 skip=1"
    assert Rule.parse(text) == Rule(
        "rcpt", refuse="550 5.1.1 No such user", domain="*.bad.test", probability=0.5, times=3,
        skip=1,
    )  # fmt: skip
    assert Rule.parse("dot delay=1.5 close every=2") == Rule("dot", delay=1.5, close=True, every=2)
    assert Rule.parse("connect silent") == Rule("connect", silent=True)


@pytest.mark.parametrize(
    "text",
    ["", "dott close", "dot close=1", "dot delay", "dot delay=x", "dot delay=-1", "dot what=1",
     "dot refuse=250", "dot refuse='250 Ok'", "dot probability=2", "dot every=0", "dot 'x"],
)  # fmt: skip
def test_malformed_rule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Rule.parse(text)


# --- extensions, TLS, logins, limits --------------------------------------------------------------


def test_hidden_extensions_are_neither_listed_nor_understood() -> None:
    async def main() -> None:
        hide = frozenset({"PIPELINING", "8BITMIME", "SIZE"})
        async with Sink(SinkOptions(hide=hide)) as sink, connected(sink) as client:
            listed = await client.say(b"EHLO c.test\r\n")
            assert not any(name in listed for name in hide)
            assert "CHUNKING" in listed
            said = await client.say(b"MAIL FROM:<a@x.test> SIZE=10\r\n")
            assert said.startswith("555 ")
            said = await client.say(ENVELOPE)
            assert said.startswith(("250 2.1.0", "554 5.5.0"))
        assert sink.stats()["endings"] == {"early": 1}

    asyncio.run(main())


def test_options_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot hide PIPELINE"):
        SinkOptions(hide=frozenset({"PIPELINE"}))
    with pytest.raises(ValueError, match="certificate"):
        SinkOptions(implicit_tls=True)


def test_too_large_a_message_is_refused() -> None:
    async def main() -> None:
        sink = Sink(SinkOptions(size=40))
        async with sink, connected(sink) as client:
            said = await client.say(b"MAIL FROM:<a@x.test> SIZE=41\r\n")
            assert said.startswith("552 5.3.4 ")
            assert (await client.send()).startswith("552 5.3.4 ")
        assert sink.messages == 0

    asyncio.run(main())


def test_connections_beyond_the_cap_get_421() -> None:
    async def main() -> None:
        async with Sink(SinkOptions(connections=1)) as sink, connected(sink) as first:
            async with connected(sink, hello=False) as second:
                assert (await second.answer()).startswith("421 4.7.0 ")
                assert await second.answer() == ""
            assert (await first.send()).startswith("250 ")
            assert sink.stats()["peak"] == 2

    asyncio.run(main())


def test_idle_client_is_told_and_left(run: Run) -> None:
    async def main() -> None:
        async with Sink(SinkOptions(idle=0.05)) as sink, connected(sink) as client:
            assert (await client.answer()).startswith("421 4.4.2 ")
            assert await client.answer() == ""
        assert sink.stats()["endings"] == {"hung_up": 1}

    run(main())


def test_closing_cuts_every_connection(run: Run) -> None:
    async def main() -> None:
        sink = Sink(with_behaviour(delay={"mail": 60.0}))
        await sink.start()
        async with connected(sink) as one, connected(sink) as two:
            one.writer.write(b"MAIL FROM:<a@x.test>\r\n")
            await sink.close()
            await sink.close()
            assert await one.answer() == ""
            assert await two.answer() == ""
        assert sink.stats()["open"] == 0

    run(main())


@contextmanager
def smtp(sink: Sink, *, tls: ssl.SSLContext | None = None) -> Iterator[smtplib.SMTP]:
    if tls is None:
        client = smtplib.SMTP(sink.host, sink.port, local_hostname="c.test", timeout=10)
    else:
        client = smtplib.SMTP_SSL(
            "localhost", sink.port, local_hostname="c.test", timeout=10, context=tls
        )
    with client:
        yield client


def test_python_smtplib_delivers_under_starttls_after_login(
    run: Run, certificate: tuple[Path, Path]
) -> None:
    context = ssl.create_default_context(cafile=certificate[0])
    context.check_hostname = False  # the sink listens on an address
    content = "Subject: é\r\n\r\n.dot\r\n..\r\n".encode()
    taken: list[tuple[str, tuple[str, ...], bytes]] = []

    def send(sink: Sink) -> None:
        with smtp(sink) as client:
            with pytest.raises(smtplib.SMTPNotSupportedError):
                client.login("user", "secret")
            client.starttls(context=context)
            with pytest.raises(smtplib.SMTPSenderRefused) as refused:
                client.sendmail("a@x.test", ["b@y.test"], "Subject: too early\n\nx")
            assert refused.value.smtp_code == 530
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login("user", "wrong")
            client.login("user", "secret")
            client.sendmail(
                "é@x.test", ["b@y.test", "c@y.test"], content,
                mail_options=["SMTPUTF8", "BODY=8BITMIME"],
            )  # fmt: skip

    async def main() -> None:
        options = SinkOptions(
            certificate=certificate[1],
            users={"user": "secret"},
            login_required=True,
            login_under_tls=True,
        )
        sink = Sink(options, on_message=lambda *m: taken.append(m))
        async with sink:
            await asyncio.to_thread(send, sink)
        stats = sink.stats()
        assert (stats["tls"], stats["logins"], stats["messages"]) == (1, 1, 1)
        assert stats["recipients"] == 2

    run(main())
    assert taken == [("é@x.test", ("b@y.test", "c@y.test"), content)]


def test_python_smtplib_delivers_under_implicit_tls(
    run: Run, certificate: tuple[Path, Path]
) -> None:
    context = ssl.create_default_context(cafile=certificate[0])

    def send(sink: Sink) -> None:
        with smtp(sink, tls=context) as client:
            for _ in range(3):
                client.sendmail("a@x.test", ["b@y.test"], CONTENT)

    async def main() -> None:
        options = SinkOptions(certificate=certificate[1], implicit_tls=True)
        async with Sink(options) as sink:
            await asyncio.to_thread(send, sink)
        assert sink.stats()["tls"] == 1
        assert sink.messages == 3

    run(main())


def test_commands_in_the_packet_of_starttls_are_ignored(
    run: Run, certificate: tuple[Path, Path]
) -> None:
    context = ssl.create_default_context(cafile=certificate[0])

    async def main() -> None:
        options = SinkOptions(certificate=certificate[1])
        async with Sink(options) as sink, connected(sink) as client:
            said = await client.say(b"STARTTLS\r\nMAIL FROM:<evil@x.test>\r\n")
            assert said.startswith("220 ")
            await client.writer.start_tls(context, server_hostname="localhost")
            assert (await client.say(b"MAIL FROM:<a@x.test>\r\n")).startswith("503 ")
            assert (await client.say(b"EHLO c.test\r\n")).startswith("250")
            assert (await client.send()).startswith("250 ")

    run(main())


def test_failed_handshake_ends_the_connection(run: Run, certificate: tuple[Path, Path]) -> None:
    async def main() -> None:
        options = SinkOptions(certificate=certificate[1])
        async with Sink(options) as sink:
            async with connected(sink) as client:
                assert (await client.say(b"STARTTLS\r\n")).startswith("220 ")
                client.writer.write(b"EHLO this is no handshake\r\n" * 10)
                await client.reader.read()
            assert sink.stats()["open"] == 0
            async with connected(sink) as client:
                assert (await client.send()).startswith("250 ")
        assert sink.stats()["tls"] == 0

    run(main())


@pytest.mark.parametrize("by_client", [True, False])
def test_connection_that_ends_within_the_handshake_leaves_nothing_behind(
    run: Run, certificate: tuple[Path, Path], by_client: bool
) -> None:
    async def main() -> None:
        sink = Sink(SinkOptions(certificate=certificate[1]))
        await sink.start()
        async with connected(sink) as client:
            assert (await client.say(b"STARTTLS\r\n")).startswith("220 ")
            if by_client:
                client.writer.write(b"\x16\x03\x01")  # the beginning of a hello
                client.writer.write_eof()
            else:
                await sink.close()
            assert await client.answer() == ""
        await sink.close()
        stats = sink.stats()
        assert (stats["open"], stats["tls"], stats["endings"]) == (0, 0, {"lost": 1})

    run(main())


# --- run_sink -------------------------------------------------------------------------------------


def test_run_sink_ends_after_so_many_messages_and_writes_arrivals(tmp_path: Path) -> None:
    ready: list[tuple[str, int]] = []
    reports: list[dict[str, Any]] = []

    async def main() -> None:
        listening, reported = asyncio.Event(), asyncio.Event()

        def on_ready(host: str, port: int) -> None:
            ready.append((host, port))
            listening.set()

        def on_stats(stats: dict[str, Any]) -> None:
            reports.append(stats)
            reported.set()

        options = SinkOptions(arrivals_file=tmp_path / "arrivals.jsonl")
        running = asyncio.create_task(
            run_sink(options, on_ready=on_ready, on_stats=on_stats, every=0.02, stop_after=2)
        )
        async with asyncio.timeout(10):
            await listening.wait()
            await reported.wait()
            reader, writer = await asyncio.open_connection(*ready[0])
            client = Client(reader, writer)
            await client.answer()
            await client.say(b"EHLO c.test\r\n")
            await client.send()
            await client.send()
            final = await running
        writer.close()
        assert final["messages"] == 2
        assert reports[0]["messages"] == 0

    asyncio.run(main())
    lines = (tmp_path / "arrivals.jsonl").read_text().splitlines()
    assert [json.loads(line)["message_id"] for line in lines] == ["m1@x.test"] * 2


def test_run_sink_ends_at_a_signal(run: Run) -> None:
    async def main() -> None:
        listening = asyncio.Event()
        running = asyncio.create_task(
            run_sink(SinkOptions(), on_ready=lambda host, port: listening.set())
        )
        await listening.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        assert (await running)["connections"] == 0

    run(main())
