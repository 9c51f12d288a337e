"""Whole bodies of POST /emails (S9, S28 to S32) and queries of lists (S52)."""

import gzip
import json
import zlib
from collections.abc import Sequence
from typing import Any

from tests.support.hostile.row import HostileQuery, HostileRequest

__all__ = ["EMAIL", "PATH_IDS", "QUERIES", "REQUESTS"]

EMAIL: dict[str, Any] = {
    "from": "Sender <sender@example.test>",
    "to": ["to@receiver.test"],
    "subject": "A test",
    "text": "Hello.\n",
}
"""An email that passes."""

_GOOD = json.dumps(EMAIL).encode()
_REST = b"," + _GOOD[1:]
"""Behind another field of the same object."""
_DEEP = 100_000
_NOT_JSON = "not valid JSON"
_BOMB = gzip.compress(b" " * 10_000_000 + _GOOD, mtime=0)


def _without(name: str) -> bytes:
    return json.dumps({key: value for key, value in EMAIL.items() if key != name}).encode()


def _with(**fields: Any) -> bytes:
    return json.dumps({**EMAIL, **fields}).encode()


def _broken(row: str, **bodies: bytes) -> list[HostileRequest]:
    """Bodies that are no JSON."""
    return [
        HostileRequest(row, name.replace("_", " "), body, 400, _NOT_JSON)
        for name, body in bodies.items()
    ]


def _wrong(row: str, said: str, **bodies: bytes) -> list[HostileRequest]:
    return [
        HostileRequest(row, name.replace("_", " "), body, 422, said)
        for name, body in bodies.items()
    ]


def _good(row: str, **bodies: bytes) -> list[HostileRequest]:
    return [HostileRequest(row, name.replace("_", " "), body, 200) for name, body in bodies.items()]


def _encoded(encoding: str, body: bytes) -> HostileRequest:
    return HostileRequest(
        "S28", f"content encoding {encoding}", body, 415, "content encoding",
        {"Content-Encoding": encoding},
    )  # fmt: skip


def _typed(content_type: str, body: bytes, status: int, said: str = "") -> HostileRequest:
    return HostileRequest(
        "S9", f"content type {content_type}", body, status, said, {"Content-Type": content_type}
    )


def _nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


