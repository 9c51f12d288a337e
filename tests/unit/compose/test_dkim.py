"""Signatures hold before two outside verifiers, and break when someone touches the message."""

import base64
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from everpost.clock import SystemClock
from everpost.compose import (
    SIGNED_HEADERS,
    SigningKey,
    UnreadableKey,
    assemble,
    compose,
    dns_record,
    generate_key,
    load_key,
    sign,
)
from everpost.compose.dkim import MINIMUM_LIFETIME, Algorithm, relaxed_body, relaxed_field
from everpost.model.message import Address, Attachment, Content, Form
from tests.support import dkim_verifiers
from tests.support.dkim_verifiers import signatures_of, verify_dkimpy, verify_opendkim
from tests.unit.compose.contents import SIMPLE, contents

NOW = SystemClock().now() // 1000

# A key of 512 bits, which current libraries no longer make (`openssl genrsa 512`).
SHORT_KEY = base64.b64decode(
    "MIIBVgIBADANBgkqhkiG9w0BAQEFAASCAUAwggE8AgEAAkEA0ODI3SzRzJHGxL2x0z+GnIGw2uf8tYOO69nmnCTO5H"
    "e75qgLAlllv2nSsDtRui/OXsLT7M0bGrYcSUtUpmQUWwIDAQABAkEAjadz8TL9EOvnzfMLjsTtKGR3qO1dH0gZ++7p"
    "iwkXWi5zc72Z+f8JOlwduZb2uwsM/poAxyViwLaCICIRc37F+QIhAO4Hvu1WDS24TpcuQ1iAQmYRzGzl4Sv95CKfO+"
    "CgurZ1AiEA4KWiMg9LJW6z1GmVOTaZcdpD3Bo71KC7ipAoJ3gsZY8CIQDrFa9Vi8VcQEkuOry8rX/mevGhI7Ct2AT2"
    "xLlIcrW0+QIgXUKF1jBhKvYNM8ZtS6YuB4TsHQjLA9eCY+C6ur/59mMCIQCxgpSTrASPKE6Lnf3iSR4KDX6C6ghCnx"
    "pQ1DF5yqRAFw=="
)

RECORDS: dict[str, str] = {}


def _key(selector: str, algorithm: Algorithm, bits: int = 2048) -> SigningKey:
    der, public = generate_key(algorithm, bits)
    name, value = dns_record(selector, "example.com", algorithm, public)
    RECORDS[name] = value
    return load_key(der, domain="example.com", selector=selector)


RSA = _key("rsa", "rsa-sha256")
ED25519 = _key("ed", "ed25519-sha256")
BOTH = (RSA, ED25519)


def _with(**changes: object) -> Content:
    return msgspec.structs.replace(SIMPLE, **changes)


def _signed(content: Content, form: Form = Form.SEVEN_BIT) -> bytes:
    composed = compose(content, form)
    return assemble(composed, sign(composed, BOTH, at=NOW))


def _tags(signature: bytes) -> dict[str, str]:
    value = re.sub(r"\s+", "", signature.decode().partition(":")[2])
    return dict(tag.split("=", 1) for tag in value.split(";"))


