"""TLS by policy, and logins: what must be protected never goes in clear."""

import base64
import datetime
from pathlib import Path

import pytest

from everpost.delivery import Timeouts
from everpost.model.outcome import Deferred, Delivered, Phase, Speaker
from everpost.model.relay import TlsPolicy
from everpost.net import conversation
from tests.support.carrying import LOOPS, MESSAGE, carrier, carry, only, relay, run
from tests.support.certificates import Certificates, make
from tests.support.tiny_smtp import (
    EXTENSIONS,
    Close,
    Misfortune,
    ScriptedServer,
    Silence,
    StartTls,
    serve,
)

pytestmark = pytest.mark.parametrize("loop", LOOPS)
OFFERING = (*EXTENSIONS, "STARTTLS")
BRIEF = Timeouts(greet=0.2)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make(tmp_path_factory.mktemp("good"), "relay.test", "localhost", "127.0.0.1")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make(tmp_path_factory.mktemp("other"), "elsewhere.test")


@pytest.mark.parametrize("policy", [TlsPolicy.OPPORTUNISTIC, TlsPolicy.REQUIRE, TlsPolicy.VERIFY])
@pytest.mark.parametrize("implicit", [False, True])
def test_mail_goes_through_tls(
    loop: str, good: Certificates, policy: TlsPolicy, implicit: bool
) -> None:
    async def main() -> None:
        server = ScriptedServer({"STARTTLS": StartTls(good.server)}, extensions=OFFERING)
        server.tls = good.server if implicit else None
        async with serve(server) as far:
            c = carrier(
                relay(far.port, tls=policy, implicit_tls=implicit, host="localhost"),
                ca_file=good.ca_file,
            )
            report = await carry(c)
            assert isinstance(only(report), Delivered)
            assert far.mail == [MESSAGE]
            tls = report.record.tls
            assert tls is not None
            assert tls.version.startswith("TLSv1.")
            assert tls.cipher
            assert tls.verified is (policy is TlsPolicy.VERIFY)
            assert tls.peer is not None
            assert tls.peer.startswith("relay.test" if tls.verified else "sha256:")
            assert "secure" in report.record.timings
            assert far.log.count("EHLO me.test") == (1 if implicit else 2)
            await c.close(deadline=1)
            assert far.log[-1] == "QUIT"

    run(loop, main())


