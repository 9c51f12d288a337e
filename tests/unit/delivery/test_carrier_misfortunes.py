"""Whatever a relay does, each recipient gets the outcome that is true, and nothing is raised."""

import asyncio

import pytest

from everpost.delivery import Timeouts
from everpost.delivery.classify import classify
from everpost.delivery.handover import BLOCK
from everpost.model.outcome import (
    Bounced,
    Deferred,
    Delivered,
    Failed,
    InDoubt,
    Phase,
    Reply,
    Speaker,
)
from everpost.model.relay import TlsPolicy
from tests.support.carrying import LOOPS, MESSAGE, Dots, carrier, carry, only, relay, render, run
from tests.support.tiny_smtp import (
    EXTENSIONS,
    Close,
    Misfortune,
    Reset,
    ScriptedServer,
    Silence,
    serve,
)

BRIEF = Timeouts(greet=0.1, mail=0.1, rcpt=0.1, data=0.1, block=0.1, dot=0.1, quit=0.1)
NO_PIPELINING = tuple(e for e in EXTENSIONS if e != "PIPELINING")
pytestmark = pytest.mark.parametrize("loop", LOOPS)


def relay_fault(outcome: object, phase: Phase) -> None:
    assert isinstance(outcome, Deferred), outcome
    assert (outcome.phase, outcome.speaker, outcome.relay_fault) == (phase, Speaker.RELAY, True)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("extensions", [EXTENSIONS, NO_PIPELINING, (*NO_PIPELINING, "CHUNKING")])
def test_message_arrives_whole(loop: str, extensions: tuple[str, ...], split: bool) -> None:
    async def main() -> None:
        async with serve(ScriptedServer(extensions=extensions, split=split)) as far:
            c = carrier(relay(far.port))
            dots = Dots()
            report = await carry(c, "a@x.test", "b@x.test", dots=dots)
            assert report.outcomes == (Delivered(Reply(250, "fine", "2.0.0")),) * 2
            assert far.mail == [MESSAGE]
            assert dots.count == 1
            record = report.record
            assert (record.relay, record.relay_id, record.host) == ("r1", b"r1", "127.0.0.1")
            assert record.peer == f"127.0.0.1:{far.port}"
            assert (record.form, record.body_hash) == ("7bit", b"h" * 32)
            assert record.transaction == b"t" * 16
            assert record.tls is None
            assert set(record.timings) == {"connect", "greet", "envelope", "dot"}
            assert record.ended_at >= record.started_at
            await c.close(deadline=1)
            assert far.log[-1] == "QUIT"
            assert far.log[0] == "EHLO me.test"

    run(loop, main())


@pytest.mark.parametrize("extensions", [EXTENSIONS, NO_PIPELINING])
def test_each_recipient_has_an_outcome_of_its_own(loop: str, extensions: tuple[str, ...]) -> None:
    """F56: 4xx to some, 5xx to others, 250 to the rest."""
    answers = [b"250 2.1.5 ok\r\n", b"450 4.2.0 greylisted\r\n", b"550 5.1.1 unknown\r\n"]

    async def main() -> None:
        server = ScriptedServer({"RCPT": answers}, extensions=extensions)
        async with serve(server) as far:
            c = carrier(relay(far.port))
            report = await carry(c, "a@x.test", "b@x.test", "c@x.test")
            delivered, deferred, bounced = report.outcomes
            assert isinstance(delivered, Delivered)
            assert deferred == classify(Reply(450, "greylisted", "4.2.0"), Phase.RCPT)
            assert bounced == classify(Reply(550, "unknown", "5.1.1"), Phase.RCPT)
            assert [type(o) for o in (deferred, bounced)] == [Deferred, Bounced]
            assert len(far.mail) == 1
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize("extensions", [EXTENSIONS, NO_PIPELINING])
def test_all_recipients_refused_sends_no_content_and_keeps_the_session(
    loop: str, extensions: tuple[str, ...]
) -> None:
    async def main() -> None:
        script = {"RCPT": [b"550 5.1.1 unknown\r\n", b"250 ok\r\n"]}
        if "PIPELINING" in extensions:  # else DATA does not come at first
            script["DATA"] = [b"554 5.5.1 no valid recipients\r\n", b"354 go\r\n"]
        server = ScriptedServer(script, extensions=extensions)
        async with serve(server) as far:
            c = carrier(relay(far.port))
            dots = Dots()
            assert isinstance(only(await carry(c, dots=dots)), Bounced)
            assert (dots.count, far.mail) == (0, [])
            assert isinstance(only(await carry(c, dots=dots)), Delivered)
            assert (dots.count, far.mail, far.connections) == (1, [MESSAGE], 1)
            assert far.log.count("RSET") == 1
            await c.close(deadline=1)

    run(loop, main())


