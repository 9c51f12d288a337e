"""DNS against a real server (knot), and against servers that fail in ways knot will not."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, cast

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest

from everpost.net.resolver import Absent, Answer, Found, Resolver, Unresolved
from tests.support.knot import Knot

LONG = "v=DKIM1; k=rsa; p=" + "A" * 390
ZONE = f"""
@ MX 10 mail
@ MX 20 backup
ep1._domainkey TXT "{LONG[:255]}" "{LONG[255:]}"
several TXT "one"
several TXT "two"
bytes TXT "\\255\\254"
huge TXT {" ".join(f'"{"x" * 250}"' for _ in range(20))}
alias 60 CNAME several
dangling CNAME nothing
nothing-here A 127.0.0.1
never-cached 0 TXT "x"
_25._tcp.mail TLSA 3 1 1 {"ab" * 32}
"""
NEWER = ZONE.replace('"one"', '"three"')


class Time:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> int:
        return int(self.seconds * 1000)

    def steady(self) -> int:
        return int(self.seconds * 1000)

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture(scope="module")
def knot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Knot]:
    zones = {"good.test": ZONE, "broken.test": None}
    with Knot(tmp_path_factory.mktemp("knot"), zones) as server:
        yield server


def _ask(*questions: Callable[[], Awaitable[Answer]]) -> list[Answer]:
    async def ask() -> list[Answer]:
        return [await question() for question in questions]

    return asyncio.run(ask())


def _txt(resolver: Resolver, *names: str) -> list[Answer]:
    return _ask(*(partial(resolver.txt, name) for name in names))


def _resolver(knot: Knot, time: Time | None = None) -> Resolver:
    return Resolver(["127.0.0.1"], knot.port, clock=time or Time())


def test_long_dkim_record_comes_joined(knot: Knot) -> None:
    (answer,) = _txt(_resolver(knot), "ep1._domainkey.good.test")
    assert answer == Found((LONG,), 600)


def test_name_in_capitals_with_a_dot_is_the_same_name(knot: Knot) -> None:
    (answer,) = _txt(_resolver(knot), "EP1._domainkey.Good.Test.")
    assert isinstance(answer, Found)


def test_several_records_are_all_there_in_one_order(knot: Knot) -> None:
    (answer,) = _txt(_resolver(knot), "several.good.test")
    assert answer == Found(("one", "two"), 600)


def test_alias_is_followed_and_its_shorter_life_counts(knot: Knot) -> None:
    (answer,) = _txt(_resolver(knot), "alias.good.test")
    assert answer == Found(("one", "two"), 60)


def test_text_that_is_not_utf8_does_no_harm(knot: Knot) -> None:
    (answer,) = _txt(_resolver(knot), "bytes.good.test")
    assert answer == Found(("\ufffd\ufffd",), 600)


def test_answer_too_large_for_a_datagram_is_fetched_over_tcp(knot: Knot) -> None:
    (answer,) = _txt(_resolver(knot), "huge.good.test")
    assert answer == Found(("x" * 5000,), 600)


def test_other_types_come_in_presentation_form(knot: Knot) -> None:
    resolver = _resolver(knot)
    (answer,) = _ask(lambda: resolver.lookup("good.test", "mx"))
    assert answer == Found(("10 mail.good.test.", "20 backup.good.test."), 600)


def test_missing_name_and_missing_record_are_told_apart(knot: Knot) -> None:
    answers = _txt(
        _resolver(knot), "none.good.test", "nothing-here.good.test", "dangling.good.test"
    )
    assert answers == [Absent("nxdomain", 120), Absent("nodata", 120), Absent("nxdomain", 120)]


def test_name_that_dns_cannot_hold_does_not_exist(knot: Knot) -> None:
    answers = _txt(_resolver(knot), "a" * 64 + ".good.test", "a..good.test", "a." * 130 + "test")
    assert answers == [Absent("nxdomain")] * 3


def test_outage_is_not_taken_for_a_missing_name(knot: Knot) -> None:
    """SERVFAIL for a zone that cannot be loaded, REFUSED for one that is not served (F62)."""
    answers = _txt(_resolver(knot), "x.broken.test", "x.elsewhere.test")
    assert [type(a) for a in answers] == [Unresolved, Unresolved]
    assert "SERVFAIL" in str(answers[0])
    assert "REFUSED" in str(answers[1])


def test_unknown_type_is_our_own_fault_and_says_so(knot: Knot) -> None:
    resolver = _resolver(knot)
    with pytest.raises(dns.exception.DNSException):
        _ask(lambda: resolver.lookup("good.test", "NO-SUCH-TYPE"))


def test_answers_are_kept_for_their_ttl_and_no_longer(knot: Knot) -> None:
    time = Time()
    resolver = _resolver(knot, time)
    assert _txt(resolver, "several.good.test") == [Found(("one", "two"), 600)]
    try:
        knot.change("good.test", NEWER)
        time.seconds += 599
        assert _txt(resolver, "several.good.test") == [Found(("one", "two"), 600)]
        (anew,) = _ask(lambda: resolver.txt("several.good.test", fresh=True))
        assert anew == Found(("three", "two"), 600)
        assert _txt(resolver, "several.good.test") == [anew]
        knot.change("good.test", ZONE)
        time.seconds += 601
        assert _txt(resolver, "several.good.test") == [Found(("one", "two"), 600)]
    finally:
        knot.change("good.test", ZONE)


def test_keys_of_a_mail_host_come_in_presentation_form(knot: Knot) -> None:
    resolver = _resolver(knot)
    (answer,) = _ask(lambda: resolver.lookup("_25._tcp.mail.good.test", "TLSA"))
    assert answer == Found((f"3 1 1 {'ab' * 32}",), 600)


# --- servers that misbehave -------------------------------------------------------------------

Reply = Callable[[dns.message.Message], bytes | None]


class Server(asyncio.DatagramProtocol):
    """Answers each question with what `reply` makes of it; None is silence."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.asked = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.asked += 1
        wire = self.reply(dns.message.from_wire(data))
        if wire is not None:
            self.transport.sendto(wire, addr)


