"""F50: children, all processes and the power go down in a seeded order while clients send singles,
batches and scheduled mail; a process is paused, and a mail server swallows its answers. Every
acknowledged message is delivered or ends as the record says, once, or twice where the record says
that an attempt was in doubt.

Invariants: I1, I2, I3, I4, I5, I6, I7, I8, I9, I10, I12, I14, I16, I20.
"""

from pathlib import Path

from tests.chaos import report
from tests.chaos.nemesis import FEW
from tests.chaos.run import Plan, run


def test_a_seeded_mix_of_faults_loses_nothing(tmp_path: Path) -> None:
    # Of this seed the kills come first, so that a slow machine sees them too.
    result = run(Plan(seed=236, seconds=12, faults=FEW, rate=200), tmp_path)
    assert result.good, report.summary(result)
    assert result.verdict.acknowledged > 300
    assert result.kills >= 2
    assert result.cuts >= 1
