"""Straight to a destination's own hosts: from one host to the next, within bounds, each
destination for itself, and whatever goes wrong is the destination's, never the relay's."""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from everpost.delivery import Reach, Timeouts
from everpost.delivery import route as route_module
from everpost.delivery import session as session_module
from everpost.model.outcome import Bounced, Deferred, Delivered, Phase, Reply, Speaker, Via
from everpost.model.pool import DEFAULT_POOL
from everpost.model.relay import TlsPolicy
from everpost.net.resolver import Unresolved
from tests.support.carrying import (
    LOOPS,
    MESSAGE,
    Dots,
    Names,
    carrier,
    carry,
    direct,
    only,
    relay,
    render,
    run,
)
from tests.support.certificates import make
from tests.support.tiny_smtp import EXTENSIONS, Close, ScriptedServer, Silence, StartTls, serve

pytestmark = pytest.mark.parametrize("loop", LOOPS)

ONE = Names(
    {
        ("there.test", "MX"): ["10 mx.there.test."],
        ("mx.there.test", "A"): ["127.0.0.1"],
        ("other.test", "MX"): ["10 mx.other.test."],
        ("mx.other.test", "A"): ["127.0.0.1"],
    }
)


def two() -> Names:
    """Two hosts: the first on IPv6, the second on IPv4, so that they may share a port."""
    return Names(
        {
            ("there.test", "MX"): ["10 first.there.test.", "20 second.there.test."],
            ("first.there.test", "AAAA"): ["::1"],
            ("second.there.test", "A"): ["127.0.0.1"],
        }
    )


def one() -> Names:
    return Names(ONE.records)


@asynccontextmanager
async def both(
    first: ScriptedServer, second: ScriptedServer
) -> AsyncIterator[tuple[ScriptedServer, ScriptedServer]]:
    """Two far ends on one port, the first on ::1."""
    async with serve(second):
        listener = await asyncio.start_server(first.handle, "::1", second.port)
        try:
            yield first, second
        finally:
            listener.close()
            for writer in first.writers:
                writer.transport.abort()


def theirs(outcome: object, phase: Phase) -> Deferred:
    assert isinstance(outcome, Deferred), outcome
    assert (outcome.phase, outcome.speaker) == (phase, Speaker.DESTINATION)
    assert not outcome.relay_fault
    return outcome