def test_an_address_in_the_certificate_counts(loop: str, good: Certificates) -> None:
    async def main() -> None:
        server = ScriptedServer({"STARTTLS": StartTls(good.server)}, extensions=OFFERING)
        async with serve(server) as far:
            c = carrier(relay(far.port, tls=TlsPolicy.VERIFY), ca_file=good.ca_file)
            assert isinstance(only(await carry(c)), Delivered)
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize(
    "case", [(f, i) for f in ("name", "authority", "expired") for i in (False, True)], ids=str
)
def test_certificate_that_does_not_match_gets_no_mail(
    loop: str,
    good: Certificates,
    other: Certificates,
    tmp_path: Path,
    case: tuple[str, bool],
) -> None:
    fault, implicit = case
    shown = other if fault == "name" else good
    if fault == "expired":
        past = datetime.datetime(2021, 1, 1, tzinfo=datetime.UTC)
        shown = make(tmp_path, "localhost", until=past)
    trusted = other.ca_file if fault == "authority" else shown.ca_file

    async def main() -> None:
        server = ScriptedServer({"STARTTLS": StartTls(shown.server)}, extensions=OFFERING)
        server.tls = shown.server if implicit else None
        async with serve(server) as far:
            c = carrier(
                relay(far.port, tls=TlsPolicy.VERIFY, implicit_tls=implicit, host="localhost"),
                ca_file=trusted,
            )
            outcome = only(await carry(c))
            assert isinstance(outcome, Deferred)
            assert (outcome.phase, outcome.relay_fault) == (Phase.SECURE, True)
            assert "certificate" in outcome.reason
            assert not any(line.startswith("MAIL") for line in far.log)
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize(
    "instead", [b"no TLS here\r\n", Close(), Silence()], ids=["rubbish", "close", "silence"]
)
@pytest.mark.parametrize(
    ("policy", "delivered"), [(TlsPolicy.OPPORTUNISTIC, True), (TlsPolicy.REQUIRE, False)]
)
def test_failed_handshake_goes_in_clear_only_where_policy_allows(
    loop: str, policy: TlsPolicy, delivered: bool, instead: bytes | Misfortune
) -> None:
    """F65."""

    async def main() -> None:
        script = {"STARTTLS": StartTls(None, instead=instead)}
        async with serve(ScriptedServer(script, extensions=OFFERING)) as far:
            c = carrier(relay(far.port, tls=policy), timeouts=BRIEF)
            report = await carry(c)
            outcome = only(report)
            assert report.record.tls is None
            if delivered:
                assert isinstance(outcome, Delivered)
                assert far.connections == 2
            else:
                assert isinstance(outcome, Deferred)
                assert (outcome.phase, outcome.relay_fault) == (Phase.SECURE, True)
                assert far.mail == []
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize("refusal", [b"454 4.7.0 not now\r\n", b"502 what\r\n", None])
def test_opportunistic_goes_on_in_clear_where_tls_is_refused(
    loop: str, refusal: bytes | None
) -> None:
    async def main() -> None:
        script = {"STARTTLS": refusal} if refusal else {}
        extensions = OFFERING if refusal else EXTENSIONS
        async with serve(ScriptedServer(script, extensions=extensions)) as far:
            c = carrier(relay(far.port, tls=TlsPolicy.OPPORTUNISTIC))
            report = await carry(c)
            assert isinstance(only(report), Delivered)
            assert report.record.tls is None
            assert far.connections == 1
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize("policy", [TlsPolicy.OPPORTUNISTIC, TlsPolicy.REQUIRE, TlsPolicy.VERIFY])
def test_text_injected_behind_the_starttls_reply_is_never_believed(
    loop: str, good: Certificates, policy: TlsPolicy
) -> None:
    """S17: an attacker appends an EHLO answer of his own to the 220."""
    injected = StartTls(good.server, reply=b"220 go\r\n250-evil\r\n250 AUTH PLAIN\r\n")

    async def main() -> None:
        server = ScriptedServer({"STARTTLS": injected}, extensions=OFFERING)
        async with serve(server) as far:
            c = carrier(
                relay(far.port, tls=policy, username="jo", password="pw", host="localhost"),
                ca_file=good.ca_file,
                timeouts=BRIEF,
            )
            assert isinstance(only(await carry(c)), Deferred)
            assert far.mail == []
            assert not any(line.startswith("AUTH") for line in far.log)
            await c.close(deadline=1)

    run(loop, main())


