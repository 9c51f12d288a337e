"""F71: the way to a destination is long and loses frames. Commands go together, sessions are used
again, and a deadline counts from the last progress, so that the mail flows, and a large message is
not cut while it moves.

Invariants: I2, I19.
"""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from everpost.delivery.shaping import START
from tests.support.slow_link import Link, Result

HERE = Path(__file__).parents[2]


def over(link: Link) -> Result:
    """Mail over such a link, in networks of its own (as root of a user namespace, if not of the
    machine)."""
    root = [] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--"]
    told = msgspec.json.encode(link).decode()
    done = subprocess.run(
        [*root, sys.executable, "-m", "tests.support.slow_link", told],
        cwd=HERE,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return msgspec.json.decode(done.stdout, type=Result)


@pytest.mark.long
def test_every_command_waits_a_round_trip() -> None:
    """200 ms there and back, 3 % of the frames lost. A message to four recipients costs two round
    trips (its envelope, its content), not seven, and a session carries several messages."""
    messages = 24
    result = over(Link(delay_ms=100, loss=0.03, messages=messages, recipients=4))
    assert (result.delivered, result.taken, result.reasons) == (messages, messages, [])
    assert result.dropped > 0
    assert result.sessions <= START + 5
    assert result.peak == result.sessions  # none was lost, and opened again
    assert result.round_trips <= 3 * messages + 3 * result.sessions


@pytest.mark.long
def test_large_message_is_cut_while_it_moves() -> None:
    link = Link(delay_ms=100, rate_kbit=1000, size=400_000, block_s=1.5)
    result = over(link)
    assert (result.delivered, result.sessions, result.reasons) == (1, 1, [])
    assert result.body_s > link.block_s


def test_large_message_waits_for_a_link_that_is_dead() -> None:
    result = over(Link(delay_ms=10, rate_kbit=8000, size=500_000, block_s=0.5, dies_after=200_000))
    assert (result.delivered, result.taken) == (0, 0)
    (reason,) = result.reasons
    assert "no answer in 0.5 s" in reason
    assert "body" in reason