REQUESTS: Sequence[HostileRequest] = (
    # S9: raw bytes
    *_broken(
        "S9",
        nothing=b"",
        a_space=b" ",
        a_NUL=b"\x00",
        NUL_behind_it=_GOOD + b"\x00",
        NUL_in_a_string=b'{"subject":"a\x00b"' + _REST,
        line_break_in_a_string=b'{"subject":"a\nb"' + _REST,
        bad_UTF_8=b'{"subject":"\xff"' + _REST,
        overlong_slash=b'{"subject":"\xc0\xaf"' + _REST,
        overlong_NUL=b'{"subject":"\xc0\x80"' + _REST,
        overlong_in_three_octets=b'{"subject":"\xe0\x80\xaf"' + _REST,
        beyond_Unicode=b'{"subject":"\xf4\x90\x80\x80"' + _REST,
        cut_off_character=b'{"subject":"\xe4\xbd"' + _REST,
        encoded_surrogate=b'{"subject":"\xed\xa0\x80"' + _REST,
        half_a_surrogate=b'{"subject":"\\ud800"' + _REST,
        other_half=b'{"subject":"\\udc00\\ud800"' + _REST,
        half_in_a_key=b'{"headers":{"\\ud800":"x"}' + _REST,
        latin_1=json.dumps({**EMAIL, "subject": "\u00e9"}, ensure_ascii=False).encode("latin-1"),
        UTF_16=json.dumps(EMAIL).encode("utf-16"),
        UTF_32=json.dumps(EMAIL).encode("utf-32"),
        UTF_7=b"+AHsAIg-from" + _GOOD,
        a_form=b"from=a%40b.test&to=c%40d.test",
        XML=b"<?xml version='1.0'?><email/>",
        two_byte_order_marks=b"\xef\xbb\xbf" * 2 + _GOOD,
    ),
    *_good(
        "S9",
        byte_order_mark=b"\xef\xbb\xbf" + _GOOD,
        escaped_pair=b'{"subject":"\\ud83d\\ude00"' + _REST.replace(b'"subject": "A test", ', b""),
        white_space_around_it=b" \r\n\t" + _GOOD + b"\n\n",
        empty_subject=_with(subject=""),
        bad_UTF_8_in_an_ignored_field=b'{"x":"\xff"' + _REST,
    ),
    *_wrong("S9", "`from`", without_from=_without("from"), null_from=_with(**{"from": None})),
    *_wrong("S9", "`to`", without_to=_without("to"), empty_to=_with(to=[]),
            empty_string=_with(to=""),
            to_an_object=_with(to={"email": "a@b.test"})),
    *_wrong("S9", "`to[0]`", to_of_numbers=_with(to=[1]), to_of_lists=_with(to=[["a@b.test"]]),
            null_in_to=_with(to=[None])),
    *_wrong("S9", "`subject`", without_subject=_without("subject"),
            subject_a_list=_with(subject=[])),
    *_wrong("S9", "`text`", without_text=_without("text"), empty_text=_with(text=""),
            text_a_number=_with(text=1), text_true=_with(text=True)),
    *_wrong("S9", "not valid", null=b"null", a_string=b'"text"', a_number=b"7", a_list=b"[]",
            a_list_of_emails=b"[" + _GOOD + b"]"),
    # The type that a body claims decides nothing: it is JSON or it is refused
    _typed("text/plain", _GOOD, 200),
    _typed("application/json; charset=utf-16", _GOOD, 200),
    _typed("application/x-www-form-urlencoded", b"from=a%40b.test", 400, _NOT_JSON),
    _typed(
        "multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="to"\r\n\r\na@b.test\r\n--b--\r\n',
        400, _NOT_JSON,
    ),
    _typed("application/xml", b"<email/>", 400, _NOT_JSON),
    # S28: compressed bodies are refused before a byte is unpacked
    *(_encoded(name, _BOMB) for name in ("gzip", "GZIP", "x-gzip", "gzip, gzip", "identity, gzip")),
    _encoded("deflate", zlib.compress(_GOOD)),
    _encoded("br", b"\x8b"), _encoded("zstd", b"\x28\xb5\x2f\xfd"), _encoded("", _GOOD),
    HostileRequest("S28", "content encoding identity", _GOOD, 200,
                   headers={"Content-Encoding": "identity"}),
    *_broken("S28", unlabelled_gzip=_BOMB, unlabelled_zip=b"PK\x03\x04" + bytes(200)),
    # S29: JSON bombs
    *_broken(
        "S29",
        nested_in_an_unknown_field=b'{"x":' + _nested(_DEEP) + b"}",
        nested_objects=b'{"x":' * _DEEP + b"1" + b"}" * _DEEP,
        nested_in_an_attachment=b'{"attachments":[{"content":' + _nested(_DEEP) + b"}]}",
        nested_in_a_template=b'{"template":{"a":' + _nested(_DEEP) + b"}}",
        not_a_number=b'{"expires_in":NaN' + _REST,
        infinity=b'{"expires_in":Infinity' + _REST,
        minus_infinity=b'{"expires_in":-Infinity' + _REST,
        leading_zero=b'{"expires_in":010' + _REST,
        hexadecimal=b'{"expires_in":0x10' + _REST,
        plus_sign=b'{"expires_in":+10' + _REST,
        bare_point=b'{"expires_in":10.' + _REST,
        two_values=b"{} {}",
        cut_off=_GOOD[:-1],
        trailing_comma=_GOOD[:-1] + b",}",
        single_quotes=_GOOD.replace(b'"', b"'"),
        comment=b"/* */" + _GOOD,
        bare_word=b"{from:1}",
    ),
    *_wrong("S29", "`metadata`", nested_in_metadata=b'{"metadata":{"a":' + b'{"a":' * _DEEP),
    *_wrong("S29", "not valid", nested_lists=b"[" * _DEEP, nested_lists_closed=_nested(_DEEP)),
    *_wrong("S29", "`template`", nested_64_deep=b'{"template":{"a":' + _nested(64) + b"}" + _REST),
    *_good("S29", nested_in_an_ignored_field=b'{"x":' + _nested(64) + _REST),
    *_wrong(
        "S29", "`expires_in`",
        number_of_100k_digits=b'{"expires_in":' + b"9" * _DEEP + _REST,
        number_beyond_64_bits=b'{"expires_in":18446744073709551616' + _REST,
        float_without_end=b'{"expires_in":1e999' + _REST,
        huge_exponent=b'{"expires_in":1e99999999999' + _REST,
        a_fraction=b'{"expires_in":10.5' + _REST,
        minus_one=b'{"expires_in":-1' + _REST,
        minus_zero=b'{"expires_in":-0' + _REST,
        true=b'{"expires_in":true' + _REST,
        a_text_of_100k_digits=_with(expires_in="9" * _DEEP),
    ),
    *_wrong(
        "S29", "`to`",
        a_million_recipients=b'{"to":[' + b'"a@b.test",' * 999_999 + b'"a@b.test"],'
        + _without("to")[1:],
        twice_the_same_key_the_last_one_bad=_GOOD[:-1] + b',"to":"b"}',
    ),
    *_wrong("S29", "`from`", key_of_10_MB=b'{"' + b"k" * 10_000_000 + b'":1}'),
    *_good("S29", ignored_key_of_1_MB=b'{"' + b"k" * 1_000_000 + b'":1' + _REST,
           twice_the_same_key=b'{"subject":"first"' + _REST),
    *_wrong("S29", "`subject`", a_million_numbers=b'{"subject":[' + b"1," * 1_000_000 + b"1]}"),
    *_wrong(
        "S9", "`headers`",
        ten_thousand_headers=_with(headers={f"X-{n}": "v" for n in range(10_000)}),
        headers_a_list=_with(headers=[["X-A", "b"]]),
        header_given_twice=_with(headers={"References": "<a@b>", "references": "<c@d>"}),
    ),
    *_wrong("S9", "`headers`", header_a_list=_with(headers={"X-A": ["b"]})),
    *_wrong("S9", "`tags`", ten_thousand_tags=_with(tags=[{"name": "a", "value": "b"}] * 10_000)),
    *_wrong(
        "S9", "`metadata`",
        ten_thousand_pairs=_with(metadata={f"k{n}": "" for n in range(10_000)}),
        a_name_with_a_line_break=_with(metadata={"a\r\nb": "c"}),
    ),
    # S32: attachments by the thousand, and contents that are none
    *_wrong(
        "S32", "`attachments`",
        ten_thousand=b'{"attachments":[' + b",".join([b'{"content":""}'] * 10_000) + b"]" + _REST,
        no_content=_with(attachments=[{"filename": "a"}]),
        content_a_number=_with(attachments=[{"content": 7}]),
        content_out_of_range=_with(attachments=[{"content": [256]}]),
        content_below_zero=_with(attachments=[{"content": [-1]}]),
        content_of_fractions=_with(attachments=[{"content": [1.5]}]),
        content_of_texts=_with(attachments=[{"content": ["a"]}]),
        content_of_lists=_with(attachments=[{"content": [[1]]}]),
        content_a_strange_object=_with(attachments=[{"content": {"type": "Buffer"}}]),
        buffer_of_texts=_with(attachments=[{"content": {"type": "Buffer", "data": "a"}}]),
        by_path=_with(attachments=[{"path": "file:///etc/passwd"}]),
        by_URL=_with(attachments=[{"path": "http://127.0.0.1/"}]),
        not_a_list=_with(attachments={"content": ""}),
        the_same_content_id_twice=_with(attachments=[{"content": "", "content_id": "a"}] * 2),
    ),
    *_wrong("S32", "`attachments[0]`", not_objects=_with(attachments=["a"])),
    *_good(
        "S32",
        bytes_as_numbers=_with(attachments=[{"content": [72, 105]}]),
        bytes_as_a_buffer=_with(attachments=[{"content": {"type": "Buffer", "data": [72, 105]}}]),
    ),
)  # fmt: skip

