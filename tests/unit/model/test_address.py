"""Mailboxes: one reading, for us and for whoever parses it after us."""

import email.errors
import email.headerregistry
import email.policy
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everpost.model.address import destination, parse_domain, parse_mailbox, shown
from everpost.model.errors import Invalid
from everpost.model.message import Address
from tests.support.hostile import Hostile, rows


@pytest.mark.parametrize("row", rows("mailbox"), ids=str)
def test_a_hostile_mailbox_is_refused_or_means_one_address(row: Hostile) -> None:
    if row.result is None:
        with pytest.raises(Invalid, match="Invalid `cc` field") as refusal:
            parse_mailbox(row.value, field="cc")
        assert refusal.value.field == "cc"
    else:
        assert parse_mailbox(row.value, field="cc").address == row.result


def _put(row: Hostile) -> str:
    if row.place == "name":
        return f"{row.value} <a@good.test>"
    escaped = row.value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}" <a@good.test>'


@pytest.mark.parametrize("row", rows("name", "quoted_name"), ids=str)
def test_a_hostile_display_name_is_refused_or_stays_a_name(row: Hostile) -> None:
    if row.result is None:
        with pytest.raises(Invalid) as refusal:
            parse_mailbox(_put(row), field="from")
        assert refusal.value.field == "from"
    else:
        assert parse_mailbox(_put(row), field="from") == Address("a@good.test", row.result)


def test_a_quoted_name_may_hold_what_would_be_syntax_outside() -> None:
    parsed = parse_mailbox(r'"a\" <v@x.test>, \"b" <a@good.test>', field="to")
    assert parsed == Address("a@good.test", 'a" <v@x.test>, "b')
    assert parse_mailbox('"Doe, Jo" <a@good.test>', field="to").name == "Doe, Jo"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Acme Inc. <a@b.test>", "Acme Inc."),
        ("[Staging] Acme <a@b.test>", "[Staging] Acme"),
        ("O'Neil & Söhne <a@b.test>", "O'Neil & Söhne"),
        ("张三<a@b.test>", "张三"),
        ('""<a@b.test>', ""),
        ('"" <a@b.test>', ""),
        ("  Jo   Doe   <a@b.test> ", "Jo   Doe"),
    ],
)
def test_names_that_people_write_are_kept_as_given(text: str, name: str) -> None:
    assert parse_mailbox(text, field="to") == Address("a@b.test", name)


def test_the_refusal_says_what_is_needed() -> None:
    with pytest.raises(Invalid) as refusal:
        parse_mailbox("nobody", field="to")
    assert refusal.value.message == (
        "Invalid `to` field. The email address needs to follow the `email@example.com` or "
        "`Name <email@example.com>` format."
    )
    assert refusal.value.name == "validation_error"
    with pytest.raises(Invalid, match="needs quotes"):
        parse_mailbox("Doe, Jo <a@b.test>", field="to")


@pytest.mark.parametrize(
    ("domain", "wire"),
    [
        ("Example.COM", "example.com"),
        ("bücher.test", "xn--bcher-kva.test"),
        ("пример.рф", "xn--e1afmkfd.xn--p1ai"),
        ("株式会社abc.jp", "xn--abc-xy9dm34eupmq82a.jp"),
        ("한국.kr", "xn--3e0b707e.kr"),
        ("r3---sn.example.com", "r3---sn.example.com"),
        ("1password.com", "1password.com"),
    ],
)
def test_a_domain_becomes_its_lower_case_a_label(domain: str, wire: str) -> None:
    assert parse_domain(domain, field="name") == wire
    assert parse_mailbox(f"a@{domain}", field="to").address == f"a@{wire}"


@pytest.mark.parametrize(
    "domain", ["localhost", "", ".", "a b.test", "x.123", "a" * 300, "аa.test"]
)
def test_what_is_no_domain_is_refused_by_name(domain: str) -> None:
    with pytest.raises(Invalid, match="Invalid `name` field"):
        parse_domain(domain, field="name")


def test_destination_is_what_follows_the_at_sign() -> None:
    assert destination("a%b@good.test") == "good.test"


_atoms = st.text(st.sampled_from("abcXYZ019!#$%&'*+-/=?^_`{|}~"), min_size=1, max_size=12)
_locals = st.lists(_atoms, min_size=1, max_size=3).map(".".join).filter(lambda s: "=?" not in s)
_labels = st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?\Z").filter(lambda s: s[2:4] != "--")
_tlds = st.from_regex(r"\A[a-z]{2,6}\Z")
_domains = st.builds(
    lambda ls, t: ".".join([*ls, t]), st.lists(_labels, min_size=1, max_size=3), _tlds
)
_specs = st.builds("{}@{}".format, _locals, _domains)
_names = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=40).map(
    lambda s: s.strip(" \t")
)


@given(spec=_specs, name=_names.filter(lambda s: "=?" not in s))
@settings(max_examples=200)
def test_what_is_shown_reads_back_as_the_same_mailbox(spec: str, name: str) -> None:
    mailbox = Address(spec, name)
    assert parse_mailbox(shown(mailbox), field="to") == mailbox


@given(text=_specs | st.text(max_size=40) | st.text('ab@.<>"()\\,:; =?-', max_size=24))
@settings(max_examples=400)
def test_the_standard_library_reads_the_same_address_in_what_we_accept(text: str) -> None:
    try:
        mailbox = parse_mailbox(text, field="to")
    except Invalid:
        return
    ours = mailbox.address
    if not ours.isascii():
        return
    header = email.policy.default.header_factory("to", f"<{ours}>")
    assert isinstance(
        header, email.headerregistry.UniqueAddressHeader | email.headerregistry.AddressHeader
    )
    assert [a.addr_spec for a in header.addresses] == [ours]


@given(text=st.text(max_size=60))
@settings(max_examples=300)
def test_no_text_at_all_raises_anything_but_a_refusal(text: str) -> None:
    for candidate in (text, f"a@{text}.test", f"{text}@x.test", f"{text} <a@x.test>"):
        try:
            address = parse_mailbox(candidate, field="to").address
        except Invalid:
            continue
        assert parse_mailbox(address, field="to").address == address
        assert len(address.encode()) <= 254
        assert destination(address).isascii()
        assert not any(c in address for c in '\r\n\0<>" ')


@pytest.mark.parametrize(
    "hostile",
    [
        lambda n: "a@" + "a." * n,
        lambda n: '"' + "\\a" * n,
        lambda n: "a" * n + "<",
        lambda n: "a@" + "é." * n,
        lambda n: "=?a?q?" * n + "?= <a@x.test>",
    ],
)
def test_twice_the_length_costs_at_most_about_twice_the_time(
    hostile: Callable[[int], str],
) -> None:
    def cost(n: int) -> float:
        text = hostile(n)
        best = float("inf")
        for _ in range(3):
            started = time.process_time()
            with pytest.raises(Invalid):
                parse_mailbox(text, field="to")
            best = min(best, time.process_time() - started)
        return best

    assert cost(200_000) < 8 * max(cost(50_000), 0.005)
