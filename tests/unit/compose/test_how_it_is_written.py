"""Exact bytes: structure, folding, encodings, forms."""

import hashlib

import msgspec
import pytest

from everpost.compose import Composed, assemble, compose, form_for
from everpost.model.message import Address, Attachment, Content, Form
from tests.unit.compose.contents import SIMPLE, parsed, written


def _with(**changes: object) -> Content:
    return msgspec.structs.replace(SIMPLE, **changes)


def _tree(data: bytes) -> list[str]:
    return [part.get_content_type() for part in parsed(data).walk()]


def test_simple_message_is_exactly_this() -> None:
    assert written(SIMPLE) == (
        b"From: Sender <from@example.com>\r\n"
        b"To: to@example.org\r\n"
        b"Subject: Hello\r\n"
        b"Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n"
        b"Message-ID: <one@example.com>\r\n"
        b"MIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: 7bit\r\n"
        b"\r\n"
        b"Hello\r\n"
    )


def test_bytes_change_only_with_the_composer_version() -> None:
    """A retry must be the same bytes on every machine and Python: bump COMPOSER on a change."""
    content = _with(
        sender=Address("from@example.com", "Jürgen Großmann, Ltd"),
        to=(Address("a@example.org", "名前"), Address("b@example.org", 'x "y"')),
        cc=(Address("c@example.org"),),
        reply_to=(Address("d@example.org", "Long " * 20),),
        subject="Größere Änderungen an Ihrem Vertrag, wie besprochen 🎉 " * 3,
        text="Tschüß\n. \n" + "x" * 1200 + "\n" + "é" * 20,
        html="<p>漢字かな交じり文</p>\n" * 30,
        alternatives=(("text/calendar; method=REQUEST", "BEGIN:VCALENDAR\n"),),
        attachments=(
            Attachment("a.png", "", bytes(range(256)), content_id="logo"),
            Attachment("Angebot für Müller & Söhne " * 4 + ".pdf", "", b"%PDF" * 50),
        ),
        headers=(
            ("X-Entity-Ref-ID", "1"),
            ("X-Long", "word " * 40),
            ("X-O", "ö"),
        ),
    )
    digests = {form: hashlib.sha256(written(content, form)).hexdigest()[:16] for form in Form}
    assert digests == {
        Form.SEVEN_BIT: "d89168096aef0fb3",
        Form.EIGHT_BIT: "456761e618c2def0",
        Form.UTF8: "ed844c8cbc06d101",
    }


def test_parts_are_in_the_order_that_readers_expect() -> None:
    image = Attachment("logo.png", "image/png", b"png", content_id="logo")
    file = Attachment("a.pdf", "", b"pdf")
    calendar = ("text/calendar; method=REQUEST", "BEGIN:VCALENDAR")
    assert _tree(written(_with(html="<p>"))) == [
        "multipart/alternative", "text/plain", "text/html",
    ]  # fmt: skip
    assert _tree(
        written(_with(html="<p>", attachments=(file, image), alternatives=(calendar,)))
    ) == [
        "multipart/mixed", "multipart/alternative", "text/plain", "multipart/related", "text/html",
        "image/png", "text/calendar", "application/pdf",
    ]  # fmt: skip
    assert _tree(written(_with(text=None, html="<p>", attachments=(image,)))) == [
        "multipart/related", "text/html", "image/png",
    ]  # fmt: skip
    assert _tree(written(_with(attachments=(image,)))) == [
        "multipart/mixed", "text/plain", "image/png",
    ]  # fmt: skip
    assert _tree(written(_with(text=None, attachments=(file,)))) == [
        "multipart/mixed", "application/pdf",
    ]  # fmt: skip
    assert _tree(written(_with(text=None, html="<p>"))) == ["text/html"]
    assert _tree(written(_with(text=None))) == ["text/plain"]


def test_bcc_only_message_discloses_nobody() -> None:
    assert b"\r\nTo: undisclosed-recipients:;\r\n" in written(_with(to=()))


def test_smuggled_ends_of_data_stay_inside_the_text() -> None:
    for end in ("\r\n.\r\n", "\n.\n", "\r.\r", "\r.\r\n", "\r.\n", "\n.\r\n"):
        data = written(_with(text=f"a{end}MAIL FROM:<v@x>", html=f"b{end}DATA"))
        for line in data.split(b"\r\n"):
            assert b"\r" not in line
            assert b"\n" not in line


@pytest.mark.parametrize(
    ("text", "seven_bit", "eight_bit"),
    [
        ("plain\n", "7bit", "7bit"),
        ("", "7bit", "7bit"),
        ("x" * 998, "7bit", "7bit"),
        ("x" * 999, "quoted-printable", "quoted-printable"),
        ("trailing \n", "quoted-printable", "quoted-printable"),
        ("nul \0.\n", "quoted-printable", "quoted-printable"),
        ("one é among many plain letters\n", "quoted-printable", "8bit"),
        ("漢字かな交じり文\n" * 10, "base64", "8bit"),
        ("é" * 500, "base64", "base64"),
    ],
)
def test_text_takes_the_lightest_encoding_that_keeps_it(
    text: str, seven_bit: str, eight_bit: str
) -> None:
    content = _with(text=text)
    for form, encoding in (
        (Form.SEVEN_BIT, seven_bit),
        (Form.EIGHT_BIT, eight_bit),
        (Form.UTF8, eight_bit),
    ):
        headers = dict(compose(content, form).headers)
        expected = f"Content-Transfer-Encoding: {encoding}\r\n".encode()
        assert headers[b"Content-Transfer-Encoding"] == expected


