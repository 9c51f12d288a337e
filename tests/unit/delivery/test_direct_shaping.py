"""Straight to MX hosts, in the measure that they want: one site for all its domains, a pause where
they throttle (F67), the same way again where they greylist (F68), another address where they refuse
one."""

import asyncio

import msgspec
import pytest

from everpost import telemetry
from everpost.clock import SystemClock
from everpost.delivery import lanes
from everpost.model.health import CircuitState
from everpost.model.outcome import Bounced, Deferred, Delivered, Phase, Speaker
from everpost.model.pool import Pool
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
    run,
)
from tests.support.tiny_smtp import ScriptedServer, Silence, serve

pytestmark = pytest.mark.parametrize("loop", LOOPS)

RATE = b"451 4.7.650 The mail server has been temporarily rate limited due to IP reputation.\r\n"
BLOCK = b"554 5.7.1 Service unavailable; Client host blocked using zen.spamhaus.org\r\n"
GREY = b"450 4.2.0 Greylisted, try again in 300 seconds\r\n"
HERE = "127.0.0.1"
ONE, TWO = "127.0.0.2", "127.0.0.3"


def provider(domains: int, *hosts: str) -> Names:
    """So many domains with the same hosts, all on this machine: d0.test, d1.test, …"""
    records: dict[tuple[str, str], list[str]] = {(host, "A"): [HERE] for host in hosts}
    for n in range(domains):
        records[f"d{n}.test", "MX"] = [f"{10 + at} {host}." for at, host in enumerate(hosts)]
    return Names(records)


def postponed(outcome: object) -> Deferred:
    assert isinstance(outcome, Deferred), outcome
    assert (outcome.untried, outcome.phase) == (True, Phase.ROUTE)
    assert (outcome.speaker, outcome.relay_fault) == (Speaker.DESTINATION, False)
    return outcome


def test_hundred_domains_of_one_provider_open_a_hundred_sessions(loop: str) -> None:
    """Nobody knows them yet: the question comes before the place."""

    async def main() -> None:
        names = provider(100, "mx.big.test")
        async with serve(ScriptedServer()) as far:
            c = carrier(direct(far.port, connections=100), resolver=names)
            reports = await asyncio.gather(
                *(carry(c, f"a@d{n}.test", destination=f"d{n}.test") for n in range(100))
            )
            assert all(isinstance(only(r), Delivered) for r in reports)
            assert len(far.mail) == 100
            assert far.peak <= 20
            assert far.connections <= 20  # and one session carries the mail of all
            await c.close(deadline=1)

    run(loop, main())


def test_tenants_of_one_provider_open_a_session_each(loop: str) -> None:
    """Hosts of their own: a session carries one tenant's mail, and they count together."""

    async def main() -> None:
        names = Names(
            {(f"d{n}.test", "MX"): [f"0 d{n}-test.mail.protection.outlook.com."] for n in range(40)}
            | {(f"d{n}-test.mail.protection.outlook.com", "A"): [HERE] for n in range(40)}
        )
        async with serve(ScriptedServer()) as far:
            mx = direct(far.port, connections=100, destination_connections=4)
            c = carrier(mx, resolver=names)
            for _ in range(2):
                await asyncio.gather(
                    *(carry(c, f"a@d{n}.test", destination=f"d{n}.test") for n in range(40))
                )
            assert len(far.mail) == 80
            assert far.peak <= 4
            await c.close(deadline=1)

    run(loop, main())