def test_mail_reaches_the_host_that_dns_names(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(direct(far.port), resolver=one())
            assert c.direct(DEFAULT_POOL)
            report = await carry(c, "a@there.test", "b@there.test", destination="there.test")
            assert report.outcomes == (Delivered(Reply(250, "fine", "2.0.0"), Via.MX),) * 2
            assert far.mail == [MESSAGE]
            record = report.record
            assert (record.relay, record.host) == ("mx", "mx.there.test")
            assert record.peer == f"127.0.0.1:{far.port}"
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize(
    "script",
    [
        {"BANNER": b"554 5.7.1 not you\r\n"},
        {"BANNER": b"421 4.3.2 closing\r\n"},
        {"BANNER": Close()},
        {"BANNER": Silence()},
        {"EHLO": b"450 4.3.2 not now\r\n"},
        {"MAIL": b"451 4.3.0 not now\r\n"},
        {"MAIL": b"421 4.3.2 closing\r\n"},
        {"MAIL": Close()},
        {"RCPT": b"421 4.3.2 closing\r\n"},
        {"DATA": Close()},
    ],
)
def test_first_host_fails_and_takes_the_mail_with_it(loop: str, script: dict[str, object]) -> None:
    """F64: the second host takes it, in the same attempt."""

    async def main() -> None:
        async with both(ScriptedServer(script), ScriptedServer()) as (first, second):
            c = carrier(direct(second.port), resolver=two(), mx_timeouts=Timeouts(greet=0.2))
            dots = Dots()
            report = await carry(c, dots=dots, destination="there.test")
            assert only(report) == Delivered(Reply(250, "fine", "2.0.0"), Via.MX)
            assert report.record.host == "second.there.test"
            assert (first.connections, second.connections) == (1, 1)
            assert (dots.count, second.mail) == (1, [MESSAGE])
            await c.close(deadline=1)

    run(loop, main())


def test_dead_first_host_takes_the_mail_with_it(loop: str) -> None:
    """F64. A host that cannot be connected to costs no session."""

    async def main() -> None:
        async with serve(ScriptedServer()) as far:  # nobody listens on ::1
            c = carrier(direct(far.port), resolver=two(), reach=Reach(sessions=1))
            report = await carry(c, destination="there.test")
            assert isinstance(only(report), Delivered)
            assert report.record.host == "second.there.test"
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize(
    ("script", "phase"),
    [
        ({"RCPT": b"451 4.7.1 greylisted\r\n"}, Phase.RCPT),
        ({"DOT": b"451 4.3.0 not now\r\n"}, Phase.DOT),
    ],
)
def test_answer_of_the_destination_is_asked_for_again_at_its_next_host(
    loop: str, script: dict[str, object], phase: Phase
) -> None:
    async def main() -> None:
        async with both(ScriptedServer(script), ScriptedServer()) as (_, second):
            c = carrier(direct(second.port), resolver=two())
            outcome = only(await carry(c, destination="there.test"))
            assert isinstance(outcome, Deferred)
            assert outcome.phase is phase
            assert second.connections == 0
            await c.close(deadline=1)

    run(loop, main())


def test_final_no_of_one_host_is_asked_for_again_at_the_next(loop: str) -> None:
    async def main() -> None:
        script = {"RCPT": b"550 5.1.1 unknown\r\n"}
        async with both(ScriptedServer(script), ScriptedServer()) as (_, second):
            c = carrier(direct(second.port), resolver=two())
            outcome = only(await carry(c, destination="there.test"))
            assert isinstance(outcome, Bounced)
            assert second.connections == 0
            await c.close(deadline=1)

    run(loop, main())


def test_nobody_takes_it_and_the_relay_is_blamed(loop: str) -> None:
    async def main() -> None:
        script = {"BANNER": b"554 5.7.1 not you\r\n"}
        async with both(ScriptedServer(script), ScriptedServer(script)) as (first, second):
            smart = ScriptedServer()
            async with serve(smart):
                mx = direct(second.port, weight=1000)
                c = carrier(mx, relay(smart.port, weight=1), resolver=two())
                report = await carry(c, destination="there.test")
                outcome = theirs(only(report), Phase.GREET)
                assert outcome.reply is not None
                assert outcome.reply.code == 554
                assert (first.connections, second.connections, smart.connections) == (1, 1, 0)
                # The relay is as good as ever: the next destination's mail goes by it.
                again = await carry(c, destination="there.test")
                assert again.record.relay == "mx"
                await c.close(deadline=1)

    run(loop, main())


def test_one_attempt_opens_a_session_with_every_host_there_is(loop: str) -> None:
    async def main() -> None:
        script = {"MAIL": b"451 4.3.0 not now\r\n"}
        async with both(ScriptedServer(script), ScriptedServer()) as (first, second):
            c = carrier(direct(second.port), resolver=two(), reach=Reach(sessions=1))
            theirs(only(await carry(c, destination="there.test")), Phase.MAIL)
            assert (first.connections, second.connections) == (1, 0)
            await c.close(deadline=1)

    run(loop, main())


# --- what DNS says ----------------------------------------------------------------------------


def test_missing_domain_bounces_and_an_outage_defers(loop: str) -> None:
    async def main() -> None:
        names = Names({("dark.test", "MX"): Unresolved("no answer within 5 s")})
        c = carrier(direct(25), resolver=names)
        gone = await carry(c, destination="gone.test")
        assert isinstance(only(gone), Bounced)
        assert gone.record.host is None
        dark = only(await carry(c, destination="dark.test"))
        assert isinstance(dark, Deferred)
        assert (dark.phase, dark.speaker) == (Phase.ROUTE, Speaker.SELF)
        await c.close(deadline=1)

    run(loop, main())


def test_own_networks_are_connected_to(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(direct(far.port, allow_private=False), resolver=one())
            outcome = only(await carry(c, destination="there.test"))
            assert isinstance(outcome, Bounced)
            assert (outcome.reply.enhanced, far.connections) == ("5.4.4", 0)
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize("helo", [None, "ME.second.test"])
def test_mail_goes_round_in_a_circle(loop: str, helo: str | None) -> None:
    async def main() -> None:
        name = helo or "me.test"
        names = Names({("there.test", "MX"): [f"10 {name.lower()}."]})
        c = carrier(direct(25, helo=helo), resolver=names)
        outcome = only(await carry(c, destination="there.test"))
        assert isinstance(outcome, Bounced)
        assert outcome.reply.enhanced == "5.4.6"
        await c.close(deadline=1)

    run(loop, main())


def test_hundred_hosts_are_all_looked_up(loop: str) -> None:
    """F63."""

    async def main() -> None:
        records = {("there.test", "MX"): [f"{n} h{n}.there.test." for n in range(100)]}
        nobody = Names(dict(records))
        c = carrier(direct(25), resolver=nobody)
        outcome = only(await carry(c, destination="there.test"))
        assert isinstance(outcome, Deferred)
        assert len(nobody.asked) == 1 + 2 * 9
        async with serve(ScriptedServer()) as far:
            addresses = {(f"h{n}.there.test", "A"): ["127.0.0.1"] for n in range(100)}
            names = Names({**records, **addresses})
            c = carrier(direct(far.port), resolver=names)
            assert isinstance(only(await carry(c, destination="there.test")), Delivered)
            assert len(names.asked) == 1 + 2 * 6
            await c.close(deadline=1)

    run(loop, main())


# --- a dead destination -----------------------------------------------------------------------


def test_every_message_waits_for_the_same_dead_hosts(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route_module, "_REMEMBERED", 1)

    async def main() -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))  # and never listens
            port = closed.getsockname()[1]
            c = carrier(direct(port), resolver=one())
            first = await carry(c, destination="there.test")
            theirs(only(first), Phase.CONNECT)
            assert first.record.host == "mx.there.test"
            closed.listen()
            second = await carry(c, destination="there.test")
            assert "a moment ago" in theirs(only(second), Phase.CONNECT).reason
            assert second.record.host is None
        theirs(only(await carry(c, destination="other.test")), Phase.CONNECT)  # forgets the first
        third = await carry(c, destination="there.test")
        assert third.record.host == "mx.there.test"
        await c.close(deadline=1)

    run(loop, main())


