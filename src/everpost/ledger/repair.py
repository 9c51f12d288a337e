"""Mends what is safe to mend. Doing, and little deciding: what a finding asks for is in KINDS.

Nothing is destroyed: rows that belong to nothing are written to a file and flushed before they are
removed. Nothing is guessed: where two things contradict each other, both stay as they are.
"""

import base64
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from everpost.clock import Clock
from everpost.dispatch import RetryPolicy, damaged, doubted
from everpost.ids import Id
from everpost.ledger.conservation import differences, judge
from everpost.ledger.findings import KINDS, Finding
from everpost.ledger.walk import FIRST
from everpost.model.outcome import AttemptRecord, InDoubt
from everpost.model.states import InDoubtPolicy
from everpost.store.auditing import AUDIT_PAGE, Auditing, Mending
from everpost.store.interface import Claim, Recovery, Settlement, Sharing

__all__ = ["ACTOR", "Mendable", "Repaired", "Repairs", "decide_claim", "plan", "repair"]

ACTOR = "verify"
"""Who mends, in the audit table."""

_LEASE = "ledger.repair"
_LEASE_MS = 60_000
_SOON = RetryPolicy(first_ms=1_000, cap_ms=1_000)


class Repairs(msgspec.Struct, frozen=True):
    """What the findings of a page ask for."""

    hold: Sequence[tuple[Id, int | None]] = ()
    take_back: Sequence[tuple[Id, int]] = ()
    queue: Sequence[tuple[Id, int]] = ()
    set_aside: Sequence[Id] = ()


class Repaired(msgspec.Struct):
    """What was done: recipients held, claims taken back, recipients queued where they are found,
    rows set aside and the file that has them, tallies corrected. `busy`: another repair is under
    way, so the tallies were left alone."""

    held: int = 0
    taken_back: int = 0
    queued: int = 0
    set_aside: int = 0
    kept_in: str | None = None
    tallies: int = 0
    busy: bool = False


class Mendable(Auditing, Mending, Recovery, Sharing, Protocol):
    """What a repair needs of the store."""


def plan(found: Sequence[Finding]) -> Repairs:
    """Pure."""
    hold: dict[tuple[Id, int | None], None] = {}
    take_back: dict[tuple[Id, int], None] = {}
    queue: dict[tuple[Id, int], None] = {}
    set_aside: dict[Id, None] = {}
    for finding in found:
        message, n = finding.message, finding.recipient
        if not finding.mends or message is None:
            continue
        match KINDS[finding.kind].repair:
            case "hold":
                hold[message, n] = None
            case "take back" if n is not None:
                take_back[message, n] = None
            case "queue" if n is not None:
                queue[message, n] = None
            case "set aside":
                set_aside[message] = None
            case _:
                pass
    return Repairs(list(hold), list(take_back), list(queue), list(set_aside))


def decide_claim(claim: Claim, in_doubt: InDoubtPolicy | None, *, now: int) -> Settlement:
    """What becomes of a claim that nobody owns. Pure. Nobody knows whether it was delivered;
    `in_doubt` None: its message is gone, so it cannot be sent anyway."""
    if in_doubt is None:
        return damaged(claim, "message missing")
    return doubted(
        claim,
        InDoubt(reason="It was claimed by a process that nobody knows"),
        AttemptRecord(started_at=now, ended_at=now),
        policy=_SOON,
        in_doubt=in_doubt,
        now=now,
        jitter=0.5,
    )


async def repair(
    store: Mendable,
    *,
    owner: Id,
    clock: Clock,
    folder: Path,
    each: Callable[[int], None] = lambda _: None,
) -> Repaired:
    """Go through the whole store and mend what is safe; `folder` gets the file of rows that are set
    aside, `each` hears how many messages were seen. A live store may be mended: each repair looks
    again, in its transaction. Raises StoreError, OSError."""
    repaired, seen = Repaired(), 0
    aside = _Aside(folder, clock.now())
    try:
        at: Id | None = FIRST
        while at is not None:
            page = await store.audit_page(at, limit=AUDIT_PAGE)
            await _mend(store, plan(judge(page)), repaired, aside, clock)
            seen += len(page.messages)
            each(seen)
            at = page.upto
    finally:
        aside.close()
    repaired.kept_in = aside.name
    await _mend_tallies(store, repaired, owner)
    return repaired


async def _mend(
    store: Mendable, repairs: Repairs, repaired: Repaired, aside: "_Aside", clock: Clock
) -> None:
    if repairs.take_back:
        now = clock.now()
        settlements = [
            decide_claim(claim, in_doubt, now=now)
            for claim, in_doubt in await store.unowned(repairs.take_back)
        ]
        repaired.taken_back += await store.take_back(settlements, actor=ACTOR)
    if repairs.hold:
        repaired.held += await store.hold_damaged(repairs.hold, actor=ACTOR)
    if repairs.queue:
        repaired.queued += await store.queue_anew(repairs.queue, actor=ACTOR)
    if repairs.set_aside:
        kept_in = aside.write(await store.orphans(repairs.set_aside))
        repaired.set_aside += await store.drop_orphans(
            repairs.set_aside, actor=ACTOR, kept_in=kept_in
        )


async def _mend_tallies(store: Mendable, repaired: Repaired, owner: Id) -> None:
    """Under a lease: a difference that two add is a new difference. One that ended while the rows
    were counted may have been another's meanwhile: then its term is a new one."""
    term = await store.lead(_LEASE, owner, lease_ms=_LEASE_MS)
    if term is None:
        repaired.busy = True
        return
    try:
        off = differences(await store.audit_totals())
        if off and await store.lead(_LEASE, owner, lease_ms=_LEASE_MS) != term:
            repaired.busy = True
        elif off:
            await store.mend_tallies(off, actor=ACTOR)
            repaired.tallies = len(off)
    finally:
        await store.yield_lead(_LEASE, owner)


class _Aside:
    """A file of rows that are about to be removed, one JSON object a line; made when there is one
    to write. Bytes are written as {"base64": …}."""

    def __init__(self, folder: Path, now: int) -> None:
        self._path = folder / f"{now}.jsonl"
        self._fd = -1

    @property
    def name(self) -> str | None:
        """Its path, once there is something in it."""
        return None if self._fd == -1 else str(self._path)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Append and flush to the disk; the path."""
        if self._fd == -1:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
            self._fd = os.open(self._path, flags, 0o600)
            for folder in (self._path.parent, self._path.parent.parent):
                _sync_folder(folder)
        text = "".join(json.dumps(dict(row), default=_encoded) + "\n" for row in rows)
        data = memoryview(text.encode())
        while data:
            data = data[os.write(self._fd, data) :]
        os.fsync(self._fd)
        return str(self._path)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -2


def _encoded(value: object) -> object:
    assert isinstance(value, bytes)
    return {"base64": base64.b64encode(value).decode()}


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
