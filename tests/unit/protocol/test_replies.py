"""The reply parser: hostile answers are bounded, shown harmlessly, and read the same however the
network cuts them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everpost.protocol.smtp.replies import (
    MAX_LINE,
    MAX_LINES,
    MAX_REPLY,
    Reply,
    ReplyParser,
    printable,
)


def read(*pieces: bytes) -> tuple[list[Reply], str | None]:
    parser = ReplyParser()
    replies = [reply for piece in pieces for reply in parser.feed(piece)]
    return replies, parser.broken


@pytest.mark.parametrize(
    ("raw", "reply"),
    [
        (b"250 ok\r\n", Reply(250, "ok")),
        (b"250\r\n", Reply(250, "")),
        (b"250 \r\n", Reply(250, "")),
        (b"220-a\r\n220-b\r\n220 c\r\n", Reply(220, "a\nb\nc")),
        (b"220-a\r\n220\r\n", Reply(220, "a\n")),
        (b"550 5.1.1 unknown\r\n", Reply(550, "unknown", "5.1.1")),
        (b"550 5.1.1\r\n", Reply(550, "", "5.1.1")),
        (b"550-5.7.26 a\r\n550-5.7.26 b\r\n550 5.7.26 c\r\n", Reply(550, "a\nb\nc", "5.7.26")),
        (b"550-5.7.1 a\r\n550 see 5.7.1\r\n", Reply(550, "a\nsee 5.7.1", "5.7.1")),
        (b"250 2.0.0.1 odd\r\n", Reply(250, "2.0.0.1 odd")),
        (b"250 3.0.0 odd\r\n", Reply(250, "3.0.0 odd")),
        (b"571 old\r\n", Reply(571, "old")),
        ("550 postfach existiert nicht: ä\r\n".encode(), Reply(550, "postfach existiert nicht: ä")),
    ],
)
def test_well_formed_replies(raw: bytes, reply: Reply) -> None:
    assert read(raw) == ([reply], None)
    assert str(reply).startswith(str(reply.code))


@pytest.mark.parametrize(
    "raw",
    [
        b"hello\r\n",
        b"\r\n",
        b"25 ok\r\n",
        b"150 no such class\r\n",
        b"650 no such class\r\n",
        b"250ok\r\n",
        b"250\tok\r\n",
        b"250_ok\r\n",
        b" 250 ok\r\n",
        b"\xb2\xb5\xb0 ok\r\n",
        b"250-a\r\n251 b\r\n",
        b"250-a\r\nb\r\n",
        b"250 ok\n",
        b"250 ok\n250 ok\r\n",
        b"250-a\n250 ok\r\n",
    ],
)
def test_malformed_replies_break_the_parser(raw: bytes) -> None:
    replies, broken = read(raw, b"250 ok\r\n")
    assert replies == []
    assert broken is not None


def test_what_came_before_the_fault_still_counts() -> None:
    assert read(b"250 ok\r\nrubbish\r\n250 ok\r\n")[0] == [Reply(250, "ok")]


def test_reply_of_one_megabyte_breaks_the_connection() -> None:
    assert read(b"250 " + b"x" * 2**20)[1] is not None
    assert read(b"250 " + b"x" * 2**20 + b"\r\n") == ([], read(b"250 " + b"x" * 2**20)[1])
    many = b"".join(b"250-" + b"x" * 1000 + b"\r\n" for _ in range(1050))
    assert read(many)[1] is not None
    parser = ReplyParser()
    for _ in range(1050):
        parser.feed(b"250-" + b"x" * 1000 + b"\r\n")
    assert parser.broken is not None
    assert parser.empty


def test_limits_are_exact() -> None:
    text = b"x" * (MAX_LINE - 4)
    assert read(b"250 " + text + b"\r\n")[1] is None
    assert read(b"250 " + text, b"\r", b"\n")[1] is None
    assert read(b"250 x" + text + b"\r\n")[1] is not None
    assert read(b"250 x" + text)[1] is None  # the CR may be on its way in place of an octet
    assert read(b"250-a\r\n" * (MAX_LINES - 1) + b"250 a\r\n")[1] is None
    assert read(b"250-a\r\n" * MAX_LINES + b"250 a\r\n")[1] is not None
    full = MAX_REPLY // MAX_LINE
    assert read(b"250-%b\r\n" % text * (full - 1) + b"250 " + text + b"\r\n")[1] is None
    assert read(b"250-%b\r\n" % text * full + b"250 a\r\n")[1] is not None


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"\x1b]0;pwn\x07", r"\x1b]0;pwn\x07"),
        (b"a\rb", r"a\x0db"),
        (b"a\x00b\x7f", r"a\x00b\x7f"),
        (b"a\tb", "a b"),
        (b"\xff\xfe", r"\xff\xfe"),
        ("a\u202eb\u2028c\x85d".encode(), r"a\u202eb\u2028c\x85d"),
        ("\U000e0001".encode(), r"\U000e0001"),
        ("ünïcode".encode(), "ünïcode"),
    ],
)
def test_a_reply_cannot_forge_a_line_or_drive_a_terminal(raw: bytes, shown: str) -> None:
    assert printable(raw) == shown
    assert read(b"550 5.7.1 " + raw + b"\r\n") == ([Reply(550, shown, "5.7.1")], None)


def test_cached_lines_do_not_mix_up_within_a_reply_of_several_lines() -> None:
    parser = ReplyParser()
    assert parser.feed(b"250 ok\r\n") == [Reply(250, "ok")]
    assert parser.feed(b"250-a\r\n250 ok\r\n") == [Reply(250, "a\nok")]
    for i in range(300):
        assert parser.feed(b"250 %d\r\n" % i) == [Reply(250, str(i))]
    assert parser.feed(b"250-a\r\n") == []
    assert not parser.empty
    assert parser.feed(b"251 ok\r\n") == []
    assert parser.broken is not None


REPLY_LIKE = st.lists(
    st.sampled_from(
        [
            *(b"250 ok\r\n", b"250-a\r\n", b"250 2.1.0 ok\r\n", b"550 5.1.1 \x1b\r\n"),
            *(b"\r", b"\n", b"\r\n", b"25", b"0", b" ", b"-", b"x", b"250", b"421 a\r\n", b"\xff"),
        ]
    ),
    max_size=12,
).map(b"".join)


@settings(max_examples=150)
@given(REPLY_LIKE)
def test_cutting_the_bytes_anywhere_changes_nothing(raw: bytes) -> None:
    whole = read(raw)
    assert whole == read(*(raw[i : i + 1] for i in range(len(raw))))
    for at in range(len(raw)):
        assert whole == read(raw[:at], raw[at:])


@settings(max_examples=150)
@given(st.binary(max_size=300))
def test_whatever_comes_is_shown_printable(raw: bytes) -> None:
    for reply in read(b"550 " + raw + b"\r\n", raw)[0]:
        assert all(c.isprintable() or c == "\n" for c in reply.text)
        assert 200 <= reply.code <= 599