def test_354_though_nobody_was_accepted_is_taken_back_with_a_lone_dot(loop: str) -> None:
    async def main() -> None:
        server = ScriptedServer({"RCPT": [b"550 5.1.1 unknown\r\n", b"250 ok\r\n"]})
        async with serve(server) as far:
            c = carrier(relay(far.port))
            dots = Dots()
            assert isinstance(only(await carry(c, dots=dots)), Bounced)
            assert (dots.count, far.mail) == (0, [b""])
            assert isinstance(only(await carry(c, dots=dots)), Delivered)
            assert far.mail == [b"", MESSAGE]
            assert "RSET" not in far.log
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize("misfortune", [Close(), Reset()], ids=["close", "reset"])
@pytest.mark.parametrize(
    ("verb", "phase"),
    [
        ("BANNER", Phase.GREET),
        ("EHLO", Phase.GREET),
        ("MAIL", Phase.MAIL),
        ("RCPT", Phase.RCPT),
        ("DATA", Phase.DATA),
    ],
)
def test_connection_lost_before_the_dot_is_deferred(
    loop: str, misfortune: Misfortune, verb: str, phase: Phase
) -> None:
    async def main() -> None:
        async with serve(ScriptedServer({verb: misfortune}, extensions=NO_PIPELINING)) as far:
            c = carrier(relay(far.port))
            dots = Dots()
            relay_fault(only(await carry(c, dots=dots)), phase)
            assert (dots.count, far.connections) == (0, 1)
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize("extensions", [EXTENSIONS, (*EXTENSIONS, "CHUNKING")])
def test_reset_in_the_middle_of_the_content_is_definite(
    loop: str, extensions: tuple[str, ...]
) -> None:
    """F52. Only a dot that may have left makes doubt."""
    long = b"A: b\r\n\r\n" + (b"x" * 76 + b"\r\n") * 200_000

    async def main() -> None:
        script = {"BODY": Reset(), "BDAT": Reset()}
        async with serve(ScriptedServer(script, extensions=extensions)) as far:
            c = carrier(relay(far.port))
            dots = Dots()
            report = await carry(c, rendering=render(long), dots=dots)
            relay_fault(only(report), Phase.BODY)
            assert dots.count == 0
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize("extensions", [EXTENSIONS, (*EXTENSIONS, "CHUNKING")])
def test_long_content_arrives_whole_with_its_dot_last(
    loop: str, extensions: tuple[str, ...]
) -> None:
    long = b"A: b\r\n\r\n" + b"".join(b".%d\r\n" % i for i in range(60_000))
    assert len(long) > 4 * BLOCK
    lines = b"A: b\r\n\r\n" + (b"x" * 998 + b"\r\n") * 131
    exact = lines + b"x" * (2 * BLOCK - len(lines) - 2 - 3) + b"\r\n"
    assert len(exact) + 3 == 2 * BLOCK

    async def main() -> None:
        async with serve(ScriptedServer(extensions=extensions)) as far:
            c = carrier(relay(far.port))
            for message in (long, exact):
                dots = Dots()
                report = await carry(c, rendering=render(message), dots=dots)
                assert isinstance(only(report), Delivered)
                assert dots.count == 1
                assert "body" in report.record.timings
                assert far.mail.pop() == message
            assert any(line.startswith("BDAT") for line in far.log) is ("CHUNKING" in extensions)
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize(
    "misfortune",
    [Close(), Reset(), Silence(), b"rubbish\r\n", b"354 more?\r\n", b"250-a\r\n251 b\r\n"],
    ids=["close", "reset", "silence", "rubbish", "354", "malformed"],
)
def test_no_answer_to_the_dot_is_in_doubt_for_whoever_was_accepted(
    loop: str, misfortune: bytes | Misfortune
) -> None:
    """F54: closing without a word after the dot."""

    async def main() -> None:
        script = {"RCPT": [b"250 ok\r\n", b"550 5.1.1 unknown\r\n"], "DOT": misfortune}
        async with serve(ScriptedServer(script)) as far:
            c = carrier(relay(far.port), timeouts=BRIEF)
            dots = Dots()
            report = await carry(c, "a@x.test", "b@x.test", dots=dots)
            doubtful, refused = report.outcomes
            assert isinstance(doubtful, InDoubt)
            assert isinstance(refused, Bounced)
            assert (dots.count, far.connections) == (1, 1)
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"421 4.3.0 closing\r\n", Deferred),
        (b"451 4.3.0 later\r\n", Deferred),
        (b"554 5.6.0 never\r\n", Bounced),
        (b"250 ok\r\nrubbish\r\n", Delivered),
        (b"250 ok\r\n250 twice\r\n", Delivered),
    ],
)
def test_an_answer_to_the_dot_is_definite(loop: str, answer: bytes, kind: type) -> None:
    async def main() -> None:
        server = ScriptedServer({"DOT": [answer, b"250 ok\r\n"]})
        async with serve(server) as far:
            c = carrier(relay(far.port))
            dots = Dots()
            assert isinstance(only(await carry(c, dots=dots)), kind)
            assert dots.count == 1
            # Whatever is wrong with that session, the next message fares well.
            assert isinstance(only(await carry(c, dots=dots)), Delivered)
            assert dots.count == 2
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize(
    ("verb", "phase"),
    [
        ("BANNER", Phase.GREET),
        ("EHLO", Phase.GREET),
        ("MAIL", Phase.MAIL),
        ("RCPT", Phase.RCPT),
        ("DATA", Phase.DATA),
    ],
)
@pytest.mark.parametrize("extensions", [EXTENSIONS, NO_PIPELINING])
def test_421_anywhere_defers_everybody(
    loop: str, verb: str, phase: Phase, extensions: tuple[str, ...]
) -> None:
    """F55. Also those who were accepted before it came."""

    async def main() -> None:
        script = {verb: b"421 4.3.2 closing\r\n"}
        async with serve(ScriptedServer(script, extensions=extensions)) as far:
            c = carrier(relay(far.port))
            dots = Dots()
            report = await carry(c, "a@x.test", "b@x.test", dots=dots)
            for outcome in report.outcomes:
                relay_fault(outcome, phase)
                assert isinstance(outcome, Deferred)
                assert outcome.reply == Reply(421, "closing", "4.3.2")
            assert dots.count == 0
            await c.close(deadline=1)

    run(loop, main())


