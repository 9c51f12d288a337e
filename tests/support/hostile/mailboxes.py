"""Addresses: S7 to S14 and S30 of RELIABILITY §5."""

from collections.abc import Iterable, Sequence

from tests.support.hostile.row import Hostile, refused

__all__ = ["MAILBOXES"]


def _kept(row: str, *values: str) -> list[Hostile]:
    return [Hostile(row, "mailbox", value, value) for value in values]


def _becomes(row: str, pairs: Iterable[tuple[str, str]]) -> list[Hostile]:
    return [Hostile(row, "mailbox", value, result) for value, result in pairs]


_LOCAL_64 = "a" * 64
_DOMAIN_188 = ".".join(["b" * 62] * 3)

MAILBOXES: Sequence[Hostile] = (
    # S7: an address that would end its SMTP command
    *refused(
        "S7", "mailbox",
        "a@x>\r\nRCPT TO:<v@y", "a@x.test>\r\nRCPT TO:<v@y.test",
        "a@x.test\r\nRCPT TO:<v@y.test>\r\nDATA\r\n", "\r\na@x.test", "a@x.test\r\n", "a@x.test\n",
        "a@x.test\r", "a\r\n @x.test", "a@\r\n x.test", "a@x.test\x0b", "a@x.test\x0c",
        "a@x.test\x1c", "a@x.test\x85", "a@x.test\u2028", "a@x.test\u2029",
        "N\r\n <a@x.test>", "N <a@x.test>\r\nBcc: v@x.test", "N <a@x.test\r\n>",
        "a@x.test> NOTIFY=NEVER <b@y.test", "a@x.test> SIZE=1 <b@y.test",
        "a@x.test> ORCPT=rfc822;v@y.test <b@y.test", "a@x.test SIZE=1", "a@x.test ENVID=1",
        "a@x.test BODY=8BITMIME SMTPUTF8", "a\x00@x.test", "a@x.test\x00", "\x00a@x.test",
        "<a@x.test", "a@x.test>", "<<a@x.test>>", "<<a@x.test>", "a<b@x.test", "a b@x.test",
        "a\t@x.test", "< a@x.test >", "<a@x.test >", '"a b"@x.test', '"a\\\r\nb"@x.test',
        '"a\\\x00"@x.test',
    ),
    # What a shell, a pipe or a template would read as more than letters stays letters
    *_kept(
        "S7",
        "-oQ/tmp@x.test", "|cat@x.test", "/etc/passwd@x.test", "`id`@x.test", "${7*7}@x.test",
        "{{7*7}}@x.test", "*@x.test", "a'b@x.test",
    ),
    # S9: characters that no encoding can carry. As JSON they are no text at all, hence HTTP's 400
    *refused(
        "S9", "mailbox", "\ud800@x.test", "a@\ud800x.test", "\ud800 <a@x.test>", "a@x.test\udfff",
        status=400,
    ),
    # S10: two parsers, two answers
    *refused(
        "S10", "mailbox",
        "a@evil.test <b@good.test>", "<a@evil.test>b@good.test", "<a@evil.test> b@good.test",
        "a@evil.test, b@good.test", "a@evil.test,b@good.test", "a@evil.test;b@good.test",
        "a@evil.test b@good.test", "a@evil.test\tb@good.test", ",a@good.test", "a@good.test,",
        "a@good.test;", "alice@good.test)bob@evil.test", "(alice@good.test)bob@evil.test",
        '"xclow3n@gmail.com x"@internal.test', '"user"@example.com(x)evil.com', "a@good(c).test",
        "a@good.test(c)", "a@(c)good.test", "a@good .test", "a@ good.test", "a @good.test",
        "g: a@x.test, b@y.test;", "g:;", "undisclosed-recipients:;", 'g";": v@evil.test;',
        "@relay.test:a@good.test", "<@relay.test:a@good.test>", "@a.test,@b.test:c@good.test",
        "<@a.test,@b.test:c@good.test>", "a@b@c.test", "a@good.test@", "a@good.test\x00@evil.test",
        "(c)a@good.test", "a(c)@good.test", "a(c@good.test", "a)c@good.test", "(a@good.test)",
        '"a" b <c@d.test>', '"a"b" <c@d.test>', "Doe, Jo <a@b.test>", "x (y) <a@b.test>",
        "a\\ <a@b.test>", "\\a@b.test", "a\\@b.test", "[a]@b.test", "a:b@c.test",
        "<a@b.test> <c@d.test>", "n <a@b.test>, m <c@d.test>", "a <b> <c@d.test>",
        "", " ", "\t", "<>", "@", "a@", "@b.test", "n <>", '"a"@good.test', '""@good.test',
        'a."b"@good.test', '"a\\"b"@good.test', '"a@evil.test"@good.test',
        "mailto:a@good.test", "a@good.test?bcc=v@x.test", "a@good.test#b", "a@good.test/b",
        "' OR 1=1--@good.test", "a@good.test'--", "$(id)@good.test",
    ),
    *_becomes(
        "S10",
        [
            ('"a@evil.test" <b@good.test>', "b@good.test"),
            ("<b@good.test>", "b@good.test"),
            (" b@good.test\t", "b@good.test"),
            ('"a@evil.test, c" <b@good.test>', "b@good.test"),
            ('"=?utf-8?q?a=40evil.test?=" <b@good.test>', "b@good.test"),
            ("=?utf-8?q?a=40evil.test?= <b@good.test>", "b@good.test"),
        ],
    ),
    # S11: Unicode
    *refused(
        "S11", "mailbox",
        "a@\u0261ood.test", "a@g\u043eod.test", "a@ex\u0430mple.test", "a@\u03bfk.test",
        "a@good.t\u0435st", "\uff41@good.test", "a@\uff47ood.test", "a@good\u3002test",
        "a@good\uff0etest", "a@good\uff61test", "a\uff20good.test", "\u212a@x.test",
        "a@\u212ax.test", "a@\u0130.test", "a@\u1e9e.test", "a\u202eb@x.test", "a@\u202etset.x",
        "a\u2066b@x.test", "a\u200eb@x.test", "a\u200bb@x.test", "a\u200db@x.test",
        "a\u00adb@x.test", "a\u00a0b@x.test", "\ufeffa@x.test", "\u3000a@x.test", "a@x.test\u3000",
        "a@x\u200b.test", "a@x\u00ad.test", "a@a\u200db.test", "e\u0301@x.test", "\u0301a@x.test",
        "a@e\u0301.test",
        "a@xn--a.test", "a@xn--zzzzzz.test", "a@xn--.test", "a@xn--0.test", "a@XN--A.test",
        "a@xn--a-ecp.test", "a@xn--good-q9d.xn--test-8ve", "a@B\u00dcCHER.test", "a@\u2603.test",
        "a@\U0001f600.test", "a@x.\u0661\u0662", "a@1\u05d0.test", "a@\u0627b.test",
        "a@\u30fb.test", "a@-\u00e9.test", "a\u2028@x.test", "\ufb01@x.test",
    ),
    *_becomes(
        "S11",
        [
            ("A@EXAMPLE.test", "A@example.test"),
            ("a@stra\u00dfe.test", "a@xn--strae-oqa.test"),
            ("a@strasse.test", "a@strasse.test"),
            ("\u7528\u6237@\u4f8b\u3048.test", "\u7528\u6237@xn--r8jz45g.test"),
            ("a@XN--BCHER-KVA.test", "a@xn--bcher-kva.test"),
            ("a@\u0440\u0443\u0441.test", "a@xn--p1acf.test"),
            ("a@l\u00b7l.test", "a@xn--ll-0ea.test"),
            ("a@r3---sn.test", "a@r3---sn.test"),
        ],
    ),
    *_kept("S11", "\u00e9@x.test", "\u00df@x.test", "ss@x.test", "\U0001f600@x.test",
           "\u0430dmin@x.test"),
    # S12: a local part that a gateway would read as something else
    *refused(
        "S12", "mailbox",
        "=?utf-8?q?a=40evil.test=3e?=@good.test", "=?utf-8?b?YUBldmlsLnRlc3Q=?=@good.test",
        "=?x@good.test", "a=?b@good.test", '"=?utf-8?q?a?="@good.test',
        "a@=?utf-8?q?good?=.test",
    ),
    *_kept("S12", "a%evil.test@good.test", "a%40evil.test@good.test", "evil.test!a@good.test",
           "x!y!a@good.test"),
    # S13: lengths and literals
    *refused(
        "S13", "mailbox",
        "a" * 65 + "@x.test", "\u00e9" * 33 + "@x.test", "\u00e9" * 32 + "a@x.test",
        "a@" + "b" * 64 + ".test", "a@b." + "c" * 64, "a@" + "\u00e9" * 60 + ".test",
        f"a@{_DOMAIN_188}." + "c" * 60 + ".tst",  # a domain of 253, an address of 255
        "a@" + ".".join(["b" * 63] * 3) + "." + "c" * 57 + ".test", "a@" + "b." * 126 + "test",
        _LOCAL_64 + "@" + "b" * 63 + "." + "c" * 63 + "." + "d" * 62,  # 255
        "a@[127.0.0.1]", "a@[IPv6:::1]", "a@[::1]", "a@[x]", "a@[]", "a@localhost", "a@test", "a@1",
        "a@127.0.0.1", "a@2130706433", "a@0x7f.1", "a@127.1", "a@-x.test", "a@x-.test",
        "a@x_y.test", "a@_dmarc.x.test", "postmaster", "a@good.test.", "a@good.test..", ".a@x.test",
        "a.@x.test", "a..b@x.test", "a@.x.test", "a@x..test", "a@x.1a",
        "n" * 321 + " <a@x.test>", "a@*.test", "a@*", "a@x.test:25", "a@x.test/y",
    ),
    *_kept(
        "S13",
        _LOCAL_64 + "@x.test", "a@" + "b" * 63 + ".test", "a@b." + "c" * 63,
        _LOCAL_64 + "@" + "b" * 63 + "." + "c" * 63 + "." + "d" * 61,  # 254
        "\u00e9" * 32 + "@x.test", "a@b.c", f"a@{_DOMAIN_188}." + "c" * 59 + ".tst",
    ),
    Hostile("S13", "mailbox", "n" * 320 + " <a@x.test>", "a@x.test"),
    # S30: what would cost a careless parser the square of its length
    *refused(
        "S30", "mailbox",
        "(" * 20_000, "," * 100_000, "a@" + "a." * 100_000, "<" * 100_000, '"' * 100_000,
        "=?utf-8?q?a?= " * 8_000 + "<a@x.test>", "a" * 100_000, "\u00e9" * 100_000, "@" * 100_000,
        "a@" + "\u00e9" * 100_000, " " * 100_000 + "<", '"' + "\\" * 100_001 + '" <a@b.test>',
        "<" * 1_000_000, "a@" + "xn--" * 50_000, ":" * 100_000 + ";", "()" * 50_000 + "a@x.test",
    ),
)  # fmt: skip
