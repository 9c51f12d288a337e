"""The second wall: what intake should have refused never becomes a header or a recipient."""

import msgspec
import pytest

from everpost.compose import CannotCompose, check, compose, is_reserved
from everpost.model.message import Address, Attachment, Content, Form
from tests.unit.compose.contents import SIMPLE, parsed, written

CONTROLS = [
    "a\r\nBcc: v@x.test", "a\nBcc: v@x", "a\rBcc: v@x", "a\x0bBcc:", "a\x0cBcc:", "a\x1cBcc:",
    "a\x1dBcc:", "a\x1eBcc:", "a\x85Bcc:", "a\u2028Bcc:", "a\u2029Bcc:", "a\n folded", "a\0b",
    "a\x7fb", "half \ud83d",
]  # fmt: skip


def _with(**changes: object) -> Content:
    return msgspec.structs.replace(SIMPLE, **changes)


def _refused(content: Content, field: str) -> None:
    with pytest.raises(CannotCompose) as by_compose:
        compose(content, Form.SEVEN_BIT)
    with pytest.raises(CannotCompose) as by_check:
        check(content)
    assert by_compose.value.field == by_check.value.field == field


@pytest.mark.parametrize("value", CONTROLS)
def test_injected_lines_become_no_field(value: str) -> None:
    _refused(_with(subject=value), "subject")
    _refused(_with(sender=Address("a@b.test", value)), "from")
    _refused(_with(to=(Address("a@b.test", value),)), "to")
    _refused(_with(cc=(Address("a@b.test", value),)), "cc")
    _refused(_with(reply_to=(Address("a@b.test", value),)), "reply_to")
    _refused(_with(headers=(("X-A", value),)), "headers")
    _refused(_with(message_id=value), "message_id")
    good = Attachment("a.txt", "text/plain")
    for changes in ({"filename": value}, {"content_type": value}, {"content_id": value}):
        bad = msgspec.structs.replace(good, **changes)
        _refused(_with(attachments=(bad,)), "attachments")
    _refused(_with(alternatives=((value, "x"),)), "alternatives")


@pytest.mark.parametrize("value", ["=?utf-8?q?a=0d=0aBcc:_v@x?=", "=?utf-8?b?YQ0KQmNjOiB2QHg=?="])
def test_encoded_words_that_hide_a_line_end_are_refused(value: str) -> None:
    _refused(_with(headers=(("X-A", value),)), "headers")


@pytest.mark.parametrize("value", ["=?utf-8?q?a=0d=0aBcc:_v@x?=", "=?utf-8?b?YQ0KQmNjOiB2QHg=?="])
def test_such_words_in_a_subject_stay_letters(value: str) -> None:
    message = parsed(written(_with(subject=value, sender=Address("a@b.test", value))))
    assert message["Subject"] == value
    assert message["From"].addresses[0].display_name == value
    assert message["Bcc"] is None


@pytest.mark.parametrize(
    "name",
    ["X-A: 1\r\nBcc", "X A", "", "X-é", "a" * 2000, "X:", "From", "to", "CC", "Bcc", "Subject",
     "date", "Message-ID", "MIME-Version", "Content-Type", "content-disposition", "Sender",
     "DKIM-Signature", "Received", "Return-Path", "Resent-From", "Resent-Bcc"],
)  # fmt: skip
def test_bad_and_reserved_header_names_are_refused(name: str) -> None:
    _refused(_with(headers=((name, "x"),)), "headers")


def test_reserved_names_are_told_to_intake() -> None:
    assert is_reserved("SUBJECT")
    assert is_reserved("Content-Anything")
    assert not is_reserved("X-Content-Type")
    assert not is_reserved("Reply-To")


def test_second_reply_to_is_refused() -> None:
    one = ("Reply-To", "a@b.test")
    assert b"\r\nReply-To: a@b.test\r\n" in written(_with(headers=(one,)))
    _refused(_with(headers=(one, one)), "headers")
    _refused(_with(headers=(one,), reply_to=(Address("c@d.test"),)), "headers")


@pytest.mark.parametrize(
    "address",
    ["", "a", "@b.test", "a@", "a b@c.test", "a@b c.test", "a@b.test, v@x.test", "<a@b.test>",
     "a@b.test>", 'a"@b.test', "a@b@c.test", "a;b@c.test", "a@é.test", "a@b..-", "(c)a@b.test",
     "=?utf-8?q?a=40evil.test=3e?=@good.test", "a\r\nRCPT@b.test", '"a\r\n"@b.test',
     "a" * 400 + "@b.test", "é@b.test"],
)  # fmt: skip
def test_malformed_address_never_becomes_another_recipient(address: str) -> None:
    with pytest.raises(CannotCompose):
        compose(_with(to=(Address(address),)), Form.SEVEN_BIT)


def test_quoted_local_parts_and_address_literals_pass() -> None:
    given = ('"a b"@c.test', "a@[192.0.2.1]", "a.b+c@d-e.f_g.test")
    message = parsed(written(_with(to=tuple(map(Address, given)))))
    assert [a.addr_spec for a in message["To"].addresses] == list(given)


def test_utf8_address_needs_the_utf8_form() -> None:
    content = _with(to=(Address("用户@example.org"),))
    for form in (Form.SEVEN_BIT, Form.EIGHT_BIT):
        with pytest.raises(CannotCompose):
            compose(content, form)
    assert "To: 用户@example.org\r\n".encode() in written(content, Form.UTF8)
    check(content)


def test_names_that_look_like_addresses_stay_names() -> None:
    name = 'a" <v@x.test>, "b'
    (only,) = parsed(written(_with(to=(Address("a@b.test", name),))))["To"].addresses
    assert (only.display_name, only.addr_spec) == (name, "a@b.test")


def test_structured_header_without_an_ascii_form_is_refused() -> None:
    content = _with(headers=(("List-Unsubscribe", "<https://é.test>"),))
    _refused(content, "headers")
    assert "<https://é.test>".encode() in written(content, Form.UTF8)
    _refused(_with(headers=(("References", "<" + "x" * 1000 + "@y>"),)), "headers")


def test_half_characters_in_a_body_are_refused() -> None:
    for changes in ({"text": "\ud83d"}, {"html": "\ud83d"}, {"alternatives": (("a/b", "\ud83d"),)}):
        with pytest.raises(CannotCompose):
            compose(_with(**changes), Form.SEVEN_BIT)
        with pytest.raises(CannotCompose):
            check(_with(**changes))


def test_attachment_whose_content_is_elsewhere_is_never_sent_empty() -> None:
    content = _with(attachments=(Attachment("a", "a/b", part=b"hash"),))
    with pytest.raises(CannotCompose):
        compose(content, Form.SEVEN_BIT)


@pytest.mark.parametrize("date", [-1, 253_402_300_800])
def test_dates_that_rfc_5322_cannot_write_are_refused(date: int) -> None:
    _refused(_with(date=date), "date")


def test_multipart_alternative_is_refused() -> None:
    _refused(_with(alternatives=(("multipart/mixed", "x"),)), "alternatives")