def test_provider_closes_a_session_after_its_share_of_messages(loop: str) -> None:
    """Yahoo takes twenty."""

    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(direct(far.port), resolver=provider(1, "mta5.am0.yahoodns.net"))
            for _ in range(45):
                await carry(c, destination="d0.test")
            assert (far.connections, far.peak) == (3, 1)
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize("at", ["BANNER", "MAIL", "RCPT", "DOT"])
def test_destination_that_throttles_is_hammered(loop: str, at: str) -> None:
    """F67: neither its second host nor its other domains are tried while it cools down."""

    async def main() -> None:
        answer = b"421 4.7.0 too many connections from you\r\n" if at == "BANNER" else RATE
        async with serve(ScriptedServer({at: answer})) as far:
            c = carrier(direct(far.port), resolver=provider(2, "mx1.big.test", "mx2.big.test"))
            first = only(await carry(c, destination="d0.test"))
            assert isinstance(first, Deferred)
            assert (first.throttle, first.untried) == (True, False)
            assert first.until is not None
            assert far.connections == 1
            for domain in ("d0.test", "d1.test"):
                report = await carry(c, destination=domain)
                assert postponed(only(report)).until == first.until
                assert report.record.relay is None
            assert far.connections == 1
            (news,) = c.shaper.news()
            assert news.data["until"] == first.until
            await c.close(deadline=1)

    run(loop, main())


class Ahead(SystemClock):
    """A clock that the test moves."""

    ahead_ms = 0

    def now(self) -> int:
        return super().now() + self.ahead_ms


def test_cooldown_ends_and_all_come_at_once(loop: str) -> None:
    """I19: first one, and as many more as that one's success allows."""

    async def main() -> None:
        clock = Ahead()
        async with serve(ScriptedServer({"RCPT": [RATE, b"250 ok\r\n"]})) as far:
            c = carrier(direct(far.port), resolver=provider(20, "mx.big.test"), clock=clock)
            first = only(await carry(c, destination="d0.test"))
            assert isinstance(first, Deferred)
            assert first.until is not None
            clock.ahead_ms = first.until - clock.now() + 1
            await asyncio.gather(*(carry(c, destination=f"d{n}.test") for n in range(20)))
            assert far.mail.count(MESSAGE) == 20
            assert far.peak <= 6  # 1 + 2 + 3 + 4 + 5 messages until there may be six
            await c.close(deadline=1)

    run(loop, main())


def test_those_in_line_wait_for_the_cooldown_to_end(loop: str) -> None:
    async def main() -> None:
        script = {"RCPT": [RATE, Silence()]}
        async with serve(ScriptedServer(script)) as far:
            mx = direct(far.port, destination_connections=1)
            c = carrier(mx, resolver=provider(1, "mx.big.test"))
            reports = await asyncio.gather(*(carry(c, destination="d0.test") for _ in range(20)))
            assert sum(bool(getattr(only(r), "untried", False)) for r in reports) == 19
            assert far.connections == 1
            await c.close(deadline=1)

    run(loop, main())


def test_what_another_process_learnt_holds_here(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer({"RCPT": RATE})) as far:
            one = carrier(direct(far.port), resolver=provider(2, "mx.big.test"))
            two = carrier(direct(far.port), resolver=provider(2, "mx.big.test"))
            await carry(one, destination="d0.test")
            two.learn_sites(one.shaper.news())
            until = postponed(only(await carry(two, destination="d1.test"))).until
            assert until is not None
            assert far.connections == 1
            await one.close(deadline=1)
            await two.close(deadline=1)

    run(loop, main())


def test_one_busy_mailbox_stops_the_whole_site(loop: str) -> None:
    async def main() -> None:
        busy = b"450 4.2.1 The user you are trying to contact is receiving mail too quickly.\r\n"
        async with serve(ScriptedServer({"RCPT": [busy, b"250 ok\r\n"]})) as far:
            c = carrier(direct(far.port), resolver=provider(1, "mx.big.test"))
            assert isinstance(only(await carry(c, destination="d0.test")), Deferred)
            assert isinstance(only(await carry(c, destination="d0.test")), Delivered)
            await c.close(deadline=1)

    run(loop, main())


