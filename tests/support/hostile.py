"""Hostile inputs and what must come of them: one table for every door and room.

Rows carry the number of RELIABILITY §5.1 that they come from. A test of a room takes the places it
knows (`rows("mailbox")`); a door sends the same value through its own surface and expects the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["ROWS", "Hostile", "rows"]


@dataclass(frozen=True, slots=True)
class Hostile:
    """One input. `place` is where it is put: mailbox, name (a display name, unquoted), subject,
    header_name, header_value, filename, content_type, content_id, tag, metadata, body or
    idempotency_key. `result` None: it is refused, naming its field; else: it is accepted and
    becomes this."""

    row: str
    place: str
    value: str
    result: str | None = None

    def __str__(self) -> str:
        shown = self.value if len(self.value) <= 40 else f"{self.value[:40]}...{len(self.value)}"
        return f"{self.row}-{self.place}-{shown!a}"


def _refused(row: str, place: str, *values: str) -> list[Hostile]:
    return [Hostile(row, place, value) for value in values]


_BREAKS = (
    "a\r\nBcc: v@x.test",
    "a\nBcc: v@x.test",
    "a\rBcc: v@x.test",
    "a\x0bBcc: v@x.test",
    "a\x0cBcc: v@x.test",
    "a\x1cBcc: v@x.test",
    "a\x1dBcc: v@x.test",
    "a\x1eBcc: v@x.test",
    "a\x85Bcc: v@x.test",
    "a\u2028Bcc: v@x.test",
    "a\u2029Bcc: v@x.test",
    "a\n folded",
    "a\x00b",
    "a\x1b[31mred",
    "=?utf-8?q?a=0d=0aBcc:_v@x?=",
    "=?utf-8?Q?a=0ABcc:_v@x?=",
    "=?utf-8?b?YQ0KQmNjOiB2QHgudGVzdA==?=",
    "=?a?q??= =?utf-8?q?=0D?=",
    "half \ud800 pair",
)

ROWS: Sequence[Hostile] = (
    # S4: a value that ends its header line
    *_refused("S4", "subject", *_BREAKS),
    *_refused("S4", "header_value", *_BREAKS),
    *_refused("S4", "name", *_BREAKS),
    *_refused("S4", "metadata", *_BREAKS),
    Hostile("S4", "subject", "=?utf-8?q?caf=C3=A9?=", "=?utf-8?q?caf=C3=A9?="),
    Hostile("S4", "subject", "2 =? 3 or ?= not", "2 =? 3 or ?= not"),
    # S5: header names
    *_refused(
        "S5", "header_name",
        "X-A: 1\r\nBcc", "X A", "", "X-\u00e9", "a" * 2000, "a" * 77, "X:A", "X-A\n", "\x7f",
        "From", "FROM", "To", "Cc", "Bcc", "bCC", "Subject", "Date", "Message-ID", "MIME-Version",
        "Content-Type", "content-transfer-encoding", "DKIM-Signature", "ARC-Seal", "Received",
        "Return-Path", "Sender", "Resent-From", "Resent-Bcc", "Authentication-Results",
        "X-Everpost-Id", "X-Internal-Route",
    ),
    Hostile("S5", "header_name", "X-Fine", "X-Fine"),
    Hostile("S5", "header_name", "a" * 76, "a" * 76),
    # S6: injection through other fields
    *_refused("S6", "name", 'a" <v@x.test>, "b', "a <v@x.test>", "a, v@x.test", "a\u202eb"),
    *_refused(
        "S6", "filename",
        'a"\r\nX: 1.txt', "a\u202egpj.exe", "a\x00.txt", "../..", "/", "a/", "a\u2028b", "a" * 256,
        "\ud800.txt",
    ),
    Hostile("S6", "filename", "../../etc/passwd", "passwd"),
    Hostile("S6", "filename", "C:\\secret\\plan.txt", "plan.txt"),
    Hostile("S6", "filename", "Bericht \u00fc \u4f60.pdf", "Bericht \u00fc \u4f60.pdf"),
    *_refused("S6", "content_id", "<a>\r\nX:", "<a@b>", "a b", "", "a\x00", "\u00e9", "a" * 129),
    Hostile("S6", "content_id", "logo.1@here", "logo.1@here"),
    *_refused(
        "S6", "content_type",
        "a/b\r\nX: 1", "text/plain; charset=utf-8\r\nX", "text", "/", "a/b/c", "a b/c",
        "text/plain; charset", "text/plain;charset=\"a b\"", "multipart/mixed; boundary=x",
        "message/partial", "a/" + "b" * 300, "text/\u00fctf",
    ),
    Hostile("S6", "content_type", "text/Calendar;method=REQUEST ; name=x.ics",
            "text/calendar; method=REQUEST"),
    *_refused("S6", "tag", "a\r\nb", "", "a b", "\u00e9", "a" * 257, "a.b", "a\n"),
    Hostile("S6", "header_value", "<https://a.test>,<mailto:v@x.test?bcc=w@y.test>",
            "<https://a.test>,<mailto:v@x.test?bcc=w@y.test>"),
    *_refused("S6", "header_value", "x" * 8193, "\u00e9 " * 5000),
    # S7: an address that would end its SMTP command
    *_refused(
        "S7", "mailbox",
        "a@x>\r\nRCPT TO:<v@y", "a@x.test>\r\nRCPT TO:<v@y.test",
        "a@x.test> NOTIFY=NEVER <b@y.test",
        "a@x.test SIZE=1", "a@x.test\r\n", "a@x.test\n", "a\x00@x.test", "<a@x.test",
        "a@x.test>", "<<a@x.test>>", "a<b@x.test", "a b@x.test", "a\t@x.test", "< a@x.test >",
    ),
    # S9: characters that no encoding can carry
    *_refused("S9", "body", "a\x00b", "a \ud800 b", "\udfff"),
    *_refused("S9", "mailbox", "\ud800@x.test", "a@\ud800x.test", "\ud800 <a@x.test>"),
    # S10: two parsers, two answers
    *_refused(
        "S10", "mailbox",
        "a@evil.test <b@good.test>", "<a@evil.test>b@good.test", "a@evil.test, b@good.test",
        "a@evil.test;b@good.test", "alice@good.test)bob@evil.test",
        '"xclow3n@gmail.com x"@internal.test', '"user"@example.com(x)evil.com', "a@good(c).test",
        "a@good .test", "a@ good.test", "g: a@x.test, b@y.test;", 'g";": v@evil.test;',
        "@relay.test:a@good.test", "<@relay.test:a@good.test>", "a@b@c.test",
        "a@good.test\x00@evil.test", "(c)a@good.test", "a(c)@good.test", '"a" b <c@d.test>',
        '"a"b" <c@d.test>', "Doe, Jo <a@b.test>", "x (y) <a@b.test>", "a\\ <a@b.test>",
        "<a@b.test> <c@d.test>", "n <a@b.test>, m <c@d.test>", "", " ", "<>", "@", "a@", "@b.test",
        "n <>", '"a"@good.test',
    ),
    Hostile("S10", "mailbox", '"a@evil.test" <b@good.test>', "b@good.test"),
    Hostile("S10", "mailbox", "<b@good.test>", "b@good.test"),
    Hostile("S10", "mailbox", " b@good.test\t", "b@good.test"),
    # S11: Unicode
    *_refused(
        "S11", "mailbox",
        "a@\u0261ood.test", "a@g\u043eod.test", "\uff41@good.test", "a@\uff47ood.test",
        "a@good\u3002test", "a@good\uff0etest", "\u212a@x.test", "a@\u212ax.test",
        "a\u202eb@x.test",
        "a\u200bb@x.test", "a\u00a0b@x.test", "a@x\u200b.test", "e\u0301@x.test",
        "a@e\u0301.test", "a@xn--a.test", "a@xn--zzzzzz.test", "a@xn--.test", "a@XN--A.test",
        "a@xn--good-q9d.xn--test-8ve", "a@B\u00dcCHER.test", "a@\u2603.test", "a@x.\u0661\u0662",
        "a\u2028@x.test", "\ufb01@x.test",
    ),
    Hostile("S11", "mailbox", "A@EXAMPLE.test", "A@example.test"),
    Hostile("S11", "mailbox", "a@stra\u00dfe.test", "a@xn--strae-oqa.test"),
    Hostile("S11", "mailbox", "a@strasse.test", "a@strasse.test"),
    Hostile("S11", "mailbox", "\u00e9@x.test", "\u00e9@x.test"),
    Hostile("S11", "mailbox", "\u7528\u6237@\u4f8b\u3048.test", "\u7528\u6237@xn--r8jz45g.test"),
    Hostile("S11", "mailbox", "a@XN--BCHER-KVA.test", "a@xn--bcher-kva.test"),
    # S12: a local part that a gateway would read as something else
    *_refused("S12", "mailbox", "=?utf-8?q?a=40evil.test=3e?=@good.test", "=?x@good.test"),
    Hostile("S12", "mailbox", "a%evil.test@good.test", "a%evil.test@good.test"),
    Hostile("S12", "mailbox", "evil.test!a@good.test", "evil.test!a@good.test"),
    # S13: lengths and literals
    *_refused(
        "S13", "mailbox",
        "a" * 65 + "@x.test", "\u00e9" * 33 + "@x.test", "a@" + "b" * 64 + ".test",
        "a@b." + "c" * 64, "a@" + "b." * 126 + "test", "a@[127.0.0.1]", "a@[IPv6:::1]",
        "a@localhost", "a@1", "a@127.0.0.1", "a@-x.test", "a@x-.test", "a@x_y.test", "postmaster",
        "a@good.test.", ".a@x.test", "a.@x.test", "a..b@x.test", "a@.x.test", "a@x..test",
        "a" * 64 + "@" + ("b" * 60 + ".") * 3 + "b" * 4 + ".test", "n" * 321 + " <a@x.test>",
        "a@*.test", "a@x.test:25", "a@x.test/y",
    ),
    Hostile("S13", "mailbox", "a" * 64 + "@x.test", "a" * 64 + "@x.test"),
    Hostile("S13", "mailbox", "a@" + "b" * 63 + ".test", "a@" + "b" * 63 + ".test"),
    # S30: what would cost a careless parser the square of its length
    *_refused(
        "S30", "mailbox",
        "(" * 20_000, "," * 100_000, "a@" + "a." * 100_000, "<" * 100_000, '"' * 100_000,
        "=?utf-8?q?a?= " * 8_000 + "<a@x.test>", "a" * 100_000, "\u00e9" * 100_000, "@" * 100_000,
        "a@" + "\u00e9" * 100_000, " " * 100_000 + "<", '"' + "\\" * 100_001 + '" <a@b.test>',
    ),
    # S51: idempotency keys
    *_refused(
        "S51", "idempotency_key",
        "", "k" * 257, "k" * 300, "k\u00e9y", "k\x00", "k\n", "k\r\nX: 1", "\x7f", "\u2028",
    ),
    Hostile("S51", "idempotency_key", "k" * 256, "k" * 256),
    Hostile("S51", "idempotency_key", "' OR 1=1 --", "' OR 1=1 --"),
)  # fmt: skip


def rows(*places: str) -> list[Hostile]:
    """The rows of these places."""
    return [row for row in ROWS if row.place in places]
