"""The page on checking the books knows every finding, and what is done about it."""

import re
from pathlib import Path

from everpost.ledger import KINDS

PAGE = Path(__file__).parents[2] / "docs" / "operate" / "verify.md"


def test_a_finding_that_the_page_does_not_explain() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (I\d+) \| ([^|]+) \| ([^|]+) \| [^|]+ \|$", PAGE.read_text(), re.MULTILINE
    )
    assert [name for name, *_ in rows] == list(KINDS)
    above = ""
    for name, invariant, means, repair in rows:
        kind = KINDS[name]
        assert (invariant, means) == (kind.invariant, kind.means)
        done = above if repair == "as above" else repair
        assert (done == "no") is (kind.repair == ""), name
        above = done