def _with(
    reply: Reply,
    work: Callable[[Resolver], Awaitable[None]],
    *,
    timeout: float = 5.0,
    clock: Time | None = None,
) -> int:
    """Let `work` ask such a server; how many datagrams it took."""

    async def run() -> int:
        loop = asyncio.get_running_loop()
        transport, server = await loop.create_datagram_endpoint(
            lambda: Server(reply), local_addr=("127.0.0.1", 0)
        )
        try:
            port = transport.get_extra_info("sockname")[1]
            await work(Resolver(["127.0.0.1"], port, timeout, clock=clock or Time()))
            return server.asked
        finally:
            transport.close()

    return asyncio.run(run())


def _against(reply: Reply, *names: str, timeout: float = 5.0) -> tuple[list[Answer], int]:
    """Answers to TXT questions, and how many datagrams it took."""
    answers: list[Answer] = []

    async def work(resolver: Resolver) -> None:
        for name in names:
            answers.append(await resolver.txt(name))

    asked = _with(reply, work, timeout=timeout)
    return answers, asked


def _answer(question: dns.message.Message, *, ttl: int = 60, flags: int = 0) -> bytes:
    reply = dns.message.make_response(question)
    reply.answer.append(dns.rrset.from_text(question.question[0].name, ttl, "IN", "TXT", '"x"'))
    reply.flags |= flags
    return reply.to_wire()


def test_validating_resolver_is_asked_for_its_verdict_and_heard() -> None:
    asked: list[int] = []

    def reply(question: dns.message.Message) -> bytes:
        asked.append(question.flags)
        return _answer(question, flags=dns.flags.AD)

    answers, _ = _against(reply, "signed.test")
    assert answers == [Found(("x",), 60, authenticated=True)]
    assert asked[0] & dns.flags.AD
    assert asked[0] & dns.flags.RD


def test_authenticated_denial_is_heard_too() -> None:
    def reply(question: dns.message.Message) -> bytes:
        answer = dns.message.make_response(question)
        answer.set_rcode(dns.rcode.NXDOMAIN)
        answer.flags |= dns.flags.AD
        return answer.to_wire()

    answers, _ = _against(reply, "none.test")
    assert isinstance(answers[0], Absent)
    assert answers[0].authenticated


def test_silence_ends_at_the_deadline() -> None:
    answers, asked = _against(lambda _: None, "silent.test", timeout=0.2)
    assert answers == [Unresolved("no answer within 0.2 s")]
    assert asked >= 1


def _servfail(question: dns.message.Message) -> bytes:
    failure = dns.message.make_response(question)
    failure.set_rcode(dns.rcode.SERVFAIL)
    return failure.to_wire()


def _in_turn(*replies: Reply) -> Reply:
    each = iter(replies)

    def reply(question: dns.message.Message) -> bytes | None:
        return next(each)(question)

    return reply


def test_dead_name_server_is_asked_for_every_message_or_never_again() -> None:
    """A failure is kept for seconds: long enough for a hundred waiting messages, no longer."""
    time = Time()
    reply = _in_turn(_servfail, _answer)

    async def work(resolver: Resolver) -> None:
        first = await resolver.txt("flaky.test")
        assert isinstance(first, Unresolved)
        assert first.answered
        assert await resolver.txt("flaky.test") is first
        time.seconds += 6
        assert await resolver.txt("flaky.test") == Found(("x",), 60)

    assert _with(reply, work, clock=time) == 2


def test_whoever_does_not_trust_a_kept_failure_asks_anew() -> None:
    reply = _in_turn(_servfail, _answer)

    async def work(resolver: Resolver) -> None:
        assert isinstance(await resolver.txt("flaky.test"), Unresolved)
        assert isinstance(await resolver.txt("flaky.test", fresh=True), Found)

    assert _with(reply, work) == 2


