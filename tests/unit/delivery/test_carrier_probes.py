"""The carrier's own part in probes: they have a place among its sessions, count as no message, and
what they find turns circuits and is news."""

import asyncio

import pytest

from everpost.clock import SystemClock
from everpost.model.health import CircuitState, Health
from everpost.model.outcome import Deferred
from everpost.model.relay import RelayState
from tests.support.carrying import LOOPS, carrier, carry, direct, only, relay, run
from tests.support.tiny_smtp import ScriptedServer, Silence, serve

pytestmark = pytest.mark.parametrize("loop", LOOPS)
SENDER = "postmaster@sender.test"


def test_a_refusal_opens_the_circuit_and_is_news_at_once(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer({"MAIL": b"451 4.3.0 no\r\n"})) as far:
            c = carrier(relay(far.port))
            told: list[CircuitState] = []
            c.when_news(lambda: told.extend(health.state for health in c.news()))
            probed = await c.probe(b"r1", SENDER)
            assert probed is not None
            assert probed.refusal is not None
            assert told == [CircuitState.OPEN]
            (standing,) = c.standing()
            assert (standing.tried, standing.faults, standing.worked_at) == (0, 0, None)

    run(loop, main())


def test_a_sound_relay_is_no_news(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(relay(far.port))
            c.when_news(lambda: pytest.fail("news"))
            probed = await c.probe(b"r1", SENDER)
            assert probed is not None
            assert probed.refusal is None
            await carry(c)
            (standing,) = c.standing()
            assert standing.worked_at is not None

    run(loop, main())


def test_what_others_found_out_before_a_relay_was_known_here_counts(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            now = SystemClock().now()
            dead = Health(
                relay=b"r1",
                state=CircuitState.OPEN,
                why="dead",
                since=now - 4_000,
                until=now + 60_000,
            )
            c = carrier()
            c.learn([dead])
            c.use([relay(far.port)])
            c.learn([dead])
            assert isinstance(only(await carry(c)), Deferred)
            assert far.connections == 0
            assert not c.news()  # it is the others' word, not ours

    run(loop, main())


def test_a_relay_with_one_connection_is_not_probed_while_mail_has_it(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer({"MAIL": [Silence(), b"250 2.1.0 ok\r\n"]})) as far:
            c = carrier(relay(far.port, connections=1))
            mail = asyncio.ensure_future(carry(c))
            await far.silent.wait()
            assert await c.probe(b"r1", SENDER) is None
            assert far.connections == 1
            mail.cancel()
            await asyncio.gather(mail, return_exceptions=True)

    run(loop, main())


def test_mail_waits_for_the_one_connection_while_a_probe_has_it(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer({"MAIL": [Silence(), b"250 2.1.0 ok\r\n"]})) as far:
            c = carrier(relay(far.port, connections=1))
            probing = asyncio.ensure_future(c.probe(b"r1", SENDER))
            await far.silent.wait()
            mail = asyncio.ensure_future(carry(c))
            for _ in range(20):
                await asyncio.sleep(0)
            assert (far.connections, mail.done()) == (1, False)
            probing.cancel()
            await mail
            assert far.connections == 2
            assert len(far.mail) == 1

    run(loop, main())


def test_nothing_is_probed_that_is_not_there_or_shuts_down(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(relay(far.port, state=RelayState.DISABLED), direct(far.port))
            assert await c.probe(b"r1", SENDER) is None
            assert await c.probe(b"gone", SENDER) is None
            c.use([relay(far.port)])
            await c.close(deadline=0)
            assert await c.probe(b"r1", SENDER) is None
            assert far.connections == 0

    run(loop, main())
