"""Values of all fields but addresses: S2, S4 to S6, S9, S24, S30, S32 and S51 of RELIABILITY §5."""

from collections.abc import Iterable, Sequence

from tests.support.hostile.row import Hostile, refused

__all__ = ["VALUES"]

_BREAKS = (
    *(
        f"a{line_end}Bcc: v@x.test"
        for line_end in (
            "\r\n", "\n", "\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029",
            "\r\r\n", "\n\r", "\r\n\r\n",
        )
    ),
    "a\n folded", "a\r\n\tfolded", "\r\na", "a\r\n", "a\x00b", "a\x08b", "a\x1b[31mred", "a\x7fb",
    "=?utf-8?q?a=0d=0aBcc:_v@x?=", "=?utf-8?Q?a=0ABcc:_v@x?=",
    "=?utf-8?b?YQ0KQmNjOiB2QHgudGVzdA==?=", "=?a?q??= =?utf-8?q?=0D?=",
)  # fmt: skip

# S2: what would end the message, or begin another, in a client that does not stuff and normalise
_ENDS = (
    "\n.\n", "\n.\r", "\r.\n", "\r.\r", "\n.\r\n", "\r.\r\n", "\r\n.\n", "\r\n.\r", "\r\n.\r\n",
    "\r\n.\r\r\n", "\r\n..\r\n", "\r\n.x\r\n", "\n\r.\r\n", "\r\n . \r\n",
)  # fmt: skip
_AFTER = "MAIL FROM:<evil@x.test>\r\nRCPT TO:<v@x.test>\r\nDATA\r\nSubject: evil\r\n\r\nevil"
_FLAVOURS = ("", " \u00e9", " " + "\u4f60" * 40)
"""Appended, they make a text leave as 7bit, quoted-printable and base64, or as 8bit."""