def test_multipart_says_that_it_holds_eight_bit_parts() -> None:
    content = _with(html="<p>é</p>", attachments=(Attachment("a", "", b"x"),))
    data = written(content, Form.EIGHT_BIT)
    assert parsed(data)["Content-Transfer-Encoding"] == "8bit"
    assert parsed(written(content))["Content-Transfer-Encoding"] is None


def test_quoted_printable_without_a_line_end_folds_with_crlf() -> None:
    body = compose(_with(text="xxxxxxxx=" * 200), Form.SEVEN_BIT).body
    assert body.count(b"=\r\n") == body.count(b"\r\n") - 1 > 10


def test_caller_who_knows_the_seed_cannot_close_a_part() -> None:
    innocent = written(_with(html="<p>"))
    boundary = parsed(innocent).get_boundary()
    assert boundary is not None
    hostile = written(_with(html=f"<p>\n--{boundary}--\n"))
    assert _tree(hostile) == ["multipart/alternative", "text/plain", "text/html"]
    assert parsed(hostile).get_boundary() != boundary


def test_mail_types_travel_as_plain_bytes() -> None:
    for kind in ("message/rfc822", "Multipart/Mixed; boundary=x", "no type"):
        data = written(_with(attachments=(Attachment("a.eml", kind, b"Subject: x\r\n\r\n"),)))
        assert _tree(data)[-1] == "application/octet-stream"


def test_long_names_of_files_are_continued() -> None:
    name = "Rechnung für äußerst geschätzte Kundinnen und Kunden.pdf"
    data = written(_with(attachments=(Attachment(name, "", b"x"),)))
    assert b" filename*0*=utf-8''Rechnung%20f%C3%BCr" in data
    assert b'filename="plain name.pdf"' in written(
        _with(attachments=(Attachment("plain name.pdf", "", b"x"),))
    )


def test_parameters_of_a_type_are_kept_but_for_ours() -> None:
    kind = 'Text/CSV; charset=gbk; header="a b"; name=x; boundary=y'
    data = written(_with(attachments=(Attachment("a.csv", kind, b"x"),)))
    assert b'Content-Type: text/csv; charset=gbk; header="a b"\r\n' in data


def test_long_lists_and_texts_are_folded() -> None:
    people = tuple(Address(f"person{i}@example.org", f"Person Number {i}") for i in range(500))
    data = written(_with(to=people, subject="word " * 200 + "end", headers=(("X-A", "v " * 900),)))
    assert max(map(len, data.split(b"\r\n"))) <= 78
    message = parsed(data)
    assert len(message["To"].addresses) == 500
    assert message["Subject"] == "word " * 200 + "end"
    assert message["X-A"] == ("v " * 900).strip()


def test_word_too_long_for_a_line_is_encoded() -> None:
    message = parsed(written(_with(subject="x" * 3000, headers=(("X-Json", "{" * 2000),))))
    assert message["Subject"] == "x" * 3000
    assert message["X-Json"] == "{" * 2000


def test_long_field_name_leaves_room_for_an_encoded_word() -> None:
    name = "X-" + "n" * 70
    data = written(_with(headers=((name, "é" * 30),)))
    assert max(map(len, data.split(b"\r\n"))) <= 76
    assert str(parsed(data)[name]).strip() == "é" * 30


def test_empty_values_leave_no_trailing_space() -> None:
    data = written(_with(subject="", headers=(("X-A", " "),)))
    assert b"\r\nSubject:\r\n" in data
    assert b"\r\nX-A:\r\n" in data


def test_signatures_stand_before_the_headers() -> None:
    composed = Composed(((b"A", b"A: 1\r\n"), (b"B", b"B: 2\r\n")), b"body\r\n")
    assert assemble(composed, b"S: 0\r\n") == b"S: 0\r\nA: 1\r\nB: 2\r\n\r\nbody\r\n"


@pytest.mark.parametrize("eight_bit", [False, True])
@pytest.mark.parametrize("smtputf8", [False, True])
@pytest.mark.parametrize("needs_utf8", [False, True])
def test_form_is_the_safest_that_carries_the_message(
    eight_bit: bool, smtputf8: bool, needs_utf8: bool
) -> None:
    def chosen(content: Content) -> Form | None:
        return form_for(content, eight_bit=eight_bit, smtputf8=smtputf8, needs_utf8=needs_utf8)

    utf8 = Form.UTF8 if smtputf8 else None
    assert chosen(_with(cc=(Address("ü@example.org"),))) is utf8
    assert chosen(SIMPLE) is (utf8 if needs_utf8 else Form.SEVEN_BIT)
    eight = Form.EIGHT_BIT if eight_bit else Form.SEVEN_BIT
    assert chosen(_with(html="é")) is (utf8 if needs_utf8 else eight)
