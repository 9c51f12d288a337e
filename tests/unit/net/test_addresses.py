"""No address that a stranger publishes leads back into our own networks (S20)."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everpost.net.addresses import by_family, family, is_public


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.1", "0177.0.0.1", "2130706433", "0x7f.1", "0", "0.0.0.0", "10.0.0.1",
        "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "100.127.255.255",
        "169.254.169.254", "192.0.0.8", "192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1",
        "192.88.99.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1",
        "64:ff9b::10.0.0.1", "64:ff9b:1::808:808", "2002:7f00:1::", "2002:808:808::1",
        "2001::1", "2001:db8::1", "3fff::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0",
        "2606:4700::1%eth0", "fec0::1", "ff02::1", "100::1", "4000::1",
        "localhost", "", "①②⑦.⓪.⓪.①", "[::1]", "8.8.8.8 ",
    ],
)  # fmt: skip
def test_address_that_is_not_in_the_internet_is_refused(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "100.63.255.255", "100.128.0.1", "172.32.0.1", "223.255.255.255", "2606:4700::1",
     "2001:200::1", "64:ff9b::808:808"],
)  # fmt: skip
def test_public_address_is_let_through(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses())
def test_whatever_python_calls_private_is_refused(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """And more than that: Python lets 6to4, multicast and site-local addresses pass."""
    if not address.is_global or address.is_multicast:
        assert not is_public(str(address)) or address in ipaddress.ip_network("64:ff9b::/96")


def test_families_take_turns_without_repetition() -> None:
    assert by_family(["2001:db8::1", "2001:db8::2", "192.0.2.1", "2001:db8::1"]) == [
        "2001:db8::1", "192.0.2.1", "2001:db8::2",
    ]  # fmt: skip
    assert by_family([]) == []
    assert (family("192.0.2.1"), family("::1")) == (4, 6)
