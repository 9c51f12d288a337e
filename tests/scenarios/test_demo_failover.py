"""F59: `make demo-failover`, shortened: one relay is killed, one becomes slow, one refuses every
MAIL, and each comes back. What it measures is judged here, but for what a busy machine decides: the
p99.

Invariants: I1, I4, I17, I19.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]


@pytest.mark.long
def test_relays_in_trouble_lose_or_double_mail() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "demo.failover", "--json", "--rate", "60"),
            *("--calm", "6", "--trouble", "5"),
        ],
        cwd=TOP,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode in {0, 1}, done.stderr
    figures = json.loads(done.stdout)
    assert figures["sent"] > 1_000
    assert (figures["lost"], figures["duplicates"]) == (0, 0)
    for name, weight in figures["weight"].items():
        assert abs(figures["share_before"][name] - weight) <= 0.1 * weight
    assert [one["what"] for one in figures["troubles"]] == ["killed", "slow", "refusing"]
    for one in figures["troubles"]:
        assert one["to_eject"] is not None, one
        assert one["to_eject"] <= 2, one
        assert one["to_return"] is not None, one