def test_hundred_messages_ask_the_same_question_a_hundred_times() -> None:
    async def work(resolver: Resolver) -> None:
        answers = await asyncio.gather(*(resolver.txt("busy.test") for _ in range(100)))
        assert set(answers) == {Found(("x",), 60)}

    assert _with(_answer, work) == 1


def test_who_asked_first_is_cancelled_and_takes_the_others_answer_along() -> None:
    async def work(resolver: Resolver) -> None:
        first = asyncio.ensure_future(resolver.txt("busy.test"))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(resolver.txt("busy.test"))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == Found(("x",), 60)
        with pytest.raises(asyncio.CancelledError):
            await first

    assert _with(_answer, work) == 1


def test_thousand_domains_are_asked_for_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    under_way, most = 0, 0
    real = Resolver._ask

    async def counted(self: Resolver, name: str, rdtype: str) -> Answer:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        answer = await real(self, name, rdtype)
        under_way -= 1
        return answer

    monkeypatch.setattr("everpost.net.resolver._AT_ONCE", 3)
    monkeypatch.setattr(Resolver, "_ask", counted)

    async def work(resolver: Resolver) -> None:
        await asyncio.gather(*(resolver.txt(f"n{n}.test") for n in range(12)))

    assert _with(_answer, work) == 12
    assert most == 3


def test_nobody_at_home_is_told_apart_from_a_server_that_cannot_tell() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    (answer,) = _txt(Resolver(["127.0.0.1"], port, 0.5, clock=Time()), "x.test")
    assert isinstance(answer, Unresolved)
    assert not answer.answered


def test_week_long_ttl_is_not_believed_for_a_week() -> None:
    answers, _ = _against(lambda q: _answer(q, ttl=604_800), "stale.test")
    assert answers == [Found(("x",), 3600)]


def test_ttl_of_zero_floods_the_name_servers() -> None:
    """A thousand messages of one destination ask once a second, not a thousand times."""
    time = Time()

    async def work(resolver: Resolver) -> None:
        for _ in range(3):
            await resolver.txt("a.test")
        time.seconds += 2
        await resolver.txt("a.test")

    assert _with(lambda q: _answer(q, ttl=0), work, clock=time) == 2


def test_name_with_thousands_of_records_takes_memory_and_time() -> None:
    def reply(question: dns.message.Message) -> bytes:
        answer = dns.message.make_response(question)
        texts = [f'"{n}"' for n in range(200)]
        name = question.question[0].name
        answer.answer.append(dns.rrset.from_text_list(name, 60, "IN", "TXT", texts))
        return answer.to_wire(max_size=65_535)

    (found,), _ = _against(reply, "many.test")
    assert found == Unresolved("200 records, more than we take", answered=True)


def test_silence_about_one_name_is_taken_for_an_outage_of_all_dns() -> None:
    """Resolvers give up on a destination's dead name servers later than we on them."""
    answers: list[Answer] = []

    async def work(resolver: Resolver) -> None:
        silent = asyncio.ensure_future(resolver.txt("silent.test"))
        await asyncio.sleep(0)
        assert isinstance(await resolver.txt("good.test"), Found)
        answers.append(await silent)

    def reply(question: dns.message.Message) -> bytes | None:
        return None if "silent" in str(question.question[0].name) else _answer(question)

    _with(reply, work, timeout=0.3)
    (found,) = answers
    assert isinstance(found, Unresolved)
    assert found.answered


def test_garbage_is_no_answer() -> None:
    answers, _ = _against(lambda _: b"\0" * 40, "garbage.test", timeout=0.2)
    assert isinstance(answers[0], Unresolved)


def test_chain_of_aliases_without_end_is_given_up() -> None:
    def reply(question: dns.message.Message) -> bytes:
        answer = dns.message.make_response(question)
        for a, b in (("loop.test.", "pool.test."), ("pool.test.", "loop.test.")):
            answer.answer.append(dns.rrset.from_text(a, 60, "IN", "CNAME", b))
        return answer.to_wire()

    answers, _ = _against(reply, "loop.test")
    assert isinstance(answers[0], Unresolved)


def test_strangers_names_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everpost.net.resolver._CACHED", 3)
    names = [f"n{n}.test" for n in range(5)]
    _, asked = _against(_answer, *names, "n4.test", "n3.test", "n2.test", "n0.test")
    assert asked == 6


def test_machine_without_any_name_server_knows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> None:
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns.resolver.BaseResolver, "read_resolv_conf", none)
    (answer,) = _txt(Resolver(clock=Time()), "good.test")
    assert isinstance(answer, Unresolved)


def test_library_is_not_loaded_before_the_first_question() -> None:
    program = "import sys, everpost.net.resolver as r; r.Resolver(); print('dns' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