def test_421_at_the_second_recipient_keeps_what_the_first_was_told(loop: str) -> None:
    async def main() -> None:
        script = {"RCPT": [b"550 5.1.1 no\r\n", b"250 ok\r\n", b"421 bye\r\n"]}
        async with serve(ScriptedServer(script)) as far:
            c = carrier(relay(far.port))
            report = await carry(c, "a@x.test", "b@x.test", "c@x.test", "d@x.test")
            assert isinstance(report.outcomes[0], Bounced)
            for outcome in report.outcomes[1:]:
                relay_fault(outcome, Phase.RCPT)
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize(
    ("verb", "phase"),
    [
        ("BANNER", Phase.GREET),
        ("EHLO", Phase.GREET),
        ("MAIL", Phase.MAIL),
        ("RCPT", Phase.RCPT),
        ("DATA", Phase.DATA),
    ],
)
def test_relay_that_never_speaks_is_left_in_time(loop: str, verb: str, phase: Phase) -> None:
    """F51."""

    async def main() -> None:
        async with serve(ScriptedServer({verb: Silence()}, extensions=NO_PIPELINING)) as far:
            c = carrier(relay(far.port), timeouts=BRIEF)
            dots = Dots()
            outcome = only(await carry(c, dots=dots))
            relay_fault(outcome, phase)
            assert isinstance(outcome, Deferred)
            assert outcome.reason == "no answer in 0.1 s"
            assert dots.count == 0
            await c.close(deadline=1)

    run(loop, main())


