"""The books: whether everything that was accepted is accounted for, and what may be mended.

Promises: the judge is pure and sees only facts of one snapshot, so traffic makes no false findings;
a repair destroys nothing, guesses nothing, and is in the audit table. Reading the engine's files
must not live here, nor sending or accepting.
"""

from everpost.ledger.conservation import differences, judge, judge_parts, judge_totals
from everpost.ledger.findings import KINDS, Finding, Findings, Kind
from everpost.ledger.patrol import Patrol
from everpost.ledger.recheck import Recheck
from everpost.ledger.repair import Repaired, Repairs, repair
from everpost.ledger.walk import Checked, check_store, walk

__all__ = [
    "KINDS",
    "Checked",
    "Finding",
    "Findings",
    "Kind",
    "Patrol",
    "Recheck",
    "Repaired",
    "Repairs",
    "check_store",
    "differences",
    "judge",
    "judge_parts",
    "judge_totals",
    "repair",
    "walk",
]