MESSAGES = {
    "plain": (SIMPLE, Form.SEVEN_BIT),
    "empty body": (_with(text=""), Form.SEVEN_BIT),
    "white space": (
        _with(text="a  b\t c \n \t\n\n x \t\n\n\n \n", html="  <p>\n\t"),
        Form.EIGHT_BIT,
    ),
    "8-bit": (_with(text="漢字  かな\n\n", subject="Größe"), Form.EIGHT_BIT),
    "utf-8": (_with(sender=Address("ü@example.com", "名  前"), subject="題  x"), Form.UTF8),
    "parts": (
        _with(
            subject="folded subject " * 20,
            to=tuple(Address(f"p{i}@example.org", f"Person, {i}") for i in range(40)),
            html="<p>=é</p>\n" * 50,
            attachments=(Attachment("ü.pdf", "", bytes(5000)),),
            headers=(("List-Unsubscribe", "<https://a.test/u>"), ("X-A", "b"), ("X-A", "c")),
        ),
        Form.SEVEN_BIT,
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_both_signatures_hold_before_both_verifiers(name: str) -> None:
    data = _signed(*MESSAGES[name])
    assert verify_dkimpy(data, RECORDS) == 2
    assert verify_opendkim(data, RECORDS) == 2


@pytest.mark.parametrize("bits", [1024, 4096])
def test_shortest_and_longest_rsa_keys_hold(bits: int) -> None:
    key = _key(f"rsa{bits}", "rsa-sha256", bits)
    composed = compose(SIMPLE, Form.SEVEN_BIT)
    data = assemble(composed, sign(composed, (key,), at=NOW))
    assert verify_dkimpy(data, RECORDS) == verify_opendkim(data, RECORDS) == 1


@given(content=contents)
@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("form", list(Form))
def test_any_content_is_signed_so_that_it_verifies(form: Form, content: Content) -> None:
    data = _signed(content, form)
    assert verify_dkimpy(data, RECORDS) == 2
    assert max(map(len, b"".join(signatures_of(data)).split(b"\r\n"))) <= 78


@pytest.mark.parametrize(
    "added",
    ["From: evil@evil.test", "To: you@evil.test", "Subject: evil", "Cc: you@evil.test",
     "Reply-To: evil@evil.test", "Date: Tue, 14 Nov 2023 22:13:21 +0000", "MIME-Version: 1.0",
     "Content-Type: text/html", "Content-Transfer-Encoding: base64", "Message-ID: <evil@evil>",
     "List-Unsubscribe: <https://evil.test>", "List-Unsubscribe-Post: List-Unsubscribe=One-Click"],
)  # fmt: skip
def test_field_added_after_signing_breaks_every_signature(added: str) -> None:
    """S34: each name is signed once more than it occurs."""
    head, _, body = _signed(SIMPLE).partition(b"\r\n\r\n")
    for tampered in (
        added.encode() + b"\r\n" + head + b"\r\n\r\n" + body,
        head + b"\r\n" + added.encode() + b"\r\n\r\n" + body,
    ):
        for signature in signatures_of(tampered):
            others = set(signatures_of(tampered)) - {signature}
            alone = tampered.replace(others.pop(), b"")
            with pytest.raises(AssertionError):
                verify_dkimpy(alone, RECORDS)


def test_both_verifiers_refuse_what_was_changed() -> None:
    for data in (
        _signed(SIMPLE).replace(b"\r\n\r\nHello", b"\r\n\r\nHallo"),
        _signed(SIMPLE) + b"more\r\n",
        _signed(SIMPLE).replace(b"Subject: Hello", b"Subject: Hallo"),
        _signed(SIMPLE).replace(b"t=%d" % NOW, b"t=%d" % (NOW - 1)),
    ):
        assert data != _signed(SIMPLE)
        for verify in (verify_dkimpy, verify_opendkim):
            with pytest.raises(AssertionError):
                verify(data, RECORDS)


def test_verifiers_agree_where_namespaces_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dkim_verifiers, "_namespaces_allowed", lambda: False)
    data = _signed(SIMPLE)
    assert verify_opendkim(data, RECORDS) == 2
    with pytest.raises(AssertionError):
        verify_opendkim(data + b"more\r\n", RECORDS)


def test_unsigned_message_does_not_pass_the_verifiers() -> None:
    data = assemble(compose(SIMPLE, Form.SEVEN_BIT))
    for verify in (verify_dkimpy, verify_opendkim):
        with pytest.raises(AssertionError, match="not signed"):
            verify(data, RECORDS)


def test_missing_verifier_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    found = shutil.which
    monkeypatch.setattr(
        shutil, "which", lambda name, **k: None if "opendkim" in name else found(name, **k)
    )
    with pytest.raises(AssertionError, match="install Debian package opendkim"):
        verify_opendkim(_signed(SIMPLE), RECORDS)


def test_tags_are_those_that_limit_replay_and_forgery() -> None:
    composed = compose(SIMPLE, Form.SEVEN_BIT)
    signatures = signatures_of(sign(composed, BOTH, at=1_700_000_000) + b"\r\n")
    assert len(signatures) == 2
    for signature, key in zip(signatures, BOTH, strict=True):
        tags = _tags(signature)
        assert list(tags) == ["v", "a", "c", "d", "s", "t", "x", "h", "bh", "b"]
        assert "l" not in tags
        assert tags["a"] == key.algorithm
        assert (tags["c"], tags["d"], tags["s"]) == ("relaxed/relaxed", "example.com", key.selector)
        assert int(tags["x"]) - int(tags["t"]) == MINIMUM_LIFETIME == 7 * 86_400
        names = tags["h"].split(":")
        present = [name.decode().lower() for name, _ in composed.headers]
        for name in SIGNED_HEADERS:
            assert names.count(name) == present.count(name.lower()) + 1


def test_signed_names_of_a_relay_replace_ours_but_for_from() -> None:
    composed = compose(SIMPLE, Form.SEVEN_BIT)
    signature = sign(composed, (RSA,), at=NOW, headers=("Subject", "subject"))
    assert _tags(signature)["h"] == "From:From:Subject:Subject"
    assert verify_opendkim(assemble(composed, signature), RECORDS) == 1
    with pytest.raises(ValueError, match="malformed"):
        sign(composed, (RSA,), at=NOW, headers=("Sub:ject",))


def test_nothing_leaves_unsigned_for_want_of_keys() -> None:
    composed = compose(SIMPLE, Form.SEVEN_BIT)
    with pytest.raises(ValueError, match="no keys"):
        sign(composed, (), at=NOW)
    with pytest.raises(ValueError, match="outlive"):
        sign(composed, BOTH, at=NOW, lifetime=3600)


def test_signing_in_threads_gives_the_same_bytes() -> None:
    composed = compose(MESSAGES["parts"][0], Form.SEVEN_BIT)
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda _: sign(composed, BOTH, at=NOW), range(64)))
    assert len(set(results)) == 1


