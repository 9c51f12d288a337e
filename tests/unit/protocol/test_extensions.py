"""What a far end offers, however oddly it says so."""

import pytest

from everpost.protocol.smtp.extensions import Extensions, parse_ehlo
from everpost.protocol.smtp.replies import Reply


def test_everything_that_we_use() -> None:
    offered = parse_ehlo(
        Reply(
            250,
            "mx.test greets you\nPIPELINING\nsize 35882577\n8BITMIME\nSMTPUTF8\nSTARTTLS\n"
            "ENHANCEDSTATUSCODES\nCHUNKING\nAUTH PLAIN login\nAUTH=LOGIN XOAUTH2\nVRFY\n\nX-ODD 1",
        )
    )
    assert offered == Extensions(
        size=35882577,
        sizes=True,
        pipelining=True,
        eight_bit=True,
        smtputf8=True,
        starttls=True,
        enhanced=True,
        chunking=True,
        auth=frozenset({"PLAIN", "LOGIN", "XOAUTH2"}),
        name="mx.test",
    )


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("SIZE", None),
        ("SIZE 0", None),
        ("SIZE 1000", 1000),
        ("SIZE many", None),
        ("SIZE -5", None),
        ("SIZE ٣", None),
        ("SIZE " + "9" * 20, int("9" * 20)),
        ("SIZE " + "9" * 21, None),
    ],
)
def test_size_that_declares_no_limit_is_no_limit(line: str, size: int | None) -> None:
    offered = parse_ehlo(Reply(250, f"mx.test\n{line}"))
    assert offered.size == size
    assert offered.sizes


def test_nothing_offered() -> None:
    assert parse_ehlo(Reply(250, "mx.test")) == Extensions(name="mx.test")


def test_keywords_match_whole_words_only() -> None:
    assert parse_ehlo(Reply(250, "mx.test\nXSTARTTLS\nPIPELININGS\n STARTTLS")).starttls
    assert not parse_ehlo(Reply(250, "mx.test\nXSTARTTLS\nPIPELININGS")).pipelining
