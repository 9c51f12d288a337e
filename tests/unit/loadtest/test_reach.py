"""Whom a load test may be aimed at."""

import pytest

from everpost.loadtest.reach import Forbidden, check_target


@pytest.mark.parametrize(
    "addresses",
    [
        ["192.0.2.1"],
        ["2001:db8::1"],
        ["127.0.0.1", "192.0.2.1"],
        ["::ffff:192.0.2.1"],
        ["fe80::1%eth0"],
        ["0.0.0.0"],
        ["10.0.0.1"],
    ],
)
def test_a_load_test_is_aimed_at_somebody_else(addresses: list[str]) -> None:
    with pytest.raises(Forbidden, match="--i-own-this-server"):
        check_target("host.test", addresses, owned=False)
    check_target("host.test", addresses, owned=True)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_refused(address: str) -> None:
    check_target("localhost", [address], owned=False)
