"""Mail keeps to its pool, its tiers and its site; relays go out of service and come back; a message
for one relay goes to that one."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from everpost.clock import SystemClock
from everpost.delivery import Carrier, Extensions, Render, Report, Timeouts
from everpost.delivery.breaker import FIRST_SHARE, OPEN_FOR, SLOW_START
from everpost.model.health import CircuitState, Health
from everpost.model.message import Form, Rendered
from everpost.model.outcome import Deferred, Delivered, Phase, Speaker
from everpost.model.pool import DEFAULT_POOL, Pool
from everpost.model.relay import Relay, RelayState
from tests.support.carrying import LOOPS, MESSAGE, carrier, carry, only, relay, run
from tests.support.tiny_smtp import ScriptedServer, Silence, serve

pytestmark = pytest.mark.parametrize("loop", LOOPS)

DOWN = {"BANNER": b"421 4.3.2 down\r\n"}


class Watch(SystemClock):
    """A clock that can be put forward."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0

    def now(self) -> int:
        return super().now() + round(self.ahead * 1000)

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


async def via(c: Carrier, **other: Any) -> str | None:
    return ok_via(await carry(c, **other))


def ok_via(report: Report) -> str | None:
    return report.record.relay if isinstance(only(report), Delivered) else None


def nowhere(report: Report) -> Deferred:
    outcome = only(report)
    assert isinstance(outcome, Deferred)
    assert (outcome.phase, outcome.speaker) == (Phase.ROUTE, Speaker.SELF)
    assert report.record.relay is None
    return outcome


def pool(name: str, *tiers: str, **other: Any) -> Pool:
    """Each tier is a string of relays' names, split at spaces."""
    return Pool(
        name=name, tiers=tuple(tuple(t.encode() for t in x.split()) for x in tiers), **other
    )


# --- pools and tiers ------------------------------------------------------------------------------