def test_strangers_fallback_host_stops_the_site(loop: str) -> None:
    """His best host is the victim's, the one behind it his own: what that says is his alone."""

    async def main() -> None:
        names = provider(1, "mx.victim.test")
        names.records["evil.test", "MX"] = ["10 mx.victim.test.", "20 mx.evil.test."]
        names.records["mx.evil.test", "AAAA"] = ["::1"]
        evil = ScriptedServer({"RCPT": RATE})
        victim = ScriptedServer({"MAIL": [b"451 4.3.0 not now\r\n", b"250 ok\r\n"]})
        async with serve(victim), serve(evil, "::1", victim.port):
            c = carrier(direct(victim.port), resolver=names)
            assert isinstance(only(await carry(c, destination="evil.test")), Deferred)
            assert evil.connections == 1
            assert isinstance(only(await carry(c, destination="d0.test")), Delivered)
            await c.close(deadline=1)

    run(loop, main())


# --- several source addresses ---------------------------------------------------------------------


def test_address_that_is_throttled_takes_the_others_along(loop: str) -> None:
    async def main() -> None:
        far = ScriptedServer(by_peer={ONE: {"RCPT": RATE}})
        async with serve(far):
            mx = [direct(far.port, name=n, source=(n,), weight=w) for n, w in [(ONE, 9), (TWO, 1)]]
            c = carrier(*mx, resolver=provider(1, "mx.big.test"))
            assert isinstance(only(await carry(c, destination="d0.test")), Deferred)
            for _ in range(3):
                report = await carry(c, destination="d0.test")
                assert isinstance(only(report), Delivered)
                assert report.record.relay == TWO
            assert far.peers == [ONE, TWO]
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize("at", ["BANNER", "MAIL", "RCPT"])
def test_blocked_address_bounces_what_another_may_send(loop: str, at: str) -> None:
    async def main() -> None:
        far = ScriptedServer(by_peer={ONE: {at: BLOCK}})
        async with serve(far):
            mx = [direct(far.port, name=n, source=(n,), weight=w) for n, w in [(ONE, 9), (TWO, 1)]]
            c = carrier(*mx, resolver=provider(1, "mx.big.test"))
            for _ in range(3):
                report = await carry(c, destination="d0.test")
                assert isinstance(only(report), Delivered)
                assert report.record.relay == TWO
            assert far.peers == [ONE, TWO]
            await c.close(deadline=1)

    run(loop, main())


def test_block_after_the_final_dot_makes_a_second_dot(loop: str) -> None:
    """One attempt has one dot: the other address takes it at the next."""

    async def main() -> None:
        far = ScriptedServer(by_peer={ONE: {"DOT": BLOCK}})
        async with serve(far):
            mx = [direct(far.port, name=n, source=(n,), weight=w) for n, w in [(ONE, 9), (TWO, 1)]]
            c = carrier(*mx, resolver=provider(1, "mx.big.test"))
            dots = Dots()
            outcome = only(await carry(c, destination="d0.test", dots=dots))
            assert isinstance(outcome, Deferred)
            assert (outcome.untried, dots.count) == (False, 1)
            report = await carry(c, destination="d0.test")
            assert isinstance(only(report), Delivered)
            assert report.record.relay == TWO
            await c.close(deadline=1)

    run(loop, main())


def test_address_that_everybody_refuses_sends_on(loop: str) -> None:
    """Nobody else is there: bounced as it was refused; what follows waits for the stop to end."""

    async def main() -> None:
        async with serve(ScriptedServer({"RCPT": BLOCK})) as far:
            mx = [direct(far.port, name=n, source=(n,)) for n in (ONE, TWO)]
            c = carrier(*mx, resolver=provider(1, "mx.big.test"))
            outcome = only(await carry(c, destination="d0.test"))
            assert isinstance(outcome, Bounced)
            assert sorted(far.peers) == [ONE, TWO]
            later = postponed(only(await carry(c, destination="d0.test")))
            assert later.until is not None
            assert len(far.peers) == 2
            await c.close(deadline=1)

    run(loop, main())


