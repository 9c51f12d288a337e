"""The client's core: replies go to the commands that asked for them, and nothing unsafe is sent."""

import base64

import pytest

from everpost.protocol.smtp import client
from everpost.protocol.smtp.client import Client, Login, Unsafe
from everpost.protocol.smtp.extensions import Extensions
from everpost.protocol.smtp.replies import Reply

ALL = Extensions(sizes=True, size=1000, pipelining=True, eight_bit=True, smtputf8=True)


def greeted() -> Client:
    core = Client()
    core.feed(b"220 hello\r\n")
    assert core.take() == [Reply(220, "hello")]
    return core


def test_replies_are_matched_first_in_first_out() -> None:
    core = greeted()
    core.ask(3)
    core.feed(b"250 a\r\n250 b\r\n35")
    assert core.due == 1
    core.feed(b"4 c\r\n")
    assert core.due == 0
    assert [r.code for r in core.take()] == [250, 250, 354]
    assert core.take() == []
    assert core.broken is None
    assert core.clean


def test_reply_that_nobody_asked_for_breaks_the_session() -> None:
    core = greeted()
    core.feed(b"250 unasked\r\n")
    assert core.broken is not None
    assert core.take() == []


def test_banner_that_arrives_twice_breaks_the_session() -> None:
    core = Client()
    core.feed(b"220 hello\r\n220 hello\r\n")
    assert core.broken is not None
    assert len(core.take()) == 1


def test_half_a_reply_that_nobody_asked_for_breaks_the_session_at_once() -> None:
    core = greeted()
    core.ask(1)
    core.feed(b"250 ok\r\n2")
    assert core.take() == [Reply(250, "ok")]
    assert core.broken is not None


def test_malformed_reply_breaks_the_session_and_keeps_what_came_before() -> None:
    core = greeted()
    core.ask(2)
    core.feed(b"250 ok\r\nHTTP/1.1 400 Bad Request\r\n250 ok\r\n")
    assert core.broken is not None
    assert core.take() == [Reply(250, "ok")]
    core.feed(b"250 ok\r\n")
    assert core.take() == []


def test_421_ends_the_session_whatever_was_asked() -> None:
    core = greeted()
    core.ask(3)
    core.feed(b"250 ok\r\n421 bye\r\n250 more\r\n")
    assert core.closing
    assert core.due == 0
    assert [r.code for r in core.take()] == [250, 421]
    assert core.broken is None
    assert not core.clean


@pytest.mark.parametrize("surplus", [b"2", b"250-AUTH PLAIN\r\n250 x\r\n", b"\r\n"])
def test_text_behind_the_starttls_reply_is_noticed(surplus: bytes) -> None:
    core = greeted()
    core.ask(1)
    core.feed(b"220 go\r\n" + surplus)
    core.take()
    assert not core.clean


# --- commands -------------------------------------------------------------------------------------

INJECTIONS = [
    "a@x>\r\nRCPT TO:<v@y",
    "a@x.test> NOTIFY=NEVER <b@y",
    "a@x SIZE=1",
    "x\r\nRCPT",
    "x\rMAIL",
    "x\nMAIL",
    "a\0b@x.test",
    "a b@x.test",
    "a\tb@x.test",
    "a\x85b@x.test",
    "a\u2028b@x.test",
    "\ud800@x.test",
]


@pytest.mark.parametrize("text", INJECTIONS)
def test_no_argument_can_smuggle_a_command(text: str) -> None:
    for build in (client.ehlo, client.helo, client.rcpt):
        with pytest.raises(Unsafe):
            build(text)
    with pytest.raises(Unsafe):
        client.mail(text, ALL, size=1)


def test_empty_and_foreign_arguments_are_refused() -> None:
    for build, text in ((client.rcpt, ""), (client.ehlo, ""), (client.ehlo, "bücher.test")):
        with pytest.raises(Unsafe):
            build(text)


def test_commands_say_what_the_far_end_understands() -> None:
    assert client.ehlo("me.test") == b"EHLO me.test\r\n"
    assert client.helo("[127.0.0.1]") == b"HELO [127.0.0.1]\r\n"
    assert client.rcpt("a@b.test") == b"RCPT TO:<a@b.test>\r\n"
    assert client.mail("", Extensions(), size=7) == b"MAIL FROM:<>\r\n"
    assert client.mail("a@b.test", ALL, size=7) == b"MAIL FROM:<a@b.test> SIZE=7\r\n"
    assert (
        client.mail("ä@b.test", ALL, size=7, eight_bit=True, utf8=True)
        == "MAIL FROM:<ä@b.test> SIZE=7 BODY=8BITMIME SMTPUTF8\r\n".encode()
    )
    assert client.mail("a@b.test", ALL, size=7, eight_bit=True).endswith(b" BODY=8BITMIME\r\n")


