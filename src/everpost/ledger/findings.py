"""What may be found wrong with the books, and how findings are kept."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from everpost.ids import Id, text

__all__ = ["KINDS", "Finding", "Findings", "Kind", "said"]


class Kind(msgspec.Struct, frozen=True):
    """A kind of finding: the invariant that it breaks (RELIABILITY §3.1) and what it means.
    `repair`: what `--repair` does where it is safe; empty: it is only reported."""

    invariant: str
    means: str
    repair: str = ""


KINDS: Mapping[str, Kind] = {
    "content_missing": Kind("I1", "the content of a message is not stored", "hold"),
    "content_damaged": Kind("I10", "stored content does not match its checksum", "hold"),
    "message_missing": Kind("I1", "recipients whose message has no row", "hold"),
    "message_twice": Kind("I7", "two messages have one id"),
    "recipient_missing": Kind("I1", "a recipient that was accepted has no row"),
    "recipient_extra": Kind("I3", "a recipient has a row and was never accepted"),
    "recipient_damaged": Kind("I11", "a recipient's row does not match its checksum", "hold"),
    "state_unknown": Kind("I5", "a stored state that does not exist"),
    "state_differs": Kind("I5", "the stored state is not the one that the events lead to"),
    "two_ends": Kind("I2", "a recipient ended twice"),
    "event_gap": Kind("I5", "the numbers of a timeline have a gap or a repeat"),
    "event_order": Kind("I5", "an event that cannot follow the one before"),
    "event_unknown": Kind("I5", "an event of a type that does not exist"),
    "event_unreadable": Kind("I5", "an event whose fields cannot be read"),
    "attempts_differ": Kind("I5", "attempts, their events and their number do not agree"),
    "claim_unowned": Kind("I13", "claimed by no process that is known", "take back"),
    "claim_incomplete": Kind("I13", "claimed without an owner or a deadline", "take back"),
    "owner_left": Kind("I13", "not claimed, and yet it has an owner or a deadline"),
    "end_undated": Kind("I2", "ended without the time of its end, or not ended with one"),
    "due_impossible": Kind("I1", "queued where no claim finds it", "queue"),
    "orphan_content": Kind("I20", "content of a message that is not there", "set aside"),
    "orphan_events": Kind("I20", "events of a message that is not there", "set aside"),
    "orphan_attempts": Kind("I20", "attempts of a message that is not there", "set aside"),
    "part_damaged": Kind("I10", "a stored attachment does not match its checksum"),
    "tally_off": Kind("I20", "a tally is not the number of rows", "correct"),
    "store_damaged": Kind("I8", "the engine cannot read, or does not trust, its own file"),
}
"""By name, which is stable: scripts may depend on it."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong. `mends`: `--repair` mends it."""

    kind: str
    text: str
    project: int | None = None
    message: Id | None = None
    recipient: int | None = None
    mends: bool = False

    def as_json(self) -> dict[str, Any]:
        """For people and programs."""
        return {
            "kind": self.kind,
            "invariant": KINDS[self.kind].invariant,
            "project": self.project,
            "message": None if self.message is None else text(self.message),
            "recipient": self.recipient,
            "text": self.text,
            "mends": self.mends,
        }


def said(finding: Finding) -> str:
    """One line: `state_differs 019a…-… to recipient 2: it is …`."""
    where = "" if finding.message is None else f" {text(finding.message)}"
    who = "" if finding.recipient is None else f" to recipient {finding.recipient}"
    return f"{finding.kind}{where}{who}: {finding.text}"


class Findings:
    """All are counted by kind; the first `most` of each kind are kept."""

    def __init__(self, most: int = 100) -> None:
        self._most = most
        self.counts: Counter[str] = Counter()
        self.kept: list[Finding] = []

    def add(self, found: Iterable[Finding]) -> None:
        for finding in found:
            self.counts[finding.kind] += 1
            if self.counts[finding.kind] <= self._most:
                self.kept.append(finding)

    def merge(self, other: "Findings") -> None:
        """What another walk found, over other rows."""
        before = self.counts.copy()
        for finding in other.kept:
            before[finding.kind] += 1
            if before[finding.kind] <= self._most:
                self.kept.append(finding)
        self.counts += other.counts

    @property
    def total(self) -> int:
        return self.counts.total()
