"""F50: children, all processes and the power go down in a seeded order while clients send, and a
process is paused. Every acknowledged message is delivered, and a second copy exists only where the
record says that an attempt was in doubt.

Invariants: I1, I3, I4, I7, I8, I9.
"""

from pathlib import Path

from tests.chaos.nemesis import FAULTS
from tests.chaos.run import Plan, run


def test_a_seeded_mix_of_faults_loses_nothing(tmp_path: Path) -> None:
    result = run(Plan(seed=7, seconds=12, faults=FAULTS), tmp_path)
    assert result.good, result
    assert result.verdict.acknowledged > 200
    assert result.kills >= 3
    assert result.cuts >= 1