def test_what_the_far_end_cannot_take_is_not_announced_but_refused() -> None:
    with pytest.raises(Unsafe, match="8BITMIME"):
        client.mail("a@b.test", Extensions(), size=7, eight_bit=True)
    with pytest.raises(Unsafe, match="SMTPUTF8"):
        client.mail("a@b.test", Extensions(eight_bit=True), size=7, utf8=True)


# --- content --------------------------------------------------------------------------------------

SMUGGLING = [
    b"\n.\n", b"\n.\r", b"\r.\n", b"\r.\r", b"\n.\r\n", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r\r\n",
]  # fmt: skip


@pytest.mark.parametrize("end", SMUGGLING)
def test_no_content_can_end_early_and_smuggle_a_message(end: bytes) -> None:
    evil = b"A: b\r\n\r\nx" + end + b"MAIL FROM:<evil@x.test>\r\n"
    with pytest.raises(Unsafe):
        client.content(evil)
    with pytest.raises(Unsafe):
        client.bdat(evil)


def test_a_true_end_of_data_inside_the_content_is_stuffed() -> None:
    sent = client.content(b".a\r\n.\r\nMAIL FROM:<evil@x.test>\r\n..b\r\n")
    assert sent == b"..a\r\n..\r\nMAIL FROM:<evil@x.test>\r\n...b\r\n.\r\n"


def test_content_always_ends_its_last_line() -> None:
    assert client.content(b"a") == b"a\r\n.\r\n"
    assert client.bdat(b"a") == b"BDAT 3 LAST\r\na\r\n"
    assert client.bdat(b".a\r\n") == b"BDAT 4 LAST\r\n.a\r\n"


# --- login ----------------------------------------------------------------------------------------


def b64(text: str) -> bytes:
    return base64.b64encode(text.encode()) + b"\r\n"


def test_plain_goes_with_the_command() -> None:
    login = Login("PLAIN", "jo", "pässword")
    assert login.command() == b"AUTH PLAIN " + b64("\0jo\0pässword")
    assert login.answer() == b"\r\n"


def test_login_answers_two_challenges() -> None:
    login = Login("LOGIN", "jo", "password")
    assert login.command() == b"AUTH LOGIN\r\n"
    assert login.answer() == b64("jo")
    assert login.answer() == b64("password")
    assert login.answer() == b"\r\n"


def test_long_token_waits_for_a_challenge() -> None:
    token = "t" * 1500
    login = Login("XOAUTH2", "jo", token)
    assert login.command() == b"AUTH XOAUTH2\r\n"
    assert login.answer() == b64(f"user=jo\1auth=Bearer {token}\1\1")
    short = Login("XOAUTH2", "jo", "t")
    assert short.command() == b"AUTH XOAUTH2 " + b64("user=jo\1auth=Bearer t\1\1")
    assert short.answer() == b"\r\n"


def test_login_that_cannot_be_carried_is_refused() -> None:
    for user, secret in (("a\0b", "c"), ("a", "b\0c"), ("a\r\nMAIL", "c"), ("a\1", "c")):
        with pytest.raises(Unsafe):
            Login("PLAIN", user, secret)
    with pytest.raises(Unsafe):
        Login("CRAM-MD5", "a", "b")


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "XOAUTH2"])
def test_login_that_the_far_end_quotes_is_not_repeated(mechanism: str) -> None:
    login = Login(mechanism, "me", "hunter2hunter2")
    sent = (login.command() + login.answer() + login.answer()).decode().split()
    for cut in (99, 20):  # a whole line, or its beginning
        quoted = [word[:cut] for word in sent]
        text = f"502 what is {' '.join(quoted)} (hunter2hunter2)?"
        shown = client.without_login(text, user="me", secret="hunter2hunter2")
        assert "hunter2" not in shown
        assert shown.startswith("502 what is AUTH")
        secret = base64.b64encode(b"\0me\0hunter2hunter2").decode()
        assert secret[:12] not in shown
        assert not any(word in shown for word in quoted if len(word) > len(mechanism) + 5)


def test_mechanism_is_the_wanted_or_our_best() -> None:
    offered = frozenset({"LOGIN", "PLAIN", "XOAUTH2"})
    assert client.mechanism(None, offered) == "PLAIN"
    assert client.mechanism(None, frozenset({"LOGIN"})) == "LOGIN"
    assert client.mechanism(None, frozenset({"XOAUTH2"})) is None
    assert client.mechanism("xoauth2", offered) == "XOAUTH2"
    assert client.mechanism("plain", frozenset({"LOGIN"})) is None
