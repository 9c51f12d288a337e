"""Whom a limit holds for: a provider's domains are one site, and nobody else gets into it."""

import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everpost.delivery.mx import Exchange, Exchanges
from everpost.delivery.sites import PROVIDERS, Provider, Providers, Site, lone, site_of


def known(domain: str, *hosts: tuple[int, str]) -> Exchanges:
    return Exchanges(domain, tuple(Exchange(*host) for host in hosts))


def test_two_domains_on_the_same_hosts_count_apart() -> None:
    one = site_of(known("one.test", (10, "b.mail.test"), (10, "a.mail.test"), (20, "x.one.test")))
    two = site_of(known("two.test", (5, "a.mail.test"), (5, "b.mail.test")))
    assert one == two
    assert one.hosts == {"a.mail.test", "b.mail.test"}
    assert site_of(known("three.test", (10, "a.mail.test"))).name != one.name


def test_tenants_of_one_provider_count_apart() -> None:
    one = site_of(known("one.test", (0, "one-test.mail.protection.outlook.com")))
    two = site_of(known("two.test", (0, "two-test.x-v1.mx.microsoft")))
    assert one.name == two.name == "provider:exchange-online"
    assert one.group != two.group  # their sessions are not each other's


@pytest.mark.parametrize(
    "hosts",
    [
        [(10, "mx.evil.test"), (10, "aspmx.l.google.com")],
        [(10, "notyahoodns.net")],
        [(10, "yahoodns.net.evil.test")],
        [(10, "google")],
        [(10, "provider")],
    ],
)
def test_a_stranger_counts_among_a_providers_domains(hosts: list[tuple[int, str]]) -> None:
    """Else what he says of us would hold for all of them."""
    assert not site_of(known("evil.test", *hosts)).name.startswith("provider:")


def test_limits_that_a_provider_publishes_are_forgotten() -> None:
    yahoo = site_of(known("yahoo.com", (1, "mta5.am0.yahoodns.net"), (1, "mta6.am0.yahoodns.net")))
    assert (yahoo.connections, yahoo.messages) == (None, 20)
    comcast = site_of(known("comcast.net", (5, "mx1.comcast.net")))
    assert (comcast.connections, comcast.messages) == (25, None)


def test_a_domain_without_mx_and_one_that_dns_does_not_tell() -> None:
    assert site_of(Exchanges("a.test", (Exchange(0, "a.test"),), implicit=True)).name == "a.test"
    assert lone("a.test") == Site("a.test", "a.test")


def test_a_hundred_hosts_make_a_name_without_end() -> None:
    many = [(10, f"mx{n}.a-rather-long-name.test") for n in range(100)]
    one, two = site_of(known("a.test", *many)), site_of(known("b.test", *reversed(many)))
    assert one == two
    assert len(one.name) < 121
    assert site_of(known("c.test", *many[1:])).name != one.name


@given(st.sets(st.from_regex(r"[a-c]{1,20}\.test", fullmatch=True), min_size=1, max_size=12))
def test_the_order_of_records_makes_another_site(hosts: set[str]) -> None:
    ordered = sorted(hosts)
    there = site_of(known("a.test", *((1, h) for h in ordered)))
    back = site_of(known("b.test", *((7, h) for h in reversed(ordered))))
    assert there == back
    assert there.hosts == hosts


# --- the table ------------------------------------------------------------------------------------


def test_a_number_without_a_source() -> None:
    assert PROVIDERS
    for one in PROVIDERS:
        assert one.source
        assert one.date <= datetime.date(2026, 11, 25)


def row(**fields: Any) -> dict[str, Any]:
    return {"name": "a", "mx": ["mx.a.test"], "source": "a page", "date": "2026-11-25", **fields}


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"name": "A B"}, "matching regex"),
        ({"mx": []}, "length"),
        ({"mx": ["Mx.A.test"]}, "lower-case"),
        ({"mx": [".a.test"]}, "lower-case"),
        ({"mx": ["test"]}, "lower-case"),
        ({"connections": 0}, ">= 1"),
        ({"source": ""}, "length"),
        ({"rate": 5}, "unknown field"),
    ],
)
def test_a_row_that_is_not_understood_stops_the_start(
    fields: dict[str, Any], complaint: str
) -> None:
    assert msgspec.convert(row(), Provider).name == "a"
    with pytest.raises(msgspec.ValidationError, match=complaint):
        msgspec.convert(row(**fields), Provider)


@pytest.mark.parametrize(
    ("second", "complaint"),
    [
        (row(), "twice"),
        (row(name="b"), "both"),
        (row(name="b", mx=["a.test"]), "both"),
        (row(name="b", mx=["x.mx.a.test"]), "both"),
    ],
)
def test_a_host_of_two_providers_stops_the_start(second: dict[str, Any], complaint: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=complaint):
        msgspec.convert({"providers": [row(), second]}, Providers)