def test_mail_keeps_to_its_pool(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier()
            relays = [relay(far.port, name=name) for name in "abc"]
            c.use(relays, [pool("one", "a"), pool("two", "b gone", "c"), pool("empty", "gone")])
            assert {await via(c, pool="one") for _ in range(4)} == {"a"}
            assert {await via(c, pool="two") for _ in range(4)} == {"b"}
            assert {await via(c) for _ in range(6)} == {"a", "b", "c"}
            assert [c.capacity(name) for name in ("one", "two", DEFAULT_POOL)] == [2, 2, 6]
            assert (c.ready("empty"), c.capacity("empty")) == (False, 0)
            reason = nowhere(await carry(c, pool="empty")).reason
            assert reason == "no relay of pool empty is enabled"
            assert (c.ready("none"), c.capacity("none"), c.direct("none")) == (False, 0, False)
            assert c.most("none") is None
            assert nowhere(await carry(c, pool="none")).reason == "there is no pool none"
            await c.close(deadline=1)

    run(loop, main())


def test_pool_that_is_taken_away_lets_its_line_go(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer({"MAIL": Silence()})) as stuck:
            a = relay(stuck.port, name="a", connections=1)
            c = carrier()
            c.use([a], [pool("one", "a")])
            first = asyncio.ensure_future(carry(c, pool="one"))
            await stuck.silent.wait()
            waiting = asyncio.ensure_future(carry(c, pool="one"))
            await asyncio.sleep(0)
            c.use([a], [pool("other", "a")])
            nowhere(await waiting)
            first.cancel()
            await asyncio.wait([first])
            await c.close(deadline=1)

    run(loop, main())


def test_next_tier_helps_while_the_first_is_sick_and_goes_again(loop: str) -> None:
    async def main() -> None:
        watch = Watch()
        first = ScriptedServer({"BANNER": [DOWN["BANNER"], b"220 back\r\n"]})
        async with serve(first), serve(ScriptedServer()) as second:
            c = carrier(clock=watch)
            relays = [relay(first.port, name="a", probe=False), relay(second.port, name="b")]
            c.use(relays, [pool("p", "a", "b")])
            assert await via(c, pool="p") == "b"
            assert {await via(c, pool="p") for _ in range(5)} == {"b"}
            watch.ahead += OPEN_FOR
            assert await via(c, pool="p") == "a"  # the one that decides
            early = Counter([await via(c, pool="p") for _ in range(44)])
            assert early["a"] == pytest.approx(44 * FIRST_SHARE / (1 + FIRST_SHARE), abs=1)
            watch.ahead += SLOW_START * 0.9
            assert {await via(c, pool="p") for _ in range(10)} == {"a"}
            await c.close(deadline=1)

    run(loop, main())


def test_our_own_site_comes_first(loop: str) -> None:
    async def main() -> None:
        near, far = ScriptedServer(DOWN), ScriptedServer()
        async with serve(near), serve(far):
            c = carrier(site="here")
            relays = [
                relay(far.port, name="far", site="there", weight=100),
                relay(far.port, name="near", site="here"),
            ]
            c.use(relays, [pool("p", "far near")])
            assert {await via(c, pool="p") for _ in range(5)} == {"near"}
            c.use([relays[0], relay(near.port, name="near", site="here")], [pool("p", "far near")])
            assert {await via(c, pool="p") for _ in range(5)} == {"far"}
            await c.close(deadline=1)

    run(loop, main())


# --- one relay only -------------------------------------------------------------------------------


@pytest.mark.parametrize("state", RelayState)
def test_message_for_one_relay_goes_by_it_whatever_its_state(loop: str, state: RelayState) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far, serve(ScriptedServer()) as other:
            c = carrier(
                relay(far.port, name="a", state=state, connections=1), relay(other.port, name="b")
            )
            down = Health(relay=b"a", state=CircuitState.OPEN, since=2**42, until=2**42 + 10**6)
            c.learn([down])
            reports = await asyncio.gather(*(carry(c, pinned=b"a") for _ in range(3)))
            assert [report.record.relay for report in reports] == ["a"] * 3
            assert (len(far.mail), other.connections) == (3, 0)
            assert c.capacity(DEFAULT_POOL) == 2
            await c.close(deadline=1)

    run(loop, main())


def test_message_for_one_relay_goes_by_no_other(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer(DOWN)) as far, serve(ScriptedServer()) as other:
            c = carrier(relay(far.port, name="a"), relay(other.port, name="b"))
            for _ in range(2):
                report = await carry(c, pinned=b"a")
                outcome = only(report)
                assert isinstance(outcome, Deferred)
                assert outcome.phase is Phase.GREET
            assert (far.connections, other.connections) == (2, 0)
            gone = nowhere(await carry(c, pinned=b"gone"))
            assert gone.reason == "the relay it is meant for does not exist"
            await c.close(deadline=1)

    run(loop, main())


def test_line_for_one_relay_ends_with_it(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer({"MAIL": Silence()})) as stuck:
            c = carrier(relay(stuck.port, name="a", connections=1))
            first = asyncio.ensure_future(carry(c, pinned=b"a"))
            await stuck.silent.wait()
            waiting = [asyncio.ensure_future(carry(c, pinned=b"a")) for _ in range(2)]
            await asyncio.sleep(0)
            waiting[0].cancel()
            c.use([])
            nowhere(await waiting[1])
            first.cancel()
            await asyncio.wait([first, waiting[0]])
            await c.close(deadline=1)

    run(loop, main())


# --- circuits -------------------------------------------------------------------------------------


def test_those_in_line_are_moved_on_when_the_circuit_opens(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer({"BANNER": Silence()})) as mute:
            c = carrier(relay(mute.port, connections=1), timeouts=Timeouts(greet=0.2))
            reports = await asyncio.gather(*(carry(c) for _ in range(5)))
            assert mute.connections == 1
            reasons = [nowhere(report).reason for report in reports[1:]]
            assert all("no answer in 0.2 s, next look in" in reason for reason in reasons)
            await c.close(deadline=1)

    run(loop, main())


def test_relay_that_is_half_open_gets_one_message_at_a_time(loop: str) -> None:
    async def main() -> None:
        script = {"BANNER": [DOWN["BANNER"], b"220 back\r\n"], "RCPT": [Silence(), b"250 ok\r\n"]}
        async with serve(ScriptedServer(script)) as far:
            c = carrier(relay(far.port), open_for=0.0)
            await carry(c)
            trial = asyncio.ensure_future(carry(c))
            await far.silent.wait()
            assert c.capacity(DEFAULT_POOL) == 0
            second = asyncio.ensure_future(carry(c))
            await asyncio.sleep(0)
            assert far.connections == 2
            far.writers[1].close()  # the trial fails, softly
            assert isinstance(only(await trial), Deferred)
            assert isinstance(only(await second), Delivered)
            assert c.capacity(DEFAULT_POOL) == 1
            assert await via(c) == "r1"
            assert c.capacity(DEFAULT_POOL) == 2
            await c.close(deadline=1)

    run(loop, main())


def test_slow_start_of_a_relay_whose_messages_hang_is_over_in_time(loop: str) -> None:
    """F38: it is given one, then more as time goes by, and all that it may have at the end."""

    async def main() -> None:
        script = {"BANNER": [DOWN["BANNER"], b"220 back\r\n"], "RCPT": [b"250 ok\r\n", Silence()]}
        watch = Watch()
        async with serve(ScriptedServer(script)) as far:
            c = carrier(relay(far.port, connections=10), clock=watch, open_for=0.0)
            await carry(c)
            assert await via(c) == "r1"
            mail = [asyncio.ensure_future(carry(c)) for _ in range(20)]
            for part, connections in ((0.3, 4), (0.5, 6), (1.0, 10)):
                watch.ahead = SLOW_START * part + 0.1
                c.capacity(DEFAULT_POOL)
                while far.connections < 1 + connections:
                    await asyncio.sleep(0)
                assert c.capacity(DEFAULT_POOL) == 0
            for one in mail:
                one.cancel()
            await asyncio.wait(mail)
            await c.close(deadline=1)

    run(loop, main())


def test_relay_that_is_back_waits_for_what_hangs_from_before(loop: str) -> None:
    """Which may be until the ten minutes of the final dot are over."""

    async def main() -> None:
        script = {
            "BANNER": [b"220 hello\r\n", DOWN["BANNER"], b"220 back\r\n"],
            "RCPT": [Silence(), b"250 ok\r\n"],
        }
        async with serve(ScriptedServer(script)) as far:
            c = carrier(relay(far.port), open_for=0.0)
            hangs = asyncio.ensure_future(carry(c))
            await far.silent.wait()
            assert isinstance(only(await carry(c)), Deferred)
            assert isinstance(only(await carry(c)), Delivered)
            assert not hangs.done()
            hangs.cancel()
            await asyncio.wait([hangs])
            await c.close(deadline=1)

    run(loop, main())


def test_line_is_forgotten_when_no_new_mail_comes(loop: str) -> None:
    """Those who wait for a busy relay are given another one that is back."""

    async def main() -> None:
        async with (
            serve(ScriptedServer({"RCPT": Silence()})) as stuck,
            serve(ScriptedServer()) as good,
        ):
            watch = Watch()
            c = carrier(
                relay(stuck.port, name="a", connections=1),
                relay(good.port, name="b", probe=False),
                clock=watch,
            )
            now = watch.now()
            c.learn([Health(relay=b"b", state=CircuitState.OPEN, since=now, until=now + 5_000)])
            hangs = asyncio.ensure_future(carry(c))
            await stuck.silent.wait()
            waiting = asyncio.ensure_future(carry(c))
            await asyncio.sleep(0)
            watch.ahead += 6
            assert not waiting.done()
            c.news()  # which the exchange between processes asks for all the time
            report = await waiting
            assert (ok_via(report), hangs.done()) == ("b", False)
            hangs.cancel()
            await asyncio.wait([hangs])
            await c.close(deadline=1)

    run(loop, main())


def test_what_others_found_out_counts_here(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            watch = Watch()
            c = carrier(relay(far.port, name="a"), relay(far.port, name="b"), clock=watch)
            now = watch.now()
            known: dict[str, Any] = {"relay": b"a", "why": "421 down", "ejections": 3}
            c.learn(
                [
                    Health(state=CircuitState.OPEN, since=now + 1, until=now + 60_000, **known),
                    Health(relay=b"gone", state=CircuitState.OPEN, since=now, until=now + 60_000),
                ]
            )
            assert {await via(c) for _ in range(4)} == {"b"}
            c.learn([Health(state=CircuitState.CLOSED, since=now + 2, **known)])
            assert {await via(c) for _ in range(40)} == {"a", "b"}
            assert c.news() == ()
            await c.close(deadline=1)

    run(loop, main())


def test_probes_take_relays_out_and_bring_them_back(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            watch = Watch()
            c = carrier(relay(far.port, name="a"), relay(far.port, name="b"), clock=watch)
            bad = Deferred("no greeting", Phase.GREET, Speaker.RELAY, relay_fault=True)
            c.probed(b"a", bad)
            c.probed(b"gone", bad)
            assert {await via(c) for _ in range(4)} == {"b"}
            watch.ahead += OPEN_FOR
            assert {await via(c) for _ in range(4)} == {"b"}  # only a probe finds out
            c.probed(b"a", None)
            assert [health.state for health in c.news()] == [CircuitState.HALF_OPEN]
            assert await via(c) == "a"
            assert [health.state for health in c.news()] == [CircuitState.CLOSED]
            await c.close(deadline=1)

    run(loop, main())


def test_our_own_lack_takes_a_relay_out_here_only(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            mine = relay(far.port, name="a", source=("192.0.2.1",))  # not an address of ours
            c = carrier(mine, relay(far.port, name="b"))
            for _ in range(20):
                assert await via(c) == "b"
            assert c.capacity(DEFAULT_POOL) == 2
            assert c.news() == ()
            await c.close(deadline=1)

    run(loop, main())


def test_relay_that_is_far_slower_than_its_like_is_taken_out(loop: str) -> None:
    """F61, and never below the pool's floor."""

    async def main() -> None:
        watch = Watch()
        seen: list[str] = []

        def slow(name: str) -> tuple[Render, Any]:
            async def render(_: Extensions, by: Relay) -> Rendered:
                seen.append(by.name)
                return Rendered(MESSAGE, Form.SEVEN_BIT, b"h" * 32)

            def before_dot() -> None:
                watch.ahead += 4.0 if seen[-1] == name else 0.01

            return render, before_dot

        async with serve(ScriptedServer()) as far:
            render, dots = slow("a")
            for floor, expected in ((1, [b"a"]), (3, [])):
                c = carrier(clock=watch)
                relays = [relay(far.port, name=name) for name in "abc"]
                c.use(relays, [pool("p", "a b c", floor=floor)])
                for _ in range(20):
                    for name in (b"a", b"b", b"c"):
                        await carry(c, pool="p", pinned=name, rendering=render, dots=dots)
                assert [h.relay for h in c.news() if h.state is CircuitState.OPEN][:1] == expected
                await c.close(deadline=1)

    run(loop, main())


def test_standing_tells_of_the_last_minute(loop: str) -> None:
    async def main() -> None:
        watch = Watch()
        script = {
            "RCPT": [b"250 ok\r\n", b"550 5.1.1 unknown\r\n", b"554 5.7.1 relaying denied\r\n"]
        }
        async with serve(ScriptedServer(script)) as far:
            c = carrier(relay(far.port), clock=watch)
            for _ in range(3):
                await carry(c)
            (standing,) = c.standing()
            assert (standing.tried, standing.worked, standing.faults) == (3, 2, 1)
            assert (standing.in_flight, standing.sessions) == (0, 1)
            assert set(standing.latency_ms) == {"p50", "p95", "p99"}
            watch.ahead += 70
            (standing,) = c.standing()
            assert (standing.tried, dict(standing.latency_ms)) == (0, {})
            await c.close(deadline=1)

    run(loop, main())
