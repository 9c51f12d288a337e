"""Sessions are kept, shared fairly, replaced when dead and closed politely; a faulty relay is left
for another one, never at the price of a second copy."""

import asyncio
from typing import Any

import pytest

from everpost.delivery import CannotRender, Extensions, Timeouts
from everpost.delivery.breaker import PROVED_IN_A_ROW, SOFT_IN_A_ROW
from everpost.delivery.course import CONNECTS_PER_CARRY, REFUSALS_PER_CARRY
from everpost.model.health import CircuitState
from everpost.model.message import Form, Rendered
from everpost.model.outcome import (
    Bounced,
    Deferred,
    Delivered,
    Failed,
    InDoubt,
    Phase,
    Reply,
    Speaker,
    Tried,
)
from everpost.model.pool import DEFAULT_POOL
from everpost.model.relay import Relay, RelayState
from tests.support.carrying import LOOPS, MESSAGE, Dots, carrier, carry, only, relay, render, run
from tests.support.tiny_smtp import Close, ScriptedServer, Silence, serve

pytestmark = pytest.mark.parametrize("loop", LOOPS)


def ok(report: Any) -> bool:
    return all(isinstance(o, Delivered) for o in report.outcomes)


def test_session_is_used_again_and_its_record_holds_only_its_own_times(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(relay(far.port))
            first = await carry(c)
            second = await carry(c)
            assert ok(first)
            assert ok(second)
            assert far.connections == 1
            assert set(second.record.timings) == {"envelope", "dot"}
            assert second.record.peer == first.record.peer
            await c.close(deadline=1)

    run(loop, main())


def test_idle_session_is_closed_with_quit(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(relay(far.port), timeouts=Timeouts(idle=0.05))
            assert ok(await carry(c))
            await far.reached.wait()
            assert far.log[-1] == "QUIT"
            assert ok(await carry(c))
            assert far.connections == 2
            await c.close(deadline=1)

    run(loop, main())


def test_session_ends_after_its_share_of_transactions(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(relay(far.port, messages_per_connection=2))
            for _ in range(5):
                assert ok(await carry(c))
            assert far.connections == 3
            await c.close(deadline=1)
            assert far.log.count("QUIT") == 3

    run(loop, main())


def test_session_at_its_limit_never_stands_beside_its_successor(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(relay(far.port, connections=1, messages_per_connection=1))
            for n in range(1, 5):
                assert ok(await carry(c))
                assert (far.connections, far.ended, c.capacity(DEFAULT_POOL)) == (n, n - 1, 1)
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize("farewell", [b"", b"421 4.4.2 idle too long\r\n"])
def test_kept_session_that_died_is_replaced_without_a_trace(loop: str, farewell: bytes) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(relay(far.port))
            assert ok(await carry(c))
            far.writers[0].write(farewell)
            far.writers[0].close()
            dots = Dots()
            assert ok(await carry(c, dots=dots))
            assert (far.connections, dots.count) == (2, 1)
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize("misfortune", [Close(), b"421 4.7.0 enough mail\r\n"], ids=str)
def test_kept_session_that_ends_at_mail_is_replaced_once(loop: str, misfortune: Any) -> None:
    async def main() -> None:
        script = {"MAIL": [b"250 ok\r\n", misfortune, b"250 ok\r\n", misfortune, misfortune]}
        async with serve(ScriptedServer(script)) as far:
            c = carrier(relay(far.port))
            dots = Dots()
            assert ok(await carry(c, dots=dots))
            assert ok(await carry(c, dots=dots))
            assert (far.connections, dots.count) == (2, 2)
            # A fresh session that ends so is the relay's fault.
            outcome = only(await carry(c, dots=dots))
            assert isinstance(outcome, Deferred)
            assert (outcome.phase, outcome.relay_fault) == (Phase.MAIL, True)
            assert (far.connections, dots.count) == (3, 2)
            await c.close(deadline=1)

    run(loop, main())


def test_session_that_ends_after_the_dot_is_not_replaced(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer({"DOT": [b"250 ok\r\n", Close()]})) as far:
            c = carrier(relay(far.port), relay(far.port, name="r2"))
            dots = Dots()
            results = [only(await carry(c, dots=dots)) for _ in range(2)]
            assert isinstance(results[1], InDoubt)
            assert (len(far.mail), dots.count) == (2, 2)
            await c.close(deadline=1)

    run(loop, main())


def test_no_more_sessions_than_allowed_and_first_come_first_served(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(relay(far.port, connections=2))
            assert c.ready(DEFAULT_POOL)
            assert c.capacity(DEFAULT_POOL) == 2
            order: list[int] = []
            open_ = 0
            most = 0

            async def slow(_: Extensions, __: Relay) -> Rendered:
                nonlocal open_, most
                open_ += 1
                most = max(most, open_)
                for _round in range(3):
                    await asyncio.sleep(0)
                open_ -= 1
                return Rendered(MESSAGE, Form.SEVEN_BIT, b"")

            async def one(i: int) -> None:
                assert ok(await carry(c, rendering=slow, dots=lambda: order.append(i)))

            async with asyncio.TaskGroup() as group:
                for i in range(20):
                    group.create_task(one(i))
                await asyncio.sleep(0)
                assert c.capacity(DEFAULT_POOL) == 0
            assert most == 2
            assert far.connections == 2
            assert sorted(order) == list(range(20))
            assert all(abs(i - at) <= 2 for at, i in enumerate(order))
            assert c.capacity(DEFAULT_POOL) == 2
            await c.close(deadline=1)

    run(loop, main())


def test_cancelled_waiter_leaves_the_line_and_gives_back_its_place(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer({"MAIL": [Silence(), b"250 ok\r\n"]})) as far:
            c = carrier(relay(far.port, connections=1))
            holder = asyncio.ensure_future(carry(c))
            await far.reached.wait()
            waiters = [asyncio.ensure_future(carry(c)) for _ in range(3)]
            await asyncio.sleep(0)
            waiters[0].cancel()
            holder.cancel()
            await asyncio.wait([holder])
            assert holder.cancelled()
            waiters[1].cancel()  # it may have been given the place in this very moment
            assert ok(await waiters[2])
            assert c.capacity(DEFAULT_POOL) == 1
            await c.close(deadline=1)

    run(loop, main())


def test_cancelled_carry_never_leaves_half_a_transaction_to_the_next(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer({"RCPT": [Silence(), b"250 ok\r\n"]})) as far:
            c = carrier(relay(far.port))
            task = asyncio.ensure_future(carry(c))
            await far.reached.wait()
            task.cancel()
            await asyncio.wait([task])
            assert ok(await carry(c))
            assert far.connections == 2
            assert c.capacity(DEFAULT_POOL) == 2
            await c.close(deadline=1)

    run(loop, main())


# --- several relays -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        {"BANNER": b"554 5.7.1 no\r\n"},
        {"BANNER": Close()},
        {"EHLO": b"421 bye\r\n"},
        {"MAIL": b"550 5.7.1 quota\r\n"},
        {"MAIL": b"451 4.3.0 later\r\n"},
        {"RCPT": b"554 5.7.1 relay access denied\r\n"},
        {"DATA": Close()},
    ],
    ids=str,
)
def test_faulty_relay_is_left_for_another_one(loop: str, script: dict[str, Any]) -> None:
    """F51, F52, F57, F61: nothing was delivered, so another relay may try."""

    async def main() -> None:
        async with serve(ScriptedServer(script)) as bad, serve(ScriptedServer()) as good:
            c = carrier(relay(bad.port), relay(good.port, name="r2"))
            dots = Dots()
            report = await carry(c, dots=dots)
            assert ok(report)
            assert report.record.relay == "r2"
            assert (dots.count, good.mail) == (1, [MESSAGE])
            assert MESSAGE not in bad.mail
            await c.close(deadline=1)

    run(loop, main())


def test_relay_that_cannot_be_opened_gets_no_more_mail(loop: str) -> None:
    async def main() -> None:
        bad, good = ScriptedServer({"BANNER": b"421 no\r\n"}), ScriptedServer()
        async with serve(bad), serve(good):
            c = carrier(relay(bad.port), relay(good.port, name="r2"))
            assert c.capacity(DEFAULT_POOL) == 4
            reports = [await carry(c) for _ in range(10)]
            assert all(ok(report) for report in reports)
            assert bad.connections == 1
            assert c.capacity(DEFAULT_POOL) == 2
            assert reports[0].record.tried == (Tried("r1", Phase.GREET, "421 no"),)
            assert {report.record.tried for report in reports[1:]} == {()}
            (news,) = c.news()
            assert (news.relay, news.state, news.why) == (b"r1", CircuitState.OPEN, "421 no")
            assert (news.phase, news.speaker, news.ejections) == ("greet", "relay", 1)
            assert c.news() == ()
            await c.close(deadline=1)

    run(loop, main())


def test_relay_that_refuses_every_sender_gets_no_more_mail(loop: str) -> None:
    """F61: each message that another relay took proves that it was not the message."""

    async def main() -> None:
        bad, good = ScriptedServer({"MAIL": b"550 5.7.1 quota\r\n"}), ScriptedServer()
        async with serve(bad), serve(good):
            c = carrier(relay(bad.port), relay(good.port, name="r2"))
            for _ in range(40):
                assert ok(await carry(c))
            assert sum(line.startswith("MAIL") for line in bad.log) == PROVED_IN_A_ROW
            assert c.capacity(DEFAULT_POOL) == 2
            await c.close(deadline=1)

    run(loop, main())


def test_one_bad_sender_takes_no_relay_out(loop: str) -> None:
    """All relays refuse it, and all take the others."""

    async def main() -> None:
        refused = [b"550 5.7.1 Sender address rejected\r\n"] * (SOFT_IN_A_ROW * 3)
        script = {"MAIL": [*refused, b"250 ok\r\n"]}
        async with serve(ScriptedServer(script)) as a, serve(ScriptedServer(script)) as b:
            c = carrier(relay(a.port), relay(b.port, name="r2"))
            for _ in range(SOFT_IN_A_ROW * 3):
                assert not ok(await carry(c, sender="bad@sender.test"))
            assert c.news() == ()
            assert ok(await carry(c))
            await c.close(deadline=1)

    run(loop, main())


def test_relay_that_failed_is_not_forgiven_for_a_message_it_cannot_take(loop: str) -> None:
    async def main() -> None:
        no, big = b"451 4.3.0 no\r\n", b"552 5.3.4 big\r\n"
        bad = ScriptedServer({"MAIL": [*[no] * (PROVED_IN_A_ROW - 1), big, no]})
        async with serve(bad), serve(ScriptedServer()) as good:
            c = carrier(relay(bad.port), relay(good.port, name="r2"))
            while bad.used.get("MAIL", 0) <= PROVED_IN_A_ROW:
                assert c.capacity(DEFAULT_POOL) == 4
                assert ok(await carry(c))
            assert c.capacity(DEFAULT_POOL) == 2
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize("lack", [("PIPELINING",), ("PIPELINING", "SIZE 10"), "at MAIL"], ids=str)
@pytest.mark.parametrize("poor", [1, 2])
def test_what_one_relay_lacks_bounces_nobody_while_another_has_it(
    loop: str, lack: Any, poor: int
) -> None:
    async def main() -> None:
        if lack == "at MAIL":
            a = ScriptedServer({"MAIL": b"552 5.3.4 too big\r\n"})
        else:
            a = ScriptedServer(extensions=lack)
        async with serve(a), serve(ScriptedServer()) as good:
            poors = [relay(a.port, name=f"p{i}") for i in range(poor)]
            c = carrier(*poors, relay(good.port, name="z"))
            dots = Dots()
            report = await carry(c, "ä@x.test", "b@x.test", dots=dots)
            assert ok(report)
            assert (report.record.relay, dots.count) == ("z", 1)
            assert MESSAGE not in a.mail
            c.use(poors)
            assert isinstance((await carry(c, "ä@x.test", "b@x.test")).outcomes[0], Bounced)
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize("first_down", [False, True])
def test_what_one_relay_lacks_bounces_nobody_while_another_is_down(
    loop: str, first_down: bool
) -> None:
    """Those whom the poor relay reaches get their mail; the others wait."""

    async def main() -> None:
        poor = ScriptedServer(extensions=("PIPELINING",))
        async with serve(poor), serve(ScriptedServer({"BANNER": b"421 no\r\n"})) as down:
            relays = [relay(poor.port, name="p"), relay(down.port, name="d")]
            c = carrier(*(reversed(relays) if first_down else relays))
            dots = Dots()
            first, second = (await carry(c, "ä@x.test", "b@x.test", dots=dots)).outcomes
            assert isinstance(first, Deferred)
            assert isinstance(second, Delivered)
            assert (dots.count, len(poor.mail), down.connections) == (1, 1, 1)
            await c.close(deadline=1)

    run(loop, main())


def test_one_who_waits_for_a_relay_takes_no_room_from_another(loop: str) -> None:
    async def main() -> None:
        stuck, good = ScriptedServer({"MAIL": Silence()}), ScriptedServer()
        async with serve(stuck), serve(good):
            a = relay(stuck.port, connections=1)
            c = carrier(a, relay(good.port, name="r2", connections=3))
            tasks = [asyncio.ensure_future(carry(c, pinned=b"r1")) for _ in range(2)]
            await stuck.silent.wait()
            assert c.capacity(DEFAULT_POOL) == 3
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert c.capacity(DEFAULT_POOL) == 4
            await c.close(deadline=1)

    run(loop, main())


def test_relay_that_failed_and_is_the_only_one_is_tried_and_forgiven(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer({"BANNER": [b"421 no\r\n", b"220 yes\r\n"]})) as far:
            c = carrier(relay(far.port), open_for=0.0)
            assert not ok(await carry(c))
            assert c.capacity(DEFAULT_POOL) == 1
            assert ok(await carry(c))
            assert [health.state for health in c.news()] == [CircuitState.CLOSED]
            assert c.capacity(DEFAULT_POOL) == 1  # its slow start
            assert ok(await carry(c))
            assert c.capacity(DEFAULT_POOL) == 2
            await c.close(deadline=1)

    run(loop, main())


def test_mail_waits_for_a_relay_that_is_known_to_be_dead(loop: str) -> None:
    """It is told so at once, and when the next look is."""

    async def main() -> None:
        async with serve(ScriptedServer({"BANNER": b"421 no\r\n"})) as far:
            c = carrier(relay(far.port, probe=False))
            assert not ok(await carry(c))
            assert (c.ready(DEFAULT_POOL), c.capacity(DEFAULT_POOL) > 0) == (True, True)
            report = await carry(c)
            reason = "no relay of pool default is in service: r1: 421 no, next look in 5 s"
            outcome = only(report)
            assert isinstance(outcome, Deferred)
            assert (outcome.reason, outcome.speaker) == (reason, Speaker.SELF)
            assert outcome.untried
            assert outcome.until is not None
            assert 3_000 < outcome.until - report.record.started_at <= 5_001
            assert report.record.relay is None
            assert far.connections == 1
            await c.close(deadline=1)

    run(loop, main())


def test_one_message_visits_every_relay_that_may_be_sound(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer({"BANNER": b"421 no\r\n"})) as far:
            c = carrier(*(relay(far.port, name=f"r{i}") for i in range(4)))
            report = await carry(c)
            outcome = only(report)
            assert isinstance(outcome, Deferred)
            assert outcome.reply == Reply(421, "no")
            assert report.record.relay == "r3"
            assert [tried.relay for tried in report.record.tried] == ["r0", "r1", "r2"]
            assert far.connections == 4
            await c.close(deadline=1)

    run(loop, main())


def test_one_message_waits_for_three_dead_relays_at_most(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer({"BANNER": Silence()})) as mute:
            relays = [relay(mute.port, name=f"r{i}") for i in range(5)]
            c = carrier(*relays, timeouts=Timeouts(connect=0.1, greet=0.1))
            report = await carry(c)
            assert not ok(report)
            assert mute.connections == CONNECTS_PER_CARRY
            await c.close(deadline=1)

    run(loop, main())


def test_one_message_is_refused_by_three_relays_at_most(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer({"MAIL": b"550 5.7.1 not from you\r\n"})) as far:
            c = carrier(*(relay(far.port, name=f"r{i}") for i in range(5)))
            assert not ok(await carry(c))
            assert far.connections == REFUSALS_PER_CARRY
            await c.close(deadline=1)

    run(loop, main())


def test_a_recipient_that_was_refused_is_not_asked_for_elsewhere(loop: str) -> None:
    async def main() -> None:
        bad = ScriptedServer({"RCPT": [b"550 5.1.1 unknown\r\n", b"554 relaying denied\r\n"]})
        async with serve(bad), serve(ScriptedServer()) as good:
            c = carrier(relay(bad.port), relay(good.port, name="r2"))
            report = await carry(c, "a@x.test", "b@x.test")
            assert [type(o) for o in report.outcomes] == [Bounced, Deferred]
            assert good.connections == 0
            await c.close(deadline=1)

    run(loop, main())


def test_no_relay_defers_at_our_own_account(loop: str) -> None:
    nowhere = Deferred("no relay of pool default is enabled", Phase.ROUTE, Speaker.SELF)

    async def main() -> None:
        c = carrier(
            relay(1, state=RelayState.DISABLED), relay(1, name="r2", state=RelayState.DRAINING)
        )
        assert not c.ready(DEFAULT_POOL)
        assert c.capacity(DEFAULT_POOL) == 0
        report = await carry(c, "a@x.test", "b@x.test")
        assert report.outcomes == (nowhere, nowhere)
        assert report.record.relay is None
        await c.close(deadline=1)
        assert only(await carry(c)) == Deferred("delivery is closing", Phase.ROUTE, Speaker.SELF)

    run(loop, main())


# --- changes while running ------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["vanish", "drain", "move"])
def test_relay_that_changes_finishes_what_it_carries(loop: str, change: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as old, serve(ScriptedServer()) as new:
            c = carrier(relay(old.port))
            assert ok(await carry(c))
            inside = asyncio.Event()
            go_on = asyncio.Event()

            async def held(_: Extensions, __: Relay) -> Rendered:
                inside.set()
                await go_on.wait()
                return Rendered(MESSAGE, Form.SEVEN_BIT, b"")

            task = asyncio.ensure_future(carry(c, rendering=held))
            await inside.wait()
            after = {
                "vanish": [relay(new.port, name="r2")],
                "drain": [relay(old.port, state=RelayState.DRAINING), relay(new.port, name="r2")],
                "move": [relay(new.port)],
            }[change]
            c.use(after)
            assert ok(await carry(c))
            go_on.set()
            assert ok(await task)
            assert len(old.mail) == 2
            await old.reached.wait()
            assert old.log[-1] == "QUIT"
            assert ok(await carry(c))
            assert (old.connections, new.connections) == (1, 1)
            await c.close(deadline=1)

    run(loop, main())


def test_waiters_go_on_when_relays_change(loop: str) -> None:
    async def main() -> None:
        async with (
            serve(ScriptedServer({"MAIL": Silence()})) as stuck,
            serve(ScriptedServer()) as good,
        ):
            c = carrier(relay(stuck.port, connections=1))
            holder = asyncio.ensure_future(carry(c))
            await stuck.reached.wait()
            waiters = [asyncio.ensure_future(carry(c)) for _ in range(3)]
            await asyncio.sleep(0)
            c.use([relay(stuck.port, connections=1), relay(good.port, name="r2")])
            for waiter in waiters[:2]:
                assert ok(await waiter)
            await waiters[2]
            again = asyncio.ensure_future(carry(c, pinned=b"r1"))
            await asyncio.sleep(0)
            c.use([])
            assert only(await again) == Deferred(
                "the relay it is meant for does not exist", Phase.ROUTE, Speaker.SELF
            )
            holder.cancel()
            await asyncio.wait([holder])
            await c.close(deadline=1)

    run(loop, main())


def test_close_waits_for_what_is_carried_and_then_hangs_up(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer({"DOT": [b"250 ok\r\n", Silence()]})) as far:
            c = carrier(relay(far.port))
            first = asyncio.ensure_future(carry(c))
            await asyncio.sleep(0)
            closing = asyncio.ensure_future(c.close(deadline=5))
            assert ok(await first)
            await closing
            assert far.log[-1] == "QUIT"

            c = carrier(relay(far.port))
            stuck = asyncio.ensure_future(carry(c))
            await far.silent.wait()
            await c.close(deadline=0.05)
            assert isinstance(only(await stuck), InDoubt)

    run(loop, main())


# --- rendering ------------------------------------------------------------------------------------


def test_render_is_told_who_is_there(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            there = relay(far.port)
            c = carrier(there)
            seen: list[tuple[Extensions, Relay]] = []

            async def look(extensions: Extensions, to: Relay) -> Rendered:
                seen.append((extensions, to))
                return Rendered("é\r\n".encode(), Form.EIGHT_BIT, b"")

            assert ok(await carry(c, rendering=look))
            ((extensions, to),) = seen
            assert to is there
            assert extensions.eight_bit
            assert extensions.name == "far.test"
            assert any(line.endswith("BODY=8BITMIME") for line in far.log)
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize(
    "outcome",
    [
        Deferred("key unreadable", Phase.COMPOSE, Speaker.SELF),
        Failed("cannot compose", Phase.COMPOSE),
    ],
)
def test_what_cannot_be_rendered_costs_no_session(loop: str, outcome: Deferred | Failed) -> None:
    async def refuse(_: Extensions, __: Relay) -> Rendered:
        raise CannotRender(outcome)

    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(relay(far.port), relay(far.port, name="r2"))
            report = await carry(c, "a@x.test", "b@x.test", rendering=refuse)
            assert report.outcomes == (outcome, outcome)
            assert ok(await carry(c, pinned=b"r1"))
            assert far.connections == 1
            await c.close(deadline=1)

    run(loop, main())


def test_fault_of_our_own_in_rendering_is_raised_and_costs_no_session(loop: str) -> None:
    async def broken(_: Extensions, __: Relay) -> Rendered:
        raise ZeroDivisionError

    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(relay(far.port))
            with pytest.raises(ZeroDivisionError):
                await carry(c, rendering=broken)
            assert ok(await carry(c))
            assert far.connections == 1
            await c.close(deadline=1)

    run(loop, main())


def test_session_that_dies_while_rendering_is_replaced(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(relay(far.port))
            assert ok(await carry(c))
            calls = 0

            async def slow(_: Extensions, __: Relay) -> Rendered:
                nonlocal calls
                calls += 1
                if calls == 1:
                    far.reached.clear()
                    far.writers[0].transport.abort()
                    await far.reached.wait()
                    for _round in range(5):
                        await asyncio.sleep(0)
                return Rendered(MESSAGE, Form.SEVEN_BIT, b"")

            dots = Dots()
            assert ok(await carry(c, rendering=slow, dots=dots))
            assert (far.connections, calls, dots.count) == (2, 2, 1)
            await c.close(deadline=1)

    run(loop, main())


def test_carrier_is_made_without_a_loop(loop: str) -> None:
    del loop

    assert not carrier().ready(DEFAULT_POOL)
    assert render() is not None