def test_relay_that_takes_no_content_is_left_in_time(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer({"DATA": b"354 go\r\n", "BODY": Silence()})) as far:
            # Nothing is read any more once the answer is out.
            async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                far.writers.append(writer)
                writer.write(b"220 hi\r\n")
                await reader.readline()
                writer.write(b"250-me\r\n250 PIPELINING\r\n")
                await reader.readuntil(b"DATA\r\n")
                writer.write(b"250 ok\r\n250 ok\r\n354 go\r\n")
                writer.transport.pause_reading()  # type: ignore[attr-defined]

            listener = await asyncio.start_server(deaf, "127.0.0.1", 0, limit=1024)
            c = carrier(relay(listener.sockets[0].getsockname()[1]), timeouts=BRIEF)
            dots = Dots()
            huge = b"A: b\r\n\r\n" + (b"x" * 76 + b"\r\n") * 300_000
            relay_fault(only(await carry(c, rendering=render(huge), dots=dots)), Phase.BODY)
            assert dots.count == 0
            await c.close(deadline=1)
            listener.close()

    run(loop, main())


@pytest.mark.parametrize(
    "answer",
    [
        b"250 " + b"x" * 2**20,
        b"250-x\r\n" * 50_000,
        b"nonsense\r\n",
        b"250 a\n",
        b"250-a\r\n550 b\r\n",
    ],
    ids=["long line", "endless", "nonsense", "bare LF", "two codes"],
)
@pytest.mark.parametrize(
    ("verb", "phase"),
    [
        ("BANNER", Phase.GREET),
        ("EHLO", Phase.GREET),
        ("MAIL", Phase.MAIL),
        ("RCPT", Phase.RCPT),
        ("DATA", Phase.DATA),
    ],
)
def test_malformed_or_endless_replies_defer(
    loop: str, verb: str, phase: Phase, answer: bytes
) -> None:
    """F58."""

    async def main() -> None:
        async with serve(ScriptedServer({verb: answer}, extensions=NO_PIPELINING)) as far:
            c = carrier(relay(far.port))
            relay_fault(only(await carry(c)), phase)
            await c.close(deadline=1)

    run(loop, main())


def test_reply_that_nobody_asked_for_is_not_taken_for_another_commands(loop: str) -> None:
    """MAIL is answered twice: the second must not be the RCPT's."""

    async def main() -> None:
        script = {
            "MAIL": [b"250 ok\r\n250 ok\r\n", b"250 ok\r\n"],
            "RCPT": b"550 5.1.1 no\r\n",
        }
        async with serve(ScriptedServer(script, extensions=NO_PIPELINING)) as far:
            c = carrier(relay(far.port))
            dots = Dots()
            relay_fault(only(await carry(c, dots=dots)), Phase.RCPT)
            assert dots.count == 0
            await c.close(deadline=1)

    run(loop, main())