_TEXTS = (
    "%27%20OR%201%3D1--", "1;DROP%20TABLE%20x", "%00", "a%00b", "%0d%0aX:1", "..%2f..%2fetc", "*",
    "%25", "null", "true", "-1", "1e3", "0x10", "$.id", "%7B%22%24gt%22%3A%22%22%7D", "",
    "%EF%BC%91", "%FF", "9" * 400, "%E2%80%A8", "' UNION SELECT 1--".replace(" ", "+"), "%C2%B2",
)  # fmt: skip


def _queries() -> list[HostileQuery]:
    return [
        HostileQuery("S52", f"{name}={text}", (name,))
        for text in _TEXTS
        for name in ("limit", "after", "before")
    ]


_ID = "01938c8f-0000-7000-8000-000000000000"

QUERIES: Sequence[HostileQuery] = (
    *_queries(),
    *(
        HostileQuery("S52", query, ("limit",))
        for query in ("limit=0", "limit=101", "limit=1.0", "limit=+1", "limit=%201", "limit=1,2")
    ),
    HostileQuery("S52", f"after={_ID}&before={_ID}", ("after",)),
    HostileQuery("S52", f"after={_ID[:-1]}", ("after",)),
    HostileQuery("S52", f"after={_ID}0", ("after",)),
    HostileQuery("S52", f"before={_ID}%20", ("before",)),
    HostileQuery("S52", f"after={_ID}'", ("after",)),
    HostileQuery("S52", "limit=1&limit=2", ()),
    HostileQuery("S52", "limit=1&limit=1", ()),
    HostileQuery("S52", "a=1&" * 40 + "a=2", ()),
    HostileQuery("S52", "sort=;drop", None),
    HostileQuery("S52", "sort=created_at%20DESC--&order=1", None),
    HostileQuery("S52", "filter[%24ne]=1&q='%20OR%201=1--", None),
    HostileQuery("S52", "project=2&tenant_id=2&api_key=x", None),
    HostileQuery("S52", "&&&", None),
    HostileQuery("S52", "=", None),
    HostileQuery("S52", "limit[]=1&LIMIT=0", None),
)  # fmt: skip
"""On every list. For /audit the cursors are positions: what is an id elsewhere is wrong there."""

PATH_IDS: Sequence[str] = (
    "%27%20OR%201%3D1--", "1", "0", "-1", "null", "%00", "%0d%0aX:1", "*", "%ff", "%zz", "%",
    "..%2f..%2fetc%2fpasswd", "%2e%2e", "..;", "$.id", "%7B%7D", _ID[:-1], _ID + "0", _ID + "%20",
    _ID.replace("-", "%2D") + "'", "{" + _ID + "}", "urn:uuid:" + _ID, "9" * 1000,
)  # fmt: skip
"""Where an id belongs in a path: 404, as for an id that nobody has."""
