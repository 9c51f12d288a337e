"""The wire grammar: what is an address, and how content is framed."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everpost.protocol.smtp.grammar import (
    DATA_END,
    dot_stuff,
    frame,
    has_bare_line_ends,
    is_domain,
    is_mailbox,
    parse_forward_path,
    parse_reverse_path,
    unstuff,
    wire_safe,
)

MAILBOXES = [
    "a@example.test",
    "first.last+tag@mail.example.test",
    "!#$%&'*+-/=?^_`{|}~@x.test",
    '"quoted local"@x.test',
    r'"with \" and \\"@x.test',
    '""@x.test',
    "a@1.test",
    "a@localhost",
    "a@[127.0.0.1]",
    "a@[IPv6:::1]",
    "a@xn--bcher-kva.test",
    "用户@例子.测试",
    "l" * 64 + "@x.test",
    "a@" + ".".join(["d" * 62] * 3) + ".te" + "s" * 58,
]

NO_MAILBOXES = [
    "",
    "a",
    "@x.test",
    "a@",
    ".a@x.test",
    "a.@x.test",
    "a..b@x.test",
    "a b@x.test",
    "a@b@x.test",
    "a@x.test.",
    "a@.x.test",
    "a@x..test",
    "a@-x.test",
    "a@x-.test",
    "a@x_y.test",
    "a@x.test\n",
    "a@x.test\r\nRCPT TO:<v@y.test>",
    "a@x.test> NOTIFY=NEVER <b@y.test",
    "a@x.test SIZE=1",
    '"a\r\nb"@x.test',
    '"a"b@x.test',
    '"a@x.test',
    "a\x00@x.test",
    "a\u2028b@x.test",
    "a\x85b@x.test",
    "a\ud800@x.test",
    "a@x.test(comment)",
    "a@[127.0.0.256]",
    "a@[1.2.3.4",
    "a@[IPv6:::1%eth0]",
    "a@[tag:content]",
    "l" * 65 + "@x.test",
    "é" * 33 + "@x.test",
    "a@" + "d" * 64 + ".test",
    "a@" + ".".join(["d" * 63] * 4),
    "l" * 64 + "@" + ".".join(["d" * 63] * 3),
]


@pytest.mark.parametrize("address", MAILBOXES)
def test_sound_mailbox_is_read_from_a_path_unchanged(address: str) -> None:
    assert is_mailbox(address)
    assert parse_reverse_path(f"<{address}>") == (address, {})
    assert parse_forward_path(f"<{address}> SIZE=1") == (address, {"SIZE": "1"})


@pytest.mark.parametrize("address", NO_MAILBOXES)
def test_malformed_mailbox_is_refused_bare_and_in_a_path(address: str) -> None:
    assert not is_mailbox(address)
    if address:
        assert parse_reverse_path(f"<{address}>") is None
    assert parse_forward_path(f"<{address}>") is None


@pytest.mark.parametrize(
    "text",
    [
        "", "<", ">", "a@x.test", " <a@x.test>", "<a@x.test", "<a@x.test> ;", "<a@x.test>SIZE=1",
        "<a@x.test>  =1", "<a@x.test> SIZE=1 SIZE=2", "<a@x.test> size=1 SIZE=2", "<a@x.test> A=",
        "<a@x.test> A=1=2", "<a@x.test> <b@x.test>", "<>x", "<> A=\x07", "< >", "<a@x.test>\tA",
    ],
)  # fmt: skip
def test_malformed_path_is_refused(text: str) -> None:
    assert parse_reverse_path(text) is None


def test_paths_that_are_not_plain_mailboxes() -> None:
    assert parse_reverse_path("<>") == ("", {})
    assert parse_reverse_path("<> BODY=8BITMIME SMTPUTF8 ") == (
        "",
        {"BODY": "8BITMIME", "SMTPUTF8": None},
    )
    assert parse_forward_path("<>") is None
    assert parse_forward_path("<PostMaster>") == ("PostMaster", {})
    assert parse_forward_path("<postmaster> X-Y=z") == ("postmaster", {"X-Y": "z"})
    assert parse_forward_path("<postmaster>x") is None
    assert parse_reverse_path("<postmaster>") is None


def test_source_route_is_dropped_so_that_the_mailbox_checked_is_the_one_used() -> None:
    assert parse_forward_path("<@relay.test,@b.test:a@good.test>") == ("a@good.test", {})
    assert not is_mailbox("@relay.test:a@good.test")


@pytest.mark.parametrize(
    "value",
    [
        "a@x>\r\nRCPT TO:<v@y", "a@x.test> NOTIFY=NEVER <b@y", "a@x SIZE=1", "x\r\nRCPT", "a\nb",
        "a\rb", "a\x00b", "a<b", "a>b", "a b", "a\tb", "a\x7fb", "a\x85b", "a\u2028b", "a\u2029b",
        "a\ud800b",
    ],
)  # fmt: skip
def test_command_injection_is_not_wire_safe(value: str) -> None:
    assert not wire_safe(value)


def test_ordinary_words_are_wire_safe() -> None:
    assert all(wire_safe(word) for word in ("", "a@x.test", "用户@例子.测试", "mail.example.test"))


def test_domains() -> None:
    assert is_domain("mail.example.test")
    assert is_domain("a")
    assert is_domain("bücher.test")
    assert not any(map(is_domain, ("", ".", "a.", ".a", "a b", "[1.2.3.4]", "a\n", "-", "a_b")))
    assert not is_domain(".".join(["é" * 30] * 5))  # 304 octets in 154 characters


words = st.text(alphabet=st.sampled_from('ab.@"\\ <>é[]:1-\r\n'), max_size=30)


@settings(max_examples=300, deadline=None)
@given(words)
def test_whatever_is_a_mailbox_comes_out_of_a_path_as_it_went_in(text: str) -> None:
    if is_mailbox(text):
        assert parse_forward_path(f"<{text}>") == (text, {})
        assert not re.search(r"[\x00-\x1f\x7f]", text)
    elif text.lower() != "postmaster":
        found = parse_forward_path(f"<{text}>")
        assert found is None or is_mailbox(found[0])


lines = st.lists(st.sampled_from([b"", b".", b"..", b".a", b"a.", b"a", b"\xff."]), max_size=8)


@settings(max_examples=300, deadline=None)
@given(lines)
def test_stuffing_and_unstuffing_give_the_content_back(content: list[bytes]) -> None:
    data = b"\r\n".join(content)
    stuffed = dot_stuff(data)
    assert unstuff(stuffed) == data
    assert DATA_END not in b"\r\n" + stuffed
    assert all(not line.startswith(b".") or line[:2] == b".." for line in stuffed.split(b"\r\n"))


@settings(max_examples=300, deadline=None)
@given(lines)
def test_framed_content_ends_at_its_last_octets_only(content: list[bytes]) -> None:
    data = b"\r\n".join(content)
    framed = b"\r\n" + frame(data)  # the CRLF of the answer 354, as it were
    assert framed.find(DATA_END) == len(framed) - len(DATA_END)
    whole = data if data.endswith(b"\r\n") or not data else data + b"\r\n"
    assert unstuff(framed[2:-3]) == whole


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"."]), max_size=12))
def test_every_bare_line_end_is_seen(parts: list[bytes]) -> None:
    data = b"".join(parts)
    assert has_bare_line_ends(data) == bool(re.search(rb"\r(?!\n)|(?<!\r)\n", data))


@pytest.mark.parametrize(
    "make",
    [
        lambda n: "<" + "@a," * n,
        lambda n: "<@" + "a." * n,
        lambda n: "<" + "a." * n + "@",
        lambda n: '<"' + "\\a" * n,
        lambda n: "<a@" + "a-" * n,
        lambda n: "<@a" + ",@a" * n + ":" + "a.b" * n,
        lambda n: "<a@b> " + "A=1 " * n,
    ],
)
def test_hostile_path_takes_linear_time(make: object) -> None:
    assert callable(make)
    text = make(30_000)
    began = time.process_time()
    assert parse_forward_path(text) is None
    # Linear is some 10 ms; quadratic would be minutes.
    assert time.process_time() - began < 2