def _normal(text: str) -> str:
    """A body as it arrives: one kind of line end."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _smuggled() -> Iterable[Hostile]:
    for end in _ENDS:
        for flavour in _FLAVOURS:
            value = f"x{flavour}{end}{_AFTER}{end}"
            yield Hostile("S2", "body", value, _normal(value))
        value = f"x{end}{_AFTER}"
        yield Hostile("S2", "bytes", value, value)
    yield Hostile("S2", "bytes", "x\r\n\x00.\r\n" + _AFTER, "x\r\n\x00.\r\n" + _AFTER)
    yield Hostile("S2", "body", ".", ".")
    yield Hostile("S2", "body", ".\r\n" * 50, ".\n" * 50)


VALUES: Sequence[Hostile] = (
    *_smuggled(),
    *refused("S2", "body", "x\r\n\x00.\r\n" + _AFTER),
    # S4: a value that ends its header line
    *refused("S4", "subject", *_BREAKS),
    *refused("S4", "header_value", *_BREAKS),
    *refused("S4", "name", *_BREAKS),
    *refused("S4", "quoted_name", *_BREAKS),
    *refused("S4", "metadata", *_BREAKS),
    Hostile("S4", "subject", "=?utf-8?q?caf=C3=A9?=", "=?utf-8?q?caf=C3=A9?="),
    Hostile("S4", "subject", "2 =? 3 or ?= not", "2 =? 3 or ?= not"),
    Hostile("S4", "subject", "a\u200bb \u202e c", "a\u200bb \u202e c"),
    # S5: header names
    *refused(
        "S5", "header_name",
        "X-A: 1\r\nBcc", "X-A\r\n", "X-A\r\n\r\n", "X A", "X\tA", "", " ", "X-\u00e9", "a" * 2000,
        "a" * 77, "X:A", "X-A:", "X-A\n", "X-A\x00", "\x7f", "X-\uff21", "\u2028",
        "From", "FROM", "To", "Cc", "Bcc", "bCC", "Subject", "Date", "Message-ID", "MIME-Version",
        "Content-Type", "content-transfer-encoding", "Content-Disposition", "DKIM-Signature",
        "ARC-Seal", "ARC-Message-Signature", "Received", "Received-SPF", "Return-Path", "Sender",
        "Resent-From", "Resent-To", "Resent-Bcc", "Resent-Message-ID", "Authentication-Results",
        "DomainKey-Signature", "Delivered-To", "Apparently-To", "X-Everpost-Id", "X-Internal-Route",
    ),
    Hostile("S5", "header_name", "X-Fine", "X-Fine"),
    Hostile("S5", "header_name", "a" * 76, "a" * 76),
    Hostile("S5", "header_name", "!#$%&'*+-./;<=>?@[\\]^_`{|}~", "!#$%&'*+-./;<=>?@[\\]^_`{|}~"),
    # S6: injection through other fields
    *refused("S6", "name", 'a" <v@x.test>, "b', "a <v@x.test>", "a, v@x.test", "a\u202eb",
             "a\u2066b", 'a"', "a\\", "a (b)"),
    *refused("S6", "quoted_name", "a\u202eb", "a\u2069b"),
    Hostile("S6", "quoted_name", 'a" <v@x.test>, "b', 'a" <v@x.test>, "b'),
    Hostile("S6", "quoted_name", "a\\", "a\\"),
    Hostile("S6", "quoted_name", "v@x.test", "v@x.test"),
    Hostile("S6", "quoted_name", "=?utf-8?q?a=40evil.test?=", "=?utf-8?q?a=40evil.test?="),
    Hostile("S6", "quoted_name", "g: a, b; (c)", "g: a, b; (c)"),
    Hostile("S6", "name", "J\u00f6rg \u4f60 \U0001f600", "J\u00f6rg \u4f60 \U0001f600"),
    *refused(
        "S6", "filename",
        'a"\r\nX: 1.txt', "a\nb.txt", "a\u202egpj.exe", "a\u2067b", "a\x00.txt", "..", "../..", "/",
        "a/", "a\\", "a\u2028b", "a\x85b", "a" * 256, "=?utf-8?q?a=0d=0aX:_1?=",
    ),
    Hostile("S6", "filename", "../../etc/passwd", "passwd"),
    Hostile("S6", "filename", "/etc/passwd", "passwd"),
    Hostile("S6", "filename", "..\\..\\boot.ini", "boot.ini"),
    Hostile("S6", "filename", "C:\\secret\\plan.txt", "plan.txt"),
    Hostile("S6", "filename", 'a"; filename="b.exe', 'a"; filename="b.exe'),
    Hostile("S6", "filename", "a%0d%0aX.txt", "a%0d%0aX.txt"),
    Hostile("S6", "filename", "a*0*=utf-8''b.exe", "a*0*=utf-8''b.exe"),
    Hostile("S6", "filename", "=?utf-8?q?b.exe?=", "=?utf-8?q?b.exe?="),
    Hostile("S6", "filename", "Bericht \u00fc \u4f60.pdf", "Bericht \u00fc \u4f60.pdf"),
    Hostile("S6", "filename", "a" * 255, "a" * 255),
    Hostile("S6", "filename", "", "attachment"),
    *refused("S6", "content_id", "<a>\r\nX:", "a\r\nX:", "<a@b>", "a b", "a\x00", "\u00e9",
             "a" * 129, "a>", '"'),
    Hostile("S6", "content_id", "logo.1@here", "logo.1@here"),
    Hostile("S6", "content_id", "a" * 128, "a" * 128),
    *refused(
        "S6", "content_type",
        "a/b\r\nX: 1", "a/b\r\nX", "text/plain; charset=utf-8\r\nX", "a/b\n", "text", "/", "a/",
        "/b",
        "a/b/c", "a b/c", "text/plain; charset", "text/plain;charset=\"a b\"", "text/plain;", ";",
        "multipart/mixed; boundary=x", "multipart/x", "MULTIPART/MIXED", "message/partial",
        "message/external-body; access-type=x", "a/" + "b" * 300, "text/\u00fctf", "a/b; c=\x00",
    ),
    Hostile("S6", "content_type", "text/Calendar;method=REQUEST ; name=x.ics",
            "text/calendar; method=REQUEST"),
    Hostile("S6", "content_type", "text/html", "text/html"),
    Hostile("S6", "content_type", "application/x-msdownload", "application/x-msdownload"),
    *refused("S6", "tag", "a\r\nb", "", "a b", "\u00e9", "a" * 257, "a.b", "a\n", "\x00", "a;b"),
    Hostile("S6", "tag", "a" * 256, "a" * 256),
    Hostile("S6", "header_value", "<https://a.test>,<mailto:v@x.test?bcc=w@y.test>",
            "<https://a.test>,<mailto:v@x.test?bcc=w@y.test>"),
    Hostile("S6", "header_value", "gr\u00fcn \u4f60", "gr\u00fcn \u4f60"),
    Hostile("S6", "header_value", "x" * 8192, "x" * 8192),
    *refused("S6", "header_value", "x" * 8193, "\u00e9 " * 5000, "=?utf-8?b?G10wO3B3bg==?="),
    Hostile("S6", "metadata", "<script>alert(1)</script>", "<script>alert(1)</script>"),
    Hostile("S6", "metadata", "' OR 1=1--", "' OR 1=1--"),
    Hostile("S6", "metadata", "\u202e\u4f60", "\u202e\u4f60"),
    # S9: characters that no encoding can carry. As JSON they are no text at all, hence HTTP's 400
    *refused("S9", "body", "a\x00b", "\x00"),
    *(
        row
        for place in ("subject", "header_value", "name", "metadata", "filename", "body", "tag")
        for row in refused("S9", place, "a \ud800 b", "\udfff", "\udc00\ud800", status=400)
    ),
    Hostile("S9", "body", "l" * 1_000_000, "l" * 1_000_000),
    Hostile("S9", "body", "\u00e9" * 300_000, "\u00e9" * 300_000),
    Hostile("S9", "body", "\ufeffa\x01\x08\x0b\x0c\x1b\x7f b", "\ufeffa\x01\x08\x0b\x0c\x1b\x7f b"),
    Hostile("S9", "subject", "s" * 998, "s" * 998),
    *refused("S9", "subject", "s" * 999, "s" * 1_000_000),
    *refused("S9", "header_value", "x" * 65_536),
    # S24: nobody renders what stands in a value
    *(
        Hostile("S24", place, value, value)
        for place in ("subject", "metadata", "body")
        for value in (
            "{{7*7}}", "${7*7}", "<%= 7*7 %>", "{{''.__class__.__mro__}}", "%s%n%x", "#{7}",
        )
    ),
    Hostile("S24", "filename", "{{7*7}}.txt", "{{7*7}}.txt"),
    # S30: what would cost a careless parser the square of its length
    *refused("S30", "subject", "=?utf-8?q?a?= " * 8_000, "=?" * 100_000, "=?a?q?" * 100_000),
    *refused("S30", "header_value", "=?utf-8?q?a?= " * 8_000, "=?" * 100_000 + "?="),
    *refused("S30", "filename", "/" * 100_000, "\\" * 100_000, "." * 100_000),
    *refused("S30", "content_type", "a/b" + "; c=d" * 20_000, "a" * 100_000),
    *refused("S30", "content", "=" * 100_000, "\n" * 100_000 + "="),
    # S32: attachments
    Hostile("S32", "filename", "CON", "_CON"),
    Hostile("S32", "filename", "nul.txt", "_nul.txt"),
    Hostile("S32", "filename", "COM1.tar.gz", "_COM1.tar.gz"),
    Hostile("S32", "filename", "lpt\u00b9", "_lpt\u00b9"),
    Hostile("S32", "filename", "CONTRACT.pdf", "CONTRACT.pdf"),
    Hostile("S32", "filename", "a.txt:b.exe", "a.txt_b.exe"),
    Hostile("S32", "filename", "C:", "C_"),
    Hostile("S32", "filename", "12:30.txt", "12_30.txt"),
    Hostile("S32", "filename", " a.exe ", "a.exe"),
    Hostile("S32", "filename", "a.exe. .", "a.exe"),
    *refused("S32", "filename", "...", ". ."),
    *refused(
        "S32", "content",
        "SGVsbG8", "SGVsbG8==", "SGVsb G8=x", "SGVsbG8=SGVsbG8=", "####", "SGVs\u00e9G8=", "=", "A",
        "SGVsbG8=\x00", "SGVs-_8=", "SGVsbG8%3D", "data:text/plain;base64,SGVsbG8=",
    ),
    Hostile("S32", "content", "SGVsbG8=", "Hello"),
    Hostile("S32", "content", "SGVs\r\nbG8=\r\n", "Hello"),
    Hostile("S32", "content", "SGVs bG8=", "Hello"),
    Hostile("S32", "content", "", ""),
    Hostile("S32", "bytes", "\x00\xff" * 600, "\x00\xff" * 600),
    # S51: idempotency keys
    *refused(
        "S51", "idempotency_key",
        "", "k" * 257, "k" * 300, "k\u00e9y", "\u4f60", "k\x00", "k\n", "k\r\nX: 1", "\x7f",
        "k\x01", "\u2028", "k\ty",
        status=400,
    ),
    Hostile("S51", "idempotency_key", "k" * 256, "k" * 256),
    Hostile("S51", "idempotency_key", "' OR 1=1 --", "' OR 1=1 --"),
    Hostile("S51", "idempotency_key", "../../etc/passwd", "../../etc/passwd"),
    Hostile("S51", "idempotency_key", "%00%0d%0a", "%00%0d%0a"),
)  # fmt: skip
