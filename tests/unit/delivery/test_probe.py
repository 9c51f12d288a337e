"""A probe of a relay: it goes as far as MAIL and no further, and says what it found."""

import asyncio
import ssl
from typing import Any

import pytest

from everpost.clock import SystemClock
from everpost.delivery import TOWARDS_MX, Timeouts
from everpost.delivery.probe import Probed, probe
from everpost.delivery.session import Outset
from everpost.model.outcome import Deferred, Phase, Speaker
from everpost.model.relay import Relay
from everpost.net.streams import Misses, tls_context
from tests.support.carrying import LOOPS, relay, run
from tests.support.tiny_smtp import EXTENSIONS, Close, ScriptedServer, Silence, serve

pytestmark = pytest.mark.parametrize("loop", LOOPS)
CLOCK = SystemClock()
WELCOME = {"AUTH": b"235 2.7.0 welcome\r\n"}


def _outset(**times: float) -> Outset:
    def tls(verify: bool) -> ssl.SSLContext:
        return tls_context(verify=verify)

    return Outset(CLOCK, "me.test", Timeouts(**times), TOWARDS_MX, tls, Misses(CLOCK.monotonic))


async def _probe(at: Relay, **times: float) -> Probed:
    return await probe(at, "postmaster@sender.test", _outset(**times))


async def _refused(at: Relay, **times: float) -> Deferred:
    refusal = (await _probe(at, **times)).refusal
    assert refusal is not None
    assert refusal.relay_fault
    return refusal


def test_a_sound_relay_sees_one_connection_and_no_recipient(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer(WELCOME, extensions=(*EXTENSIONS, "AUTH PLAIN"))) as far:
            probed = await _probe(relay(far.port, username="me", password="secret"))
            assert probed.refusal is None
            assert probed.took > 0
            verbs = [line.split(" ")[0] for line in far.log]
            assert verbs == ["EHLO", "AUTH", "MAIL", "RSET", "QUIT"]
            assert "MAIL FROM:<postmaster@sender.test> SIZE=1024" in far.log
            assert (far.connections, far.mail) == (1, [])

    run(loop, main())


REFUSALS: dict[str, tuple[dict[str, Any], Phase]] = {
    "greeting": ({"BANNER": b"421 4.3.2 overloaded\r\n"}, Phase.GREET),
    "hang-up": ({"BANNER": Close()}, Phase.GREET),
    "silence": ({"BANNER": Silence()}, Phase.GREET),
    "login": ({"AUTH": b"535 5.7.8 no such user\r\n"}, Phase.LOGIN),
    "mail-later": ({"MAIL": b"451 4.3.0 queue file write error\r\n"}, Phase.MAIL),
    "mail-never": ({"MAIL": b"550 5.1.8 sender unknown\r\n"}, Phase.MAIL),
    "mail-too-large": ({"MAIL": b"552 5.3.4 too large\r\n"}, Phase.MAIL),
    "mail-hang-up": ({"MAIL": Close()}, Phase.MAIL),
    "mail-silence": ({"MAIL": Silence()}, Phase.MAIL),
    "rset-hang-up": ({"RSET": Close()}, Phase.MAIL),
}


@pytest.mark.parametrize("how", REFUSALS)
def test_whatever_it_refuses_is_its_own_fault_and_names_the_phase(loop: str, how: str) -> None:
    async def main() -> None:
        script, phase = REFUSALS[how]
        async with serve(ScriptedServer(WELCOME | script, extensions=("AUTH PLAIN",))) as far:
            at = relay(far.port, username="me", password="secret")
            refusal = await _refused(at, greet=0.3, mail=0.3, quit=0.1)
            assert (refusal.phase, refusal.speaker) == (phase, Speaker.RELAY)

    run(loop, main())


def test_nobody_listens(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            at = relay(far.port)
        assert (await _refused(at)).phase is Phase.CONNECT

    run(loop, main())


def test_an_answer_that_repeats_the_password_goes_on_record_without_it(loop: str) -> None:
    async def main() -> None:
        script = {"MAIL": b"550 5.7.1 not for secret12\r\n"}
        async with serve(ScriptedServer(WELCOME | script, extensions=("AUTH PLAIN",))) as far:
            refusal = await _refused(relay(far.port, username="me", password="secret12"))
            assert refusal.reply is not None
            assert "secret12" not in refusal.reply.text

    run(loop, main())


def test_a_sender_that_is_not_fit_for_the_wire_is_our_fault(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            refusal = (await probe(relay(far.port), "a b>@sender.test", _outset())).refusal
            assert refusal is not None
            assert refusal.speaker is Speaker.SELF
            assert not any(line.startswith("MAIL") for line in far.log)

    run(loop, main())


def test_a_probe_that_is_called_off_hangs_up(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer({"MAIL": Silence()})) as far:
            task = asyncio.ensure_future(_probe(relay(far.port)))
            await far.silent.wait()
            far.reached.clear()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
            await far.reached.wait()  # the far end's side of the connection has ended
            assert far.ended == 1

    run(loop, main())
