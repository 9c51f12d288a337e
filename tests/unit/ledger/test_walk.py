"""A store whose pages cannot be read is reported for what it is, whatever it was asked."""

import asyncio
from pathlib import Path

from everpost.ledger import Findings, check_store
from everpost.store.auditing import PartsPage, Totals
from everpost.store.interface import StoreCorrupt
from everpost.store.sqlite import Auditor


class Torn(Auditor):
    """Its attachments or its sums cannot be read."""

    def __init__(self, *torn: str) -> None:
        super().__init__(Path("nowhere"))
        self.torn = torn

    async def audit_parts(self, after: int, *, limit: int) -> PartsPage:
        if "parts" in self.torn:
            raise StoreCorrupt("a page of parts")
        return PartsPage((), None)

    async def engine_check(self) -> tuple[str, ...]:
        return ()

    async def audit_totals(self) -> Totals:
        if "totals" in self.torn:
            raise StoreCorrupt("a page of recipients")
        return Totals({}, {})


def test_attachments_and_sums_that_cannot_be_read() -> None:
    for torn in (("parts",), ("totals",), ("parts", "totals")):
        findings = Findings()
        checked, totals = asyncio.run(check_store(Torn(*torn), findings))
        assert not checked.complete
        assert findings.counts == {"store_damaged": len(torn)}
        assert (totals is None) is ("totals" in torn)
