"""What a stranger's parser reads is what the caller wrote (COMPAT §4)."""

import re
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import getaddresses

import pytest
from hypothesis import given, settings

from everpost.compose import CannotCompose, check, compose, estimate_size, guess_type
from everpost.model.message import Address, Content, Form
from tests.unit.compose.contents import contents, lines_of, parsed, parsed_utf8, written

EXAMPLES = settings(max_examples=40, deadline=None, report_multiple_bugs=False)


def _pairs(message: EmailMessage, name: str) -> list[tuple[str, str]]:
    """(display name, address) by two parsers. The newer one (3.11) keeps the white space between
    encoded words of a phrase, against RFC 2047 §6.2, so names come from the older one."""
    if message[name] is None:
        return []
    pairs = [
        (str(make_header(decode_header(display_name))), address)
        for display_name, address in getaddresses([_raw(message, name)])
        if address  # an empty group has none
    ]
    assert [address for _, address in pairs] == [a.addr_spec for a in message[name].addresses]
    return pairs


def _raw(message: EmailMessage, name: str) -> str:
    raw = next(value for key, value in message.raw_items() if key == name)
    return str(raw).replace("\r\n", "")


def _expected(addresses: tuple[Address, ...]) -> list[tuple[str, str]]:
    return [(a.name, a.address) for a in addresses]


def _headers_are_the_same(content: Content, message: EmailMessage) -> None:
    for name in ("From", "To", "Subject", "Date", "Message-ID", "MIME-Version"):
        assert len(message.get_all(name, [])) == 1, name
    assert message["Bcc"] is None
    assert str(message["Subject"]) == content.subject
    assert message["Date"].datetime.timestamp() == content.date
    assert str(message["Message-ID"]) == f"<{content.message_id}>"
    assert _pairs(message, "From") == _expected((content.sender,))
    assert _pairs(message, "To") == _expected(content.to)
    assert _pairs(message, "Cc") == _expected(content.cc)
    assert _pairs(message, "Reply-To") == _expected(content.reply_to)


def _text(part: EmailMessage) -> str:
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return lines_of(payload.decode())


@given(content=contents)
@EXAMPLES
def test_headers_come_back_the_same(content: Content) -> None:
    message = parsed(written(content))
    _headers_are_the_same(content, message)
    own = [(n, v) for n, v in message.items() if n.startswith("X-")]
    assert [n for n, _ in own] == [n for n, _ in content.headers]


@given(content=contents)
@EXAMPLES
def test_raw_utf8_headers_come_back_the_same(content: Content) -> None:
    _headers_are_the_same(content, parsed_utf8(written(content, Form.UTF8)))


@given(content=contents)
@EXAMPLES
@pytest.mark.parametrize("form", list(Form))
def test_bodies_and_attachments_come_back_the_same(form: Form, content: Content) -> None:
    leaves = [p for p in parsed(written(content, form)).walk() if not p.is_multipart()]
    if content.html is not None:  # inline images follow the html, before the alternatives
        inline = [a for a in content.attachments if a.content_id is not None]
        attached = [a for a in content.attachments if a.content_id is None]
    else:
        inline, attached = [], list(content.attachments)
    texts = [(t, b) for t, b in (("plain", content.text), ("html", content.html)) if b is not None]
    for subtype, body in texts:
        part = leaves.pop(0)
        assert part.get_content_type() == f"text/{subtype}"
        assert part.get_content_charset() == "utf-8"
        assert _text(part) == lines_of(body)
    files = [leaves.pop(0) for _ in inline]
    for kind, body in content.alternatives:
        part = leaves.pop(0)
        assert part.get_content_type() == kind.partition(";")[0]
        if kind.startswith("text/"):
            assert (part.get_content_charset(), part.get_param("method")) == ("utf-8", "REQUEST")
            assert _text(part) == lines_of(body)
        else:
            assert part.get_payload(decode=True) == body.encode()
    if not texts and not content.alternatives and not content.attachments:
        assert _text(leaves.pop(0)) == ""
    files += leaves
    assert len(files) == len(content.attachments)
    for part, attachment in zip(files, [*inline, *attached], strict=True):
        assert part.get_payload(decode=True) == attachment.content
        assert part["Content-Disposition"].params.get("filename", "") == attachment.filename
        disposition = "attachment" if attachment.content_id is None else "inline"
        assert part.get_content_disposition() == disposition
        if attachment.content_id is not None:
            assert part["Content-ID"] == f"<{attachment.content_id}>"


@given(content=contents)
@EXAMPLES
@pytest.mark.parametrize("form", list(Form))
def test_bytes_are_safe_to_send(form: Form, content: Content) -> None:
    data = written(content, form)
    assert data == written(content, form)
    assert data.endswith(b"\r\n")
    assert b"\0" not in data
    lines = data.split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line for line in lines)
    assert max(map(len, lines)) <= 998
    if form is Form.SEVEN_BIT:
        assert data.isascii()
    if form is Form.EIGHT_BIT:
        assert data.partition(b"\r\n\r\n")[0].isascii()
    assert len(data) <= estimate_size(content)
    check(content)


@given(content=contents)
@EXAMPLES
def test_lines_with_encoded_words_keep_to_76_characters(content: Content) -> None:
    header = written(content).partition(b"\r\n\r\n")[0]
    own_words = re.compile(rb"=\?utf-8\?[bq]\?[!-~]*\?=")
    for word in own_words.findall(header):
        assert len(word) <= 75


@given(content=contents)
@EXAMPLES
def test_check_refuses_what_compose_refuses(content: Content) -> None:
    broken = Content(
        sender=content.sender,
        to=content.to,
        subject=content.subject,
        message_id=content.message_id,
        date=content.date,
        boundary="",
        headers=(*content.headers, ("Bcc", "v@x.test")),
    )
    with pytest.raises(CannotCompose):
        check(broken)
    with pytest.raises(CannotCompose):
        compose(broken, Form.SEVEN_BIT)


def test_types_come_from_our_own_table_not_from_the_machine() -> None:
    assert guess_type("report.PDF") == "application/pdf"
    assert guess_type("pdf") == guess_type("a.unheard-of") == "application/octet-stream"