def test_surplus_reply_before_the_content_stops_the_content(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer({"DATA": b"354 go\r\n250 queued already\r\n"})) as far:
            c = carrier(relay(far.port))
            dots = Dots()
            relay_fault(only(await carry(c, dots=dots)), Phase.MAIL)
            assert (dots.count, far.mail) == (0, [])
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize("surplus", [b"250 ok\r\n", b"rubbish\r\n", b"550 5.1.1 no\r\n"])
def test_one_answer_too_many_in_a_group_bounces_nobody(loop: str, surplus: bytes) -> None:
    """Which of them is too many, nobody knows: no answer of the group is anybody's verdict."""

    async def main() -> None:
        script = {
            "MAIL": b"",
            "RCPT": b"",
            "DATA": b"250 ok\r\n550 5.1.1 no\r\n250 ok\r\n554 no\r\n" + surplus,
        }
        async with serve(ScriptedServer(script)) as far:
            c = carrier(relay(far.port))
            dots = Dots()
            report = await carry(c, "a@x.test", "b@x.test", dots=dots)
            for outcome in report.outcomes:
                relay_fault(outcome, Phase.MAIL)
            assert (dots.count, far.mail) == (0, [])
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize(
    ("refusal", "kind", "permanent"),
    [
        (b"552 5.3.4 too big\r\n", Bounced, True),
        (b"554 5.7.1 daily sending limit exceeded\r\n", Deferred, False),
        (b"451 4.7.1 later\r\n", Deferred, False),
        (b"421 4.3.2 closing\r\n", Deferred, False),
    ],
)
@pytest.mark.parametrize("extensions", [EXTENSIONS, NO_PIPELINING])
def test_refusal_right_behind_354_is_heard(
    loop: str, extensions: tuple[str, ...], refusal: bytes, kind: type, permanent: bool
) -> None:
    async def main() -> None:
        script = {
            "RCPT": [b"550 5.1.1 unknown\r\n", b"250 ok\r\n"],
            "DATA": b"354 go\r\n" + refusal,
        }
        async with serve(ScriptedServer(script, extensions=extensions)) as far:
            c = carrier(relay(far.port))
            dots = Dots()
            first, second = (await carry(c, "a@x.test", "b@x.test", dots=dots)).outcomes
            assert isinstance(first, Bounced)
            assert first.reply.enhanced == "5.1.1"
            assert isinstance(second, kind)
            assert isinstance(second, Bounced | Deferred)
            assert second.reply is not None
            assert (second.phase, second.reply.code) == (Phase.BODY, int(refusal[:3]))
            assert (dots.count, far.mail) == (0, [])
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize("extensions", [EXTENSIONS, (*EXTENSIONS, "CHUNKING")])
def test_refusal_in_the_middle_of_the_content_stops_it(
    loop: str, extensions: tuple[str, ...]
) -> None:
    huge = b"A: b\r\n\r\n" + (b"x" * 76 + b"\r\n") * 300_000
    ended = asyncio.Event()
    read = 0

    async def tired(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal read
        writer.write(b"220 hi\r\n")
        await reader.readline()
        lines = "".join(f"250-{e}\r\n" for e in extensions)
        writer.write(b"250-me\r\n" + lines.encode() + b"250 HELP\r\n")
        if "CHUNKING" in extensions:
            await reader.readuntil(b"RCPT")
            writer.write(b"250 ok\r\n250 ok\r\n")
            await reader.readuntil(b"BDAT")
        else:
            await reader.readuntil(b"DATA\r\n")
            writer.write(b"250 ok\r\n250 ok\r\n354 go\r\n")
        await reader.readexactly(200_000)
        writer.write(b"552 5.3.4 enough\r\n")
        try:
            while some := await reader.read(65536):
                read += len(some)
        except ConnectionError:
            pass
        writer.close()
        ended.set()

    async def main() -> None:
        listener = await asyncio.start_server(tired, "127.0.0.1", 0)
        c = carrier(relay(listener.sockets[0].getsockname()[1]))
        dots = Dots()
        outcome = only(await carry(c, rendering=render(huge), dots=dots))
        assert isinstance(outcome, Bounced)
        assert (outcome.phase, outcome.reply.enhanced) == (Phase.BODY, "5.3.4")
        assert dots.count == 0
        await ended.wait()
        assert read < len(huge)
        await c.close(deadline=1)
        listener.close()

    run(loop, main())


@pytest.mark.parametrize("pipelined", [False, True])
def test_data_answered_250_leaves_no_session_behind(loop: str, pipelined: bool) -> None:
    async def main() -> None:
        server = ScriptedServer(
            {"DATA": [b"250 ok\r\n", b"354 go\r\n"]},
            extensions=EXTENSIONS if pipelined else NO_PIPELINING,
        )
        async with serve(server) as far:
            c = carrier(relay(far.port))
            dots = Dots()
            relay_fault(only(await carry(c, dots=dots)), Phase.DATA)
            assert dots.count == 0
            assert isinstance(only(await carry(c, dots=dots)), Delivered)
            assert (far.connections, dots.count) == (2, 1)
            await c.close(deadline=1)

    run(loop, main())


def test_3xx_to_the_dot_leaves_no_session_behind(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer({"DOT": [b"354 more?\r\n", b"250 ok\r\n"]})) as far:
            c = carrier(relay(far.port))
            assert isinstance(only(await carry(c)), InDoubt)
            assert isinstance(only(await carry(c)), Delivered)
            assert far.connections == 2
            await c.close(deadline=1)

    run(loop, main())


def test_ehlo_refused_falls_back_to_helo(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer({"EHLO": b"502 5.5.1 what\r\n"})) as far:
            c = carrier(relay(far.port))
            assert isinstance(only(await carry(c)), Delivered)
            assert far.log[:3] == ["EHLO me.test", "HELO me.test", "MAIL FROM:<me@sender.test>"]
            await c.close(deadline=1)

    run(loop, main())


def test_nobody_listens(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            port = far.port
        c = carrier(relay(port))
        report = await carry(c)
        relay_fault(only(report), Phase.CONNECT)
        assert report.record.relay == "r1"
        assert report.record.peer is None
        await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize("tls", [TlsPolicy.REQUIRE, TlsPolicy.VERIFY])
def test_stripped_starttls_never_sends_mail_in_clear(loop: str, tls: TlsPolicy) -> None:
    """S16: not offered, or answered 454."""

    async def main() -> None:
        for extensions in (EXTENSIONS, (*EXTENSIONS, "STARTTLS")):
            script = {"STARTTLS": b"454 4.7.0 not now\r\n"}
            async with serve(ScriptedServer(script, extensions=extensions)) as far:
                c = carrier(relay(far.port, tls=tls))
                relay_fault(only(await carry(c)), Phase.SECURE)
                assert not any(line.startswith("MAIL") for line in far.log)
                await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize(
    ("sender", "recipients", "kinds"),
    [
        ("me@s.test", ("ä@x.test", "b@x.test"), (Bounced, Delivered)),
        ("ä@s.test", ("a@x.test", "b@x.test"), (Bounced, Bounced)),
        ("me@s.test", ("ä@x.test",), (Bounced,)),
    ],
)
def test_address_that_the_relay_cannot_take_bounces_alone(
    loop: str, sender: str, recipients: tuple[str, ...], kinds: tuple[type, ...]
) -> None:
    """F70, RFC 6531."""

    async def main() -> None:
        async with serve(ScriptedServer(extensions=("PIPELINING",))) as far:
            c = carrier(relay(far.port))
            report = await carry(c, *recipients, sender=sender)
            assert tuple(type(o) for o in report.outcomes) == kinds
            bounced = report.outcomes[0]
            assert isinstance(bounced, Bounced)
            assert bounced.speaker is Speaker.SELF
            assert bounced.reply.enhanced == "5.6.7"
            assert len(far.mail) == (Delivered in kinds)
            await c.close(deadline=1)

    run(loop, main())


def test_internationalised_address_says_so(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(relay(far.port))
            assert isinstance(only(await carry(c, "ä@x.test")), Delivered)
            size = len(MESSAGE)
            assert f"MAIL FROM:<me@sender.test> SIZE={size} BODY=8BITMIME SMTPUTF8" in far.log
            assert "RCPT TO:<ä@x.test>" in far.log
            await c.close(deadline=1)

    run(loop, main())


def test_message_over_the_relays_size_bounces_without_being_sent(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer(extensions=("SIZE 10",))) as far:
            c = carrier(relay(far.port))
            dots = Dots()
            bounced = only(await carry(c, dots=dots))
            assert isinstance(bounced, Bounced)
            assert (bounced.reply.code, bounced.reply.enhanced) == (552, "5.3.4")
            assert bounced.speaker is Speaker.SELF
            assert far.log == ["EHLO me.test"]
            assert dots.count == 0
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize(
    "data",
    [b"A: b\r\n\r\nx\n.\nMAIL FROM:<e@x>\r\n", b"A: b\r\n\r\nx\r.\r\n", "A: ä\r\n".encode()],
    ids=["bare LF", "bare CR", "8-bit"],
)
def test_content_unfit_for_the_wire_fails_before_any_byte_of_it_leaves(
    loop: str, data: bytes
) -> None:
    """S2."""

    async def main() -> None:
        async with serve(ScriptedServer(extensions=("PIPELINING",))) as far:
            c = carrier(relay(far.port))
            dots = Dots()
            assert isinstance(only(await carry(c, rendering=render(data), dots=dots)), Failed)
            assert (far.log, dots.count) == (["EHLO me.test"], 0)
            await c.close(deadline=1)

    run(loop, main())


def test_address_unfit_for_the_wire_fails_alone(loop: str) -> None:
    """S7: refused here too, whoever let it come so far."""

    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(relay(far.port))
            evil = "a@x>\r\nRCPT TO:<v@y"
            report = await carry(c, evil, "b@x.test")
            assert isinstance(report.outcomes[0], Failed)
            assert isinstance(report.outcomes[1], Delivered)
            assert isinstance(only(await carry(c, sender=evil)), Failed)
            assert isinstance(only(await carry(c, evil)), Failed)
            assert not any("v@y" in line for line in far.log)
            assert far.connections == 1
            await c.close(deadline=1)

    run(loop, main())


def test_before_dot_that_raises_sends_nothing(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(relay(far.port))
            with pytest.raises(RuntimeError, match="lease lost"):
                await carry(c, dots=Dots(RuntimeError("lease lost")))
            assert isinstance(only(await carry(c)), Delivered)
            assert far.mail == [MESSAGE]
            assert far.connections == 2
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize("pipelined", [False, True])
def test_rset_refused_and_closed_is_sent_again_on_a_fresh_connection(
    loop: str, pipelined: bool
) -> None:
    async def main() -> None:
        script: dict[str, bytes | list[bytes | Misfortune]] = {
            "RCPT": [b"550 5.1.1 no\r\n", b"250 ok\r\n"],
            "DATA": [b"554 no\r\n", b"354 go\r\n"] if pipelined else b"354 go\r\n",
            "RSET": b"554 what\r\n",
        }
        if pipelined:  # else MAIL does not come at all
            script["MAIL"] = [b"250 ok\r\n", Close(), b"250 ok\r\n"]
        extensions = EXTENSIONS if pipelined else NO_PIPELINING
        async with serve(ScriptedServer(script, extensions=extensions)) as far:
            c = carrier(relay(far.port))
            dots = Dots()
            assert isinstance(only(await carry(c, dots=dots)), Bounced)
            assert isinstance(only(await carry(c, dots=dots)), Delivered)
            assert (far.connections, dots.count, far.mail) == (2, 1, [MESSAGE])
            await c.close(deadline=1)

    run(loop, main())


def test_rset_refused_ends_the_session(loop: str) -> None:
    async def main() -> None:
        script = {
            "RCPT": [b"550 5.1.1 no\r\n", b"250 ok\r\n"],
            "DATA": [b"554 no\r\n", b"354 go\r\n"],
            "RSET": b"500 what\r\n",
        }
        async with serve(ScriptedServer(script)) as far:
            c = carrier(relay(far.port))
            assert isinstance(only(await carry(c)), Bounced)
            # A kept session that does not work is replaced by a fresh one.
            assert isinstance(only(await carry(c)), Delivered)
            assert far.connections == 2
            await c.close(deadline=1)

    run(loop, main())
