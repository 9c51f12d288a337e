"""Checking a whole store, in as many processes as are of use. They are kind to the service: it has
the processor first."""

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import msgspec

from everpost.cli.checked_store import CheckedStore
from everpost.ids import Id
from everpost.ledger import Checked, Findings, check_store, walk
from everpost.ledger.walk import FIRST
from everpost.recovery.spawning import die_with_parent
from everpost.store.auditing import Totals
from everpost.store.interface import StoreError

__all__ = ["Outcome", "verify_store"]

SMALL_BYTES = 64 << 20
"""A store below this size is checked before a second process has started."""

_PIECES = 64
_FEW = 8
"""Where there are fewer pieces, there is little to check."""
_NICER = 10


class Outcome(msgspec.Struct, frozen=True):
    """What came of a check. Totals None: they could not be read."""

    checked: Checked
    findings: Findings
    totals: Totals | None
    seconds: float


_Range = tuple[CheckedStore, Id, Id | None]


def verify_store(
    store: CheckedStore,
    *,
    processes: int,
    each: Callable[[int, int], None],
    small: int = SMALL_BYTES,
) -> Outcome:
    """Check a store, live or stopped; nothing in it is changed. `each` hears of pieces done, and of
    how many. Raises StoreError when it cannot be read at all."""
    began = time.monotonic()
    bounds = asyncio.run(_bounds(store))
    alone = processes == 1 or len(bounds) < _FEW or store.is_smaller_than(small)
    outcome = _alone(store, each) if alone else _together(store, bounds, processes, each)
    return msgspec.structs.replace(outcome, seconds=time.monotonic() - began)


async def _bounds(store: CheckedStore) -> Sequence[Id]:
    auditor = store.auditor()
    try:
        return await auditor.audit_bounds(_PIECES)
    finally:
        await auditor.close()


def _alone(store: CheckedStore, each: Callable[[int, int], None]) -> Outcome:
    checked, findings = _check_range((store, FIRST, None))
    each(1, 2)
    rest, more, totals = _check_rest(store)
    each(2, 2)
    checked.merge(rest)
    findings.merge(more)
    return Outcome(checked, findings, totals, 0.0)


def _together(
    store: CheckedStore, bounds: Sequence[Id], processes: int, each: Callable[[int, int], None]
) -> Outcome:
    ends: list[Id | None] = [*bounds, None]
    ranges = [(store, *pair) for pair in zip((FIRST, *bounds), ends, strict=True)]
    checked, findings = Checked(), Findings()
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin)
    try:
        rest = pool.submit(_check_rest, store)
        pieces = [pool.submit(_check_range, span) for span in ranges]
        for done, piece in enumerate(as_completed(pieces), 1):
            some, found = piece.result()
            checked.merge(some)
            findings.merge(found)
            each(done, len(ranges) + 1)
        some, found, totals = rest.result()
        checked.merge(some)
        findings.merge(found)
        each(len(ranges) + 1, len(ranges) + 1)
    except BrokenProcessPool as error:
        raise StoreError("a process that checks it was killed; try --processes 1") from error
    finally:
        pool.shutdown(cancel_futures=True)
    return Outcome(checked, findings, totals, 0.0)


def _begin() -> None:
    """In each process, first."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process hears it, and ends us
    os.nice(_NICER)


def _check_range(span: _Range) -> tuple[Checked, Findings]:
    store, after, upto = span

    async def check() -> tuple[Checked, Findings]:
        auditor, findings = store.auditor(), Findings()
        try:
            return await walk(auditor, findings, after=after, upto=upto), findings
        finally:
            await auditor.close()

    return asyncio.run(check())


def _check_rest(store: CheckedStore) -> tuple[Checked, Findings, Totals | None]:
    async def check() -> tuple[Checked, Findings, Totals | None]:
        auditor, findings = store.auditor(), Findings()
        try:
            checked, totals = await check_store(auditor, findings)
            return checked, findings, totals
        finally:
            await auditor.close()

    return asyncio.run(check())