def test_destination_that_came_back_is_never_tried_again(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route_module, "DEAD_FOR", 0.0)

    async def main() -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
            c = carrier(direct(port), resolver=one())
            theirs(only(await carry(c, destination="there.test")), Phase.CONNECT)
        server = ScriptedServer()
        listener = await asyncio.start_server(server.handle, "127.0.0.1", port)
        assert isinstance(only(await carry(c, destination="there.test")), Delivered)
        await c.close(deadline=1)
        listener.close()

    run(loop, main())


def test_destination_that_wants_no_more_sessions_is_taken_for_dead(loop: str) -> None:
    """Hosts that limit connections refuse the next one while another is at work."""

    async def main() -> None:
        far, dots = ScriptedServer({"DOT": Silence()}), Dots()
        listener = await asyncio.start_server(far.handle, "127.0.0.1", 0)
        c = carrier(direct(listener.sockets[0].getsockname()[1]), resolver=one())
        at_work = asyncio.ensure_future(carry(c, dots=dots, destination="there.test"))
        async with asyncio.timeout(10):
            while not dots.count:
                await asyncio.sleep(0)
        listener.close()
        for _ in range(2):
            refused = theirs(only(await carry(c, destination="there.test")), Phase.CONNECT)
            assert "a moment ago" not in refused.reason
        at_work.cancel()
        await asyncio.gather(at_work, return_exceptions=True)
        await c.close(deadline=1)

    run(loop, main())


# --- room and sessions ------------------------------------------------------------------------


