"""Contents with wild Unicode for the property tests, and reading back by the standard library."""

import email
import email.policy
import re
from email.message import EmailMessage

from hypothesis import strategies as st

from everpost.compose import assemble, compose
from everpost.model.message import Address, Attachment, Content, Form

__all__ = ["SIMPLE", "contents", "lines_of", "parsed", "parsed_utf8", "written"]

SIMPLE = Content(
    sender=Address("from@example.com", "Sender"),
    to=(Address("to@example.org"),),
    subject="Hello",
    message_id="one@example.com",
    date=1_700_000_000,
    boundary="seed",
    text="Hello\n",
)

_NASTY = st.sampled_from(
    [
        "=?utf-8?q?a=40evil.test?=", "=?utf-8?b?YQ==?=", "=?", "?=", '"', "\\", "<v@x.test>", ", ",
        " ", "  ", ";", "(", ")", "@", "é", "漢字かな", "👩‍👩‍👧‍👦", "\u202egpj.exe", "'", "%41",
        "*0*=",
        "ß" * 40, "x" * 90, "word " * 30, "\u00a0", "\u3000", "=20", "_", "\t", "0" * 1200,
    ]
)  # fmt: skip
_LINE_CHARACTERS = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029")
values = st.lists(_NASTY | st.text(_LINE_CHARACTERS, max_size=20), max_size=6).map("".join)

_BODY = st.sampled_from(
    [
        ".", ".\n", "..\r\n", "\r", "\n", "\r\n", "\n.\n", "\r.\r", "a \n", "a\t\n", "From me\n",
        "--=_", "-- \n", "=3D", "=\n", "\x00", "\x0b\x0c\x1c\x85\u2028", "é", "漢字" * 20, "🎉",
        "l" * 997 + "\n", "l" * 998 + "\n", "l" * 999 + "\n", "é" * 600, "plain words\n" * 20,
    ]
)  # fmt: skip
bodies = st.lists(
    _BODY | st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=8
).map("".join)

_LOCAL = st.from_regex(r"[a-z0-9!#$%&'*+/^_`{|}~-]{1,12}(\.[a-z0-9]{1,8})?", fullmatch=True)
addresses = st.builds(
    Address,
    st.builds("{}@{}.example".format, _LOCAL, st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True)),
    values,
)
attachments = st.builds(
    Attachment,
    filename=values,
    content_type=st.sampled_from(
        ["", "image/png", "text/csv; charset=gbk", "message/rfc822", "multipart/mixed; boundary=x",
         "TEXT/PLAIN", "nonsense", 'application/pdf; name="x.pdf"; a="b c"']
    ),
    content=st.binary(max_size=300),
    content_id=st.none() | st.from_regex(r"[a-zA-Z0-9.@_-]{1,30}", fullmatch=True),
)  # fmt: skip
_lists = st.lists(addresses, max_size=4).map(tuple)

contents = st.builds(
    Content,
    sender=addresses,
    to=_lists,
    subject=values,
    message_id=st.from_regex(r"[a-z0-9]{1,40}@example\.com", fullmatch=True),
    date=st.integers(0, 253_402_300_799),
    boundary=st.text(max_size=10),
    cc=_lists,
    reply_to=_lists,
    text=st.none() | bodies,
    html=st.none() | bodies,
    alternatives=st.lists(
        st.tuples(
            st.sampled_from(["text/calendar; method=REQUEST; charset=x", "application/ld+json"]),
            bodies,
        ),
        max_size=1,
    ).map(tuple),
    attachments=st.lists(attachments, max_size=3).map(tuple),
    headers=st.lists(
        st.tuples(st.from_regex(r"X-[A-Za-z0-9]{1,60}", fullmatch=True), values), max_size=3
    ).map(tuple),
)


def written(content: Content, form: Form = Form.SEVEN_BIT) -> bytes:
    """The unsigned message."""
    return assemble(compose(content, form))


def parsed(data: bytes) -> EmailMessage:
    """Read back by a stranger: the standard library."""
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def parsed_utf8(data: bytes) -> EmailMessage:
    """The same for raw UTF-8 headers, which the library takes from a str only."""
    header = data.partition(b"\r\n\r\n")[0].decode() + "\r\n\r\n"
    message = email.message_from_string(header, policy=email.policy.SMTPUTF8)
    assert isinstance(message, EmailMessage)
    return message


def lines_of(text: str) -> str:
    """A text with one kind of line end and none at its end, where a body may gain one."""
    return re.sub("\r\n|\r|\n", "\n", text).removesuffix("\n")
