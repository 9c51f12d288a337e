"""Jepsen's total-queue sets over a history, the sink's copies and the record. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Copy", "Element", "Verdict", "check"]

_TERMINAL_ELSE = ("bounced", "expired", "cancelled", "suppressed")


@dataclass(frozen=True, slots=True)
class Copy:
    """One message-recipient that arrived complete at a sink."""

    key: str
    message_id: str


@dataclass(frozen=True, slots=True)
class Element:
    """What the record says of one recipient: its state, and how many attempts were in doubt."""

    state: str
    in_doubt: int


@dataclass(slots=True)
class Verdict:
    """Each list names keys that break an invariant; `recovered` and the counts are for reading."""

    lost: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    copies_unlisted: list[str] = field(default_factory=list)
    copies_differ: list[str] = field(default_factory=list)
    two_ids: list[str] = field(default_factory=list)
    refused_delivered: list[str] = field(default_factory=list)
    recovered: int = 0
    attempted: int = 0
    acknowledged: int = 0
    delivered: int = 0
    duplicates: int = 0

    @property
    def good(self) -> bool:
        return not (
            self.lost
            or self.unexpected
            or self.copies_unlisted
            or self.copies_differ
            or self.two_ids
            or self.refused_delivered
        )


def check(
    events: Iterable[Mapping[str, Any]], copies: Sequence[Copy], record: Mapping[str, Element]
) -> Verdict:
    """`record` holds at least the acknowledged keys that the sinks lack or hold twice."""
    attempted: set[str] = set()
    refused: set[str] = set()
    unsure: set[str] = set()
    ids: defaultdict[str, set[str]] = defaultdict(set)
    for event in events:
        if event["kind"] == "invoke":
            attempted.add(event["key"])
        elif event["kind"] == "ok":
            ids[event["key"]].add(event["id"])
        elif event["kind"] == "fail":
            refused.add(event["key"])
        elif event["kind"] == "info":
            unsure.add(event["key"])
    count = Counter(c.key for c in copies)
    names: defaultdict[str, set[str]] = defaultdict(set)
    for copy in copies:
        names[copy.key].add(copy.message_id)
    verdict = Verdict(
        attempted=len(attempted),
        acknowledged=len(ids),
        delivered=len(count),
        duplicates=sum(count.values()) - len(count),
        recovered=len((set(count) & attempted) - set(ids)),
    )
    nothing = Element("", 0)
    for key in sorted(ids):
        if not count[key] and record.get(key, nothing).state not in _TERMINAL_ELSE:
            verdict.lost.append(key)
    verdict.unexpected = sorted(set(count) - attempted)
    twice = sorted(k for k, n in count.items() if n > 1)
    verdict.copies_unlisted = [k for k in twice if count[k] - 1 > record.get(k, nothing).in_doubt]
    verdict.copies_differ = [k for k in twice if len(names[k]) > 1]
    verdict.two_ids = sorted(k for k, found in ids.items() if len(found) > 1)
    verdict.refused_delivered = sorted((refused - unsure - set(ids)) & set(count))
    return verdict