def test_session_is_used_again_for_its_own_destination_only(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(direct(far.port), resolver=one())
            for destination, connections in (
                ("there.test", 1), ("there.test", 1), ("other.test", 2), ("there.test", 2),
            ):  # fmt: skip
                report = await carry(c, destination=destination)
                assert isinstance(only(report), Delivered)
                assert report.record.host == f"mx.{destination}"
                assert far.connections == connections
            await c.close(deadline=1)
            assert far.log.count("QUIT") == 2

    run(loop, main())


def test_idle_sessions_of_many_destinations_pile_up(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(direct(far.port, connections=1), resolver=one())
            assert isinstance(only(await carry(c, destination="there.test")), Delivered)
            assert isinstance(only(await carry(c, destination="other.test")), Delivered)
            await far.reached.wait()  # the first one's session had to go
            assert (far.connections, far.ended) == (2, 1)
            await c.close(deadline=1)

    run(loop, main())


def test_kept_session_that_died_is_replaced(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer({"MAIL": [b"250 ok\r\n", Close(), b"250 ok\r\n"]})) as far:
            c = carrier(direct(far.port), resolver=one())
            for _ in range(2):
                assert isinstance(only(await carry(c, destination="there.test")), Delivered)
            far.writers[1].close()
            while far.ended < 2:
                await asyncio.sleep(0)
            assert isinstance(only(await carry(c, destination="there.test")), Delivered)
            assert far.connections == 3
            await c.close(deadline=1)

    run(loop, main())


def test_silent_destination_takes_the_room_of_all(loop: str) -> None:
    """F51, I17: what one destination may have is bounded, and nobody waits behind it."""

    async def main() -> None:
        script = {"MAIL": [Silence(), Silence(), b"250 ok\r\n"]}
        async with serve(ScriptedServer(script)) as far:
            c = carrier(direct(far.port, connections=4, destination_connections=2), resolver=one())
            assert (c.most(DEFAULT_POOL), c.capacity(DEFAULT_POOL)) == (2, 4)
            stuck = [asyncio.ensure_future(carry(c, destination="there.test")) for _ in range(3)]
            while far.log.count("MAIL FROM:<me@sender.test> SIZE=37") < 2:
                await asyncio.sleep(0)
            assert c.capacity(DEFAULT_POOL) == 2  # the third of them waits and holds nothing
            assert isinstance(only(await carry(c, destination="other.test")), Delivered)
            stuck[2].cancel()
            with pytest.raises(asyncio.CancelledError):
                await stuck[2]
            await c.close(deadline=0)
            for report in await asyncio.gather(*stuck[:2]):
                assert isinstance(only(report), Deferred)

    run(loop, main())


def test_envelope_without_a_destination_goes_by_smart_hosts_only(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(direct(far.port, weight=1000), resolver=one())
            nowhere = only(await carry(c))
            assert isinstance(nowhere, Deferred)
            assert nowhere.phase is Phase.ROUTE
            smart = relay(far.port)
            c.use([direct(far.port, weight=1000), smart])
            assert c.most(DEFAULT_POOL) is None
            assert (await carry(c)).record.relay == "r1"
            assert (await carry(c, destination="there.test")).record.relay == "mx"
            await c.close(deadline=1)

    run(loop, main())


def test_faulty_smart_host_is_made_up_for(loop: str) -> None:
    async def main() -> None:
        async with (
            serve(ScriptedServer({"BANNER": b"421 4.3.2 closing\r\n"})) as smart,
            serve(ScriptedServer()) as far,
        ):
            c = carrier(direct(far.port), relay(smart.port, weight=1000), resolver=one())
            report = await carry(c, destination="there.test")
            assert only(report) == Delivered(Reply(250, "fine", "2.0.0"), Via.MX)
            assert (smart.connections, far.connections) == (1, 1)
            await c.close(deadline=1)

    run(loop, main())


def test_address_that_is_not_ours_is_the_relays_fault(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            mx = direct(far.port, weight=1000, source=("192.0.2.1",))
            c = carrier(mx, resolver=one())
            outcome = only(await carry(c, destination="there.test"))
            assert isinstance(outcome, Deferred)
            assert (outcome.speaker, outcome.relay_fault) == (Speaker.SELF, True)
            c.use([mx, relay(far.port)])
            assert (await carry(c, destination="there.test")).record.relay == "r1"
            await c.close(deadline=1)

    run(loop, main())


# --- what a host lacks ------------------------------------------------------------------------


def test_message_too_large_for_the_destination_is_tried_elsewhere(loop: str) -> None:
    """F70: the destination's own limit; no other way makes it larger."""

    async def main() -> None:
        async with both(ScriptedServer(extensions=("PIPELINING", "SIZE 20")), ScriptedServer()) as (
            first,
            second,
        ):
            c = carrier(direct(second.port, weight=1000), relay(second.port), resolver=two())
            outcome = only(await carry(c, destination="there.test"))
            assert isinstance(outcome, Bounced)
            assert outcome.reply.enhanced == "5.3.4"
            assert (first.connections, second.connections) == (1, 0)
            utf8 = only(await carry(c, "ü@there.test", destination="there.test"))
            assert isinstance(utf8, Bounced)
            assert utf8.reply.enhanced == "5.6.7"
            await c.close(deadline=1)

    run(loop, main())


def test_stand_in_that_lacks_something_bounces_what_the_first_host_would_take(loop: str) -> None:
    """The first host is only down: its word is still to come."""

    async def main() -> None:
        async with serve(ScriptedServer(extensions=("PIPELINING", "SIZE 20"))) as second:
            c = carrier(direct(second.port), resolver=two())  # nobody listens on ::1
            for recipient in ("a@there.test", "ü@there.test"):
                outcome = only(await carry(c, recipient, destination="there.test"))
                theirs(outcome, Phase.CONNECT)
            await c.close(deadline=1)

    run(loop, main())


def test_own_rule_bounces_what_another_relay_delivers(loop: str) -> None:
    """Private networks are forbidden to direct delivery here, not to the smart host."""

    async def main() -> None:
        async with serve(ScriptedServer()) as smart:
            mx = direct(smart.port, weight=1000, allow_private=False)
            c = carrier(mx, relay(smart.port), resolver=one())
            report = await carry(c, destination="there.test")
            assert only(report) == Delivered(Reply(250, "fine", "2.0.0"), Via.RELAY)
            c.use([mx])
            assert isinstance(only(await carry(c, destination="there.test")), Bounced)
            await c.close(deadline=1)

    run(loop, main())


def test_other_machines_of_one_name_are_never_tried(loop: str) -> None:
    """RFC 5321 §5.1: each of a host's addresses, within the sessions of an attempt."""
    names = Names(
        {
            ("there.test", "MX"): ["10 mx.there.test."],
            ("mx.there.test", "AAAA"): ["::1"],
            ("mx.there.test", "A"): ["127.0.0.1"],
        }
    )

    async def main() -> None:
        for script in ({"BANNER": b"421 4.3.2 busy\r\n"}, {"MAIL": b"451 4.3.0 not now\r\n"}):
            async with both(ScriptedServer(script), ScriptedServer()) as (first, second):
                c = carrier(direct(second.port), resolver=names)
                report = await carry(c, destination="there.test")
                assert isinstance(only(report), Delivered)
                assert (first.connections, second.connections) == (1, 1)
                await c.close(deadline=1)

    run(loop, main())


def test_destination_is_blamed_for_our_lack_of_descriptors(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def exhausted(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(session_module, "connect", exhausted)

    async def main() -> None:
        c = carrier(direct(25), resolver=one())
        for _ in range(2):
            outcome = only(await carry(c, destination="there.test"))
            assert isinstance(outcome, Deferred)
            assert (outcome.speaker, outcome.relay_fault) == (Speaker.SELF, True)
            assert "a moment ago" not in outcome.reason
        await c.close(deadline=1)

    run(loop, main())


# --- TLS --------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [TlsPolicy.OPPORTUNISTIC, TlsPolicy.REQUIRE, TlsPolicy.VERIFY])
def test_certificate_must_name_the_host_and_not_the_domain(
    loop: str, tmp_path: Path, policy: TlsPolicy
) -> None:
    good = make(tmp_path, "mx.there.test")

    async def main() -> None:
        server = ScriptedServer(
            {"STARTTLS": StartTls(good.server)}, extensions=(*EXTENSIONS, "STARTTLS")
        )
        async with serve(server) as far:
            c = carrier(direct(far.port, tls=policy), resolver=one(), ca_file=good.ca_file)
            report = await carry(c, destination="there.test")
            assert isinstance(only(report), Delivered)
            assert report.record.tls is not None
            assert report.record.tls.verified is (policy is TlsPolicy.VERIFY)
            other = only(await carry(c, destination="other.test"))
            if policy is TlsPolicy.VERIFY:
                theirs(other, Phase.SECURE)
            else:
                assert isinstance(other, Delivered)
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize("reply", [b"454 4.7.0 not now\r\n", b"220 go\r\n"])
def test_broken_tls_goes_in_clear_where_the_policy_allows_and_nowhere_else(
    loop: str, reply: bytes
) -> None:
    """F65, S16."""

    async def main() -> None:
        ready = reply.startswith(b"220")
        script = {"STARTTLS": StartTls(None, reply, Close()) if ready else reply}
        server = ScriptedServer(script, extensions=(*EXTENSIONS, "STARTTLS"))
        async with serve(server) as far:
            for policy in (TlsPolicy.REQUIRE, TlsPolicy.VERIFY):
                c = carrier(direct(far.port, tls=policy), resolver=one())
                theirs(only(await carry(c, destination="there.test")), Phase.SECURE)
                await c.close(deadline=1)
            assert far.mail == []
            c = carrier(direct(far.port, tls=TlsPolicy.OPPORTUNISTIC), resolver=one())
            report = await carry(c, destination="there.test", rendering=render())
            assert isinstance(only(report), Delivered)
            assert report.record.tls is None
            await c.close(deadline=1)

    run(loop, main())