def test_unreadable_keys_are_refused_by_name() -> None:
    curve = generate_private_key(SECP256R1()).private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
    )
    der, _ = generate_key("ed25519-sha256")
    sealed = load_der_private_key(der, None).private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
    )
    for bad in (b"", b"junk", der[:-1], curve, sealed, SHORT_KEY):
        with pytest.raises(UnreadableKey):
            load_key(bad, domain="example.com", selector="s")
    for name in ("", "a b", "a;b", "a\r\nX: 1", "é.test", "a." * 130 + "b"):
        with pytest.raises(UnreadableKey):
            load_key(der, domain=name, selector="s")
        with pytest.raises(UnreadableKey):
            load_key(der, domain="example.com", selector=name)
    with pytest.raises(ValueError, match="bits"):
        generate_key("rsa-sha256", 512)


def test_private_key_does_not_show_in_logs() -> None:
    assert "private" not in repr(RSA)


def test_dns_record_is_what_verifiers_look_up() -> None:
    assert dns_record("s", "d.test", "rsa-sha256", "AA==") == (
        "s._domainkey.d.test",
        "v=DKIM1; k=rsa; p=AA==",
    )
    name, value = dns_record("s", "d.test", "ed25519-sha256", generate_key("ed25519-sha256")[1])
    assert re.fullmatch(r"v=DKIM1; k=ed25519; p=[A-Za-z0-9+/]{43}=", value), name


def _slow_relaxed_body(body: bytes) -> bytes:
    """RFC 6376 §3.4.4 word for word."""
    body = re.sub(rb"[ \t]+(?=\r\n|\Z)", b"", body)
    body = re.sub(rb"[ \t]+", b" ", body)
    body = re.sub(rb"(?:\r\n)*\Z", b"", body, count=1)
    return body + b"\r\n" if body else b""


@given(
    body=st.lists(
        st.sampled_from(
            [b" ", b"\t", b"\r\n", b"a", b"\x0b", b"\r", b"\n", b"  ", b" \r\n", b"\r\n\r\n"]
        ),
        max_size=12,
    ).map(b"".join)
)
def test_body_in_relaxed_form_is_what_the_rfc_says(body: bytes) -> None:
    assert relaxed_body(body) == _slow_relaxed_body(body)


def test_field_in_relaxed_form_is_what_the_rfc_says() -> None:
    """RFC 6376 §3.4.5."""
    assert relaxed_field(b"A: X\r\n") == b"a:X\r\n"
    assert relaxed_field(b"B : Y\t\r\n\tZ  \r\n") == b"b:Y Z\r\n"
    assert relaxed_field(b"C:\r\n") == b"c:\r\n"
    assert relaxed_field(b"D: a\x0bb \x0c\t c\r\n d \r\n") == b"d:a\x0bb \x0c c d\r\n"


def test_repeated_fields_are_signed_from_the_last_up() -> None:
    """RFC 6376 §5.4.2."""
    composed = compose(_with(headers=(("X-A", "1"), ("X-A", "2"))), Form.SEVEN_BIT)
    data = assemble(composed, sign(composed, BOTH, at=NOW, headers=("X-A",)))
    assert verify_dkimpy(data, RECORDS) == verify_opendkim(data, RECORDS) == 2
    with pytest.raises(AssertionError):
        verify_dkimpy(data.replace(b"X-A: 1\r\nX-A: 2", b"X-A: 2\r\nX-A: 1"), RECORDS)