def test_block_bounces_though_the_other_address_only_cools(loop: str) -> None:
    async def main() -> None:
        far = ScriptedServer(by_peer={ONE: {"RCPT": RATE}, TWO: {"RCPT": BLOCK}})
        async with serve(far):
            mx = [direct(far.port, name=n, source=(n,), weight=w) for n, w in [(ONE, 9), (TWO, 1)]]
            c = carrier(*mx, resolver=provider(1, "mx.big.test"))
            throttled = only(await carry(c, destination="d0.test"))
            assert isinstance(throttled, Deferred)
            blocked = only(await carry(c, destination="d0.test"))
            assert isinstance(blocked, Deferred)
            assert (blocked.untried, blocked.until) == (False, throttled.until)
            assert blocked.reply is not None
            assert blocked.reply.code == 554
            assert far.peers == [ONE, TWO]
            await c.close(deadline=1)

    run(loop, main())


def test_some_recipients_are_refused_for_our_address(loop: str) -> None:
    async def main() -> None:
        far = ScriptedServer(by_peer={ONE: {"RCPT": [b"250 ok\r\n", BLOCK]}})
        async with serve(far):
            mx = [direct(far.port, name=n, source=(n,), weight=w) for n, w in [(ONE, 9), (TWO, 1)]]
            c = carrier(*mx, resolver=provider(1, "mx.big.test"))
            report = await carry(c, "a@d0.test", "b@d0.test", destination="d0.test")
            first, second = report.outcomes
            assert isinstance(first, Delivered)
            assert isinstance(second, Deferred)
            await c.close(deadline=1)

    run(loop, main())


def test_address_that_many_sites_refuse_is_shown_to_the_next(loop: str) -> None:
    """It is taken out as a whole, with an alarm, until it works again."""

    async def main() -> None:
        names = Names({})
        for n in range(6):
            names.records[f"d{n}.test", "MX"] = [f"10 mx{n}.test."]
            names.records[f"mx{n}.test", "A"] = [HERE]
        far = ScriptedServer(by_peer={ONE: {"RCPT": [BLOCK, BLOCK, BLOCK, b"250 ok\r\n"]}})
        alarm = telemetry.alarm(f"source_blocked:{ONE}")
        async with serve(far):
            mx = [direct(far.port, name=n, source=(n,), weight=w) for n, w in [(ONE, 9), (TWO, 1)]]
            c = carrier(*mx, resolver=names)
            for n in range(5):
                assert isinstance(only(await carry(c, destination=f"d{n}.test")), Delivered)
            assert far.peers.count(ONE) == 3
            health = {h.relay: h for h in c.news()}[ONE.encode()]
            assert (health.state, health.why) == (CircuitState.OPEN, "blocked by 3 sites")
            assert alarm.raised
            c.learn(
                [
                    msgspec.structs.replace(
                        health, state=CircuitState.CLOSED, since=health.since + 10
                    )
                ]
            )
            assert not alarm.raised
            await c.close(deadline=1)

    run(loop, main())


class Later(Ahead):
    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_ms / 1000


def test_only_address_is_called_blocked_for_ever(loop: str) -> None:
    """It is never taken out, so the alarm ends when it works and nobody said so for an hour."""

    async def main() -> None:
        names = Names({})
        for n in range(5):
            names.records[f"d{n}.test", "MX"] = [f"10 mx{n}.test."]
            names.records[f"mx{n}.test", "A"] = [HERE]
        alarm = telemetry.alarm("source_blocked:mx")
        async with serve(ScriptedServer({"RCPT": [BLOCK] * 3 + [b"250 ok\r\n"]})) as far:
            clock = Later()
            c = carrier(direct(far.port), resolver=names, clock=clock)
            for n in range(3):
                assert isinstance(only(await carry(c, destination=f"d{n}.test")), Bounced)
            assert isinstance(only(await carry(c, destination="d3.test")), Delivered)
            assert alarm.raised
            clock.ahead_ms += 3_600_000
            assert isinstance(only(await carry(c, destination="d4.test")), Delivered)
            assert not alarm.raised
            await c.close(deadline=1)

    run(loop, main())


