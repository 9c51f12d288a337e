"""Goes through the books page by page. Doing; `conservation` decides."""

from collections.abc import Callable

import msgspec

from everpost.ids import Id
from everpost.ledger.conservation import judge, judge_parts, judge_totals
from everpost.ledger.findings import Finding, Findings
from everpost.store.auditing import AUDIT_PAGE, Auditing, Totals
from everpost.store.interface import StoreCorrupt

__all__ = ["FIRST", "Checked", "check_store", "unreadable", "walk"]

FIRST: Id = b""
"""Before every id."""

_PARTS_PAGE = 64


class Checked(msgspec.Struct, gc=False):
    """How much was looked at. `complete`: all that was to be."""

    messages: int = 0
    recipients: int = 0
    events: int = 0
    attempts: int = 0
    contents: int = 0
    parts: int = 0
    complete: bool = True

    def merge(self, other: "Checked") -> None:
        self.messages += other.messages
        self.recipients += other.recipients
        self.events += other.events
        self.attempts += other.attempts
        self.contents += other.contents
        self.parts += other.parts
        self.complete = self.complete and other.complete


async def walk(
    store: Auditing,
    findings: Findings,
    *,
    after: Id = FIRST,
    upto: Id | None = None,
    limit: int = AUDIT_PAGE,
    each: Callable[[int], None] = lambda _: None,
) -> Checked:
    """Judge the messages above `after`, up to and with `upto`. `each` hears of so many more."""
    checked = Checked()
    at: Id | None = after
    while at is not None and at != upto:
        try:
            page = await store.audit_page(at, limit=limit, upto=upto)
        except StoreCorrupt as error:
            findings.add([unreadable(error, what="messages")])
            checked.complete = False
            break
        findings.add(judge(page))
        checked.messages += len(page.messages)
        checked.recipients += len(page.recipients)
        checked.events += len(page.events)
        checked.attempts += len(page.attempts)
        checked.contents += len(page.contents)
        each(len(page.messages))
        at = page.upto
    return checked


async def walk_parts(store: Auditing, findings: Findings) -> Checked:
    """Judge the large parts."""
    checked = Checked()
    at: int | None = 0
    try:
        while at is not None:
            page = await store.audit_parts(at, limit=_PARTS_PAGE)
            findings.add(judge_parts(page))
            checked.parts += len(page.parts)
            at = page.next
    except StoreCorrupt as error:
        findings.add([unreadable(error, what="attachments")])
        checked.complete = False
    return checked


async def check_store(
    store: Auditing, findings: Findings, *, engine: bool = True
) -> tuple[Checked, Totals | None]:
    """All that is not a page of messages: parts, the engine's own check, tallies. Totals None: they
    could not be read."""
    checked = await walk_parts(store, findings)
    totals: Totals | None = None
    try:
        if engine:
            findings.add(Finding("store_damaged", said) for said in await store.engine_check())
        totals = await store.audit_totals()
        findings.add(judge_totals(totals))
    except StoreCorrupt as error:
        findings.add([unreadable(error, what="totals")])
        checked.complete = False
    return checked, totals


def unreadable(error: StoreCorrupt, *, what: str) -> Finding:
    """The engine refuses: what is behind it was not checked."""
    return Finding("store_damaged", f"not all {what} could be read: {error}")
