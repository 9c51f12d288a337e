"""Descriptors run out: they are counted all the same, and some are kept from connections."""

import os
import resource
import subprocess
import sys

import pytest

from everpost.net.descriptors import Descriptors, limit, most_connections, raise_limit


@pytest.mark.parametrize(
    ("allowed", "others", "wanted", "most"),
    [
        (20_000, 40, 2000, 2000),
        (1024, 40, 2000, 920),
        (256, 40, 2000, 152),
        (64, 40, 2000, 8),
        (64, 48, 2000, 0),
        (64, 90, 2000, 0),
        (1 << 20, 40, 10, 10),
    ],
)
def test_connections_leave_some_to_the_store(
    allowed: int, others: int, wanted: int, most: int
) -> None:
    assert most_connections(allowed=allowed, others=others, wanted=wanted) == most


def test_every_open_descriptor_is_counted() -> None:
    descriptors = Descriptors()
    before = descriptors.open()
    pair = os.pipe()
    assert descriptors.open() == before + 2
    for fd in pair:
        os.close(fd)
    assert descriptors.open() == before
    descriptors.close()


_WITHOUT = """
import os, resource
from everpost.net.descriptors import Descriptors
descriptors = Descriptors()
before = descriptors.open()
resource.setrlimit(resource.RLIMIT_NOFILE, (before, before))
try:
    os.dup(1)
except OSError:
    print(before, descriptors.open(), descriptors.open())
"""


def test_no_descriptor_is_left_to_count_them_with() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT], capture_output=True, text=True, check=True, timeout=60
    )
    before, first, second = done.stdout.split()
    assert before == first == second


_RAISES = """
import resource
from everpost.net.descriptors import raise_limit
print(raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_a_low_soft_limit_is_raised_to_the_hard_one() -> None:
    done = subprocess.run(
        ["prlimit", "--nofile=100:300", sys.executable, "-c", _RAISES],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == ["300", "300", "300"]


def test_a_limit_that_is_high_enough_stays() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        assert raise_limit() == limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] == hard