def test_greylisted_message_comes_from_another_address(loop: str) -> None:
    """F68."""

    async def main() -> None:
        far = ScriptedServer(by_peer={ONE: {"RCPT": [GREY, b"250 ok\r\n"]}})
        async with serve(far):
            mx = [direct(far.port, name=n, source=(n,), weight=w) for n, w in [(ONE, 5), (TWO, 4)]]
            c = carrier(*mx, resolver=provider(2, "mx.big.test"))
            assert isinstance(only(await carry(c, destination="d0.test")), Deferred)
            for domain in ("d0.test", "d1.test", "d0.test"):
                report = await carry(c, destination=domain)
                assert isinstance(only(report), Delivered)
                assert report.record.relay == ONE
            assert set(far.peers) == {ONE}
            assert [n.data["passed"] for n in c.shaper.news()] == [True]
            await c.close(deadline=1)

    run(loop, main())


def test_smart_host_beside_is_left_idle_during_the_cooldown(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer({"RCPT": RATE})) as far, serve(ScriptedServer()) as smart:
            mx = direct(far.port, weight=1000)
            c = carrier(mx, relay(smart.port, weight=1), resolver=provider(1, "mx.big.test"))
            assert isinstance(only(await carry(c, destination="d0.test")), Deferred)
            assert isinstance(only(await carry(c, destination="d0.test")), Delivered)
            assert len(smart.mail) == 1
            await c.close(deadline=1)

    run(loop, main())


def test_message_that_a_relay_failed_waits_in_line_for_a_cooldown(loop: str) -> None:
    """Its relay stays in service, and the next tier's address may send nothing there for a while:
    back to the queue, until the relay is tried again and not until the site has cooled down."""

    async def main() -> None:
        no = {"MAIL": b"550 5.7.1 quota exceeded\r\n"}
        async with serve(ScriptedServer({"RCPT": RATE})) as far, serve(ScriptedServer(no)) as smart:
            mx, first = direct(far.port), relay(smart.port)
            c = carrier(resolver=provider(1, "mx.big.test"))
            c.use(
                [mx, first],
                [Pool(name="mx", tiers=((mx.id,),)), Pool(name="p", tiers=((first.id,), (mx.id,)))],
            )
            assert isinstance(only(await carry(c, destination="d0.test", pool="mx")), Deferred)
            outcome = only(await carry(c, destination="d0.test", pool="p"))
            assert isinstance(outcome, Deferred)
            assert (outcome.relay_fault, outcome.until, outcome.untried) == (True, None, False)
            assert len(far.peers) == 1
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize("first", ["mx", "smart"])
def test_our_own_rules_bounce_what_a_relay_out_of_order_may_carry(loop: str, first: str) -> None:
    """The MX relay may not connect to private addresses; the smart host beside it is down."""

    async def main() -> None:
        async with serve(ScriptedServer({"BANNER": b"421 4.3.2 down\r\n"})) as smart:
            weights = {"mx": (1000, 1), "smart": (1, 1000)}[first]
            mx = direct(25, allow_private=False, weight=weights[0])
            c = carrier(
                mx, relay(smart.port, weight=weights[1]), resolver=provider(1, "mx.big.test")
            )
            for _ in range(3):
                outcome = only(await carry(c, destination="d0.test"))
                assert isinstance(outcome, Deferred), outcome
            await c.close(deadline=1)

    run(loop, main())


def test_slow_site_with_many_domains_fills_the_line(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I17: who would wait behind so many goes back to the queue."""
    monkeypatch.setattr(lanes, "_LINE", 100)

    async def main() -> None:
        async with serve(ScriptedServer({"RCPT": Silence()})) as far:
            mx = direct(far.port, connections=50, destination_connections=1)
            names = provider(130, "mx.big.test")
            names.records["quick.test", "MX"] = ["10 quick.test."]
            c = carrier(mx, resolver=names)
            tasks = [asyncio.ensure_future(carry(c, destination=f"d{n}.test")) for n in range(130)]
            done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            while len(done) < 29:
                done, waiting = await asyncio.wait(tasks, timeout=0.01)
            assert all(postponed(only(task.result())) for task in done)
            assert len(waiting) == 101
            await far.silent.wait()
            assert far.connections == 1
            await c.close(deadline=0)
            await asyncio.gather(*waiting)

    run(loop, main())