def test_banner_in_clear_where_tls_was_to_begin(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(
                relay(far.port, tls=TlsPolicy.OPPORTUNISTIC, implicit_tls=True), timeouts=BRIEF
            )
            outcome = only(await carry(c))
            assert isinstance(outcome, Deferred)
            assert outcome.phase is Phase.SECURE
            assert far.mail == []
            await c.close(deadline=1)

    run(loop, main())


# --- logins ---------------------------------------------------------------------------------------


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("offer", "auth", "script", "expected"),
    [
        ("AUTH PLAIN LOGIN", None, {"AUTH": b"235 ok\r\n"}, ["AUTH PLAIN " + b64("\0jo\0pw")]),
        (
            "AUTH LOGIN",
            None,
            {
                "AUTH": b"334 VXNlcm5hbWU6\r\n",
                b64("jo")[:4].upper(): b"334 UGFzc3dvcmQ6\r\n",
                b64("pw")[:4].upper(): b"235 ok\r\n",
            },
            ["AUTH LOGIN", b64("jo"), b64("pw")],
        ),
        (
            "AUTH=XOAUTH2",
            "xoauth2",
            {"AUTH": b"235 ok\r\n"},
            ["AUTH XOAUTH2 " + b64("user=jo\1auth=Bearer pw\1\1")],
        ),
    ],
)
def test_login_in_the_way_that_is_offered(
    loop: str, offer: str, auth: str | None, script: dict[str, bytes], expected: list[str]
) -> None:
    async def main() -> None:
        async with serve(ScriptedServer(dict(script), extensions=(*EXTENSIONS, offer))) as far:
            c = carrier(relay(far.port, username="jo", password="pw", auth=auth))
            report = await carry(c)
            assert isinstance(only(report), Delivered)
            assert far.log[1 : 1 + len(expected)] == expected
            assert "login" in report.record.timings
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize(
    "answer",
    [
        b"535 5.7.8 wrong\r\n",
        b"534 5.7.9 too weak\r\n",
        b"454 4.7.0 later\r\n",
        b"421 bye\r\n",
        b"334 eyJzdGF0dXMiOiI0MDEifQ==\r\n",
        b"250 odd\r\n",
    ],
)
def test_refused_login_is_the_relays_fault(loop: str, answer: bytes) -> None:
    """F57: all recipients are deferred, none bounces."""

    async def main() -> None:
        script = {"AUTH": answer, "": answer}
        async with serve(ScriptedServer(script, extensions=("AUTH PLAIN",))) as far:
            c = carrier(relay(far.port, username="jo", password="pw"), timeouts=BRIEF)
            report = await carry(c, "a@x.test", "b@x.test")
            for outcome in report.outcomes:
                assert isinstance(outcome, Deferred)
                assert (outcome.phase, outcome.speaker) == (Phase.LOGIN, Speaker.RELAY)
                assert outcome.relay_fault
            assert not any(line.startswith("MAIL") for line in far.log)
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize(
    ("policy", "offer", "password"),
    [
        (TlsPolicy.REQUIRE, "AUTH PLAIN", "pw"),
        (TlsPolicy.NONE, "AUTH CRAM-MD5", "pw"),
        (TlsPolicy.NONE, "HELP", "pw"),
        (TlsPolicy.NONE, "AUTH PLAIN", "p\0w"),
    ],
)
def test_login_that_cannot_be_made_safely_is_not_made(
    loop: str, policy: TlsPolicy, offer: str, password: str
) -> None:
    async def main() -> None:
        async with serve(ScriptedServer(extensions=(offer,))) as far:
            c = carrier(relay(far.port, tls=policy, username="jo", password=password))
            outcome = only(await carry(c))
            assert isinstance(outcome, Deferred)
            phase = Phase.SECURE if policy is TlsPolicy.REQUIRE else Phase.LOGIN
            assert (outcome.phase, outcome.relay_fault) == (phase, True)
            assert far.log == ["EHLO me.test"]
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize(
    ("here", "offers", "sent"), [(True, False, True), (False, False, False), (True, True, False)]
)
def test_password_goes_in_clear_on_this_machine_only(
    loop: str, monkeypatch: pytest.MonkeyPatch, here: bool, offers: bool, sent: bool
) -> None:
    """Nor where STARTTLS is offered and fails."""
    if not here:
        monkeypatch.setattr(conversation, "at_loopback", lambda _: False)

    async def main() -> None:
        extensions = ("AUTH PLAIN", *(["STARTTLS"] if offers else []))
        script = {"STARTTLS": b"454 4.7.0 no\r\n", "AUTH": b"235 ok\r\n"}
        async with serve(ScriptedServer(script, extensions=extensions)) as far:
            there = relay(far.port, tls=TlsPolicy.OPPORTUNISTIC, username="jo", password="pw")
            c = carrier(there)
            outcome = only(await carry(c))
            assert isinstance(outcome, Delivered if sent else Deferred)
            assert any(line.startswith("AUTH") for line in far.log) is sent
            await c.close(deadline=1)

    run(loop, main())


@pytest.mark.parametrize("instead", [Close(), b"421 4.7.0 no TLS\r\n"], ids=["close", "421"])
@pytest.mark.parametrize(
    ("policy", "connections"), [(TlsPolicy.OPPORTUNISTIC, 2), (TlsPolicy.REQUIRE, 1)]
)
def test_relay_that_hangs_up_at_starttls_gets_mail_in_clear_where_policy_allows(
    loop: str, policy: TlsPolicy, connections: int, instead: bytes | Misfortune
) -> None:
    async def main() -> None:
        async with serve(ScriptedServer({"STARTTLS": instead}, extensions=OFFERING)) as far:
            c = carrier(relay(far.port, tls=policy))
            report = await carry(c)
            assert isinstance(only(report), Delivered if connections == 2 else Deferred)
            assert report.record.tls is None
            assert far.connections == connections
            assert far.log.count("STARTTLS") == 1
            await c.close(deadline=1)

    run(loop, main())


def test_name_that_is_unfit_for_the_wire_defers(loop: str) -> None:
    async def main() -> None:
        async with serve(ScriptedServer()) as far:
            c = carrier(relay(far.port, helo="x\r\nMAIL FROM:<a@b>"))
            outcome = only(await carry(c))
            assert isinstance(outcome, Deferred)
            assert outcome.speaker is Speaker.SELF
            assert far.log == []
            await c.close(deadline=1)

    run(loop, main())
