"""Jepsen's total-queue sets over a history, the sinks' copies and the record; and what else must
hold. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.operations import DOMAIN, body_hash, message_of
from tests.chaos.record import Element, Recorded
from tests.chaos.sink import REFUSED, Taken

__all__ = ["BROKEN", "Verdict", "check"]

BROKEN: Mapping[str, str] = {
    "lost": "I1: acknowledged, and neither delivered nor ended otherwise",
    "unended": "I1: still queued or claimed after the drain",
    "wrong_end": "I2: ended, or held, in a way that nothing explains",
    "unexpected": "I3: delivered or recorded, and nobody sent it",
    "copies_unlisted": "I4: more copies than deliveries and attempts in doubt in the record",
    "copies_differ": "I4: a copy whose Message-ID is not the record's, or not the other copy's",
    "policy_differs": "I4: the record has another policy for doubts than the one that was sent",
    "against_policy": "I4: sent on after an attempt in doubt, and its policy says hold or fail",
    "phantom_delivery": "I6: the record says delivered, and no sink has it, or none answered 250",
    "two_ids": "I7: one key was answered with two ids",
    "sound_refused": "I7: refused for good, though it is sound, or was acknowledged under its key",
    "accepted_twice": "I7: one message was recorded twice",
    "wrong_id": "I7: the id that was answered is another message's, or nobody's",
    "refused_delivered": "I9: refused for certain, and delivered",
    "refused_recorded": "I9: refused for certain, and recorded",
    "invalid_accepted": "I9: acknowledged or recorded, though it cannot be sent",
    "partial": "I9: a batch, or the recipients of a message, recorded in part",
    "body_differs": "I10: the body that arrived is not the one that was sent",
    "early": "I12: sent before its time",
    "after_cancel": "I14: sent after its cancel was acknowledged",
    "cancel_undone": "I14: its cancel was acknowledged, and it ended otherwise",
    "crashed": "I16: answered with 500",
    "unreadable": "I1: acknowledged, and then not found by GET",
}
_SLACK_S = 0.005
_LATEST_S = 0.001
_INVALID = "invalid_batch"
_NOT_NOW = (408, 425, 429)
"""Beside all from 500 on: nothing is wrong with the request, it may be repeated."""


@dataclass(slots=True)
class Verdict:
    """`broken`: by the names of `BROKEN`, what breaks them (elements, messages, keys or ids). The
    rest is for reading: sets and their sizes, recipients unless it says otherwise; `duplicates` are
    the elements with more than one copy, each with its copies and attempts in doubt."""

    broken: dict[str, list[str]] = field(default_factory=dict)
    operations: int = 0
    messages: int = 0
    attempted: int = 0
    acknowledged: int = 0
    refused: int = 0
    delivered: int = 0
    copies: int = 0
    recovered: int = 0
    in_doubt: int = 0
    duplicates: dict[str, tuple[int, int]] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    answered: int = 0

    @property
    def good(self) -> bool:
        return not self.broken


@dataclass(slots=True)
class _Done:
    """What the history says of one operation that sends."""

    kind: str
    messages: list[list[str]]
    policies: list[str]
    due: float
    tries: int = 1
    ids: list[list[str]] = field(default_factory=list)
    fails: int = 0
    sound_refused: bool = False

    def fail(self, status: int) -> None:
        """What is for later cannot be taken any more when its hour is past."""
        self.fails += 1
        for_good = 400 <= status < 500 and status not in _NOT_NOW
        may_be_late = self.kind == "later" and not self.ids
        if for_good and self.kind != _INVALID and not may_be_late:
            self.sound_refused = True

    @property
    def refused(self) -> bool:
        """Each try was answered, and none with success."""
        return not self.ids and self.fails == self.tries


class _Books:
    """The history, sorted out."""

    def __init__(self, events: Iterable[Mapping[str, Any]]) -> None:
        self.operations: dict[str, _Done] = {}
        self.cancels: set[str] = set()
        self.cancelled: dict[str, float] = {}
        self.unreadable: list[str] = []
        self.flipped: set[str] = set()
        self.released: set[str] = set()
        self.crashed: set[str] = set()
        for event in events:
            kind, op = event["kind"], event.get("op")
            if kind == "fail" and event.get("status") == 500:
                self.crashed.add(event.get("key", event.get("of")))
            if kind == "flip":
                self.flipped.update(event["elements"])
            elif kind == "release":
                self.released.add(event["of"])
            elif op == "get":
                if kind == "fail" and event["status"] == 404:
                    self.unreadable.append(event["of"])
            elif op == "cancel":
                self.cancels.add(event["of"])
                if kind == "ok":
                    self.cancelled[event["of"]] = event["at"]
                elif kind == "fail" and 400 <= event.get("status", 0) < 500:
                    self.cancels.discard(event["of"])
            elif kind == "invoke" and "messages" in event:
                messages = [list(each) for each in event["messages"]]
                policies = [str(each) for each in event.get("policies", ())]
                due = event.get("due", 0.0)
                self.operations[event["key"]] = _Done(str(op), messages, policies, due)
            elif (done := self.operations.get(event.get("key", ""))) is not None:
                done.tries += kind == "invoke"
                if kind == "fail":
                    done.fail(event.get("status", 0))
                if kind == "ok":
                    done.ids.append(event["ids"])


def check(
    events: Iterable[Mapping[str, Any]], copies: Sequence[Taken], record: Sequence[Recorded]
) -> Verdict:
    """`events` are the history's, `copies` all sinks' together."""
    return _Check(_Books(events), copies, record).verdict()


class _Check:
    def __init__(self, books: _Books, copies: Sequence[Taken], record: Sequence[Recorded]) -> None:
        self._books = books
        self._copies = copies
        self._broken: defaultdict[str, set[str]] = defaultdict(set)
        self._count = Counter(to for copy in copies for to in _locals(copy))
        self._messages: defaultdict[str, list[Recorded]] = defaultdict(list)
        self._elements: dict[str, tuple[Recorded, Element]] = {}
        for each in record:
            self._messages[each.name].append(each)
            self._elements.update({name: (each, e) for name, e in each.elements.items()})
        self._by_id = {each.id: each.name for each in record}
        self._known = {e for d in books.operations.values() for m in d.messages for e in m}
        self._answered = {to for copy in copies if copy.answer for to in _locals(copy)}

    def verdict(self) -> Verdict:
        self._operations()
        self._record()
        self._sinks()
        self._broken["unreadable"].update(self._books.unreadable)
        self._broken["crashed"].update(self._books.crashed)
        return self._summary()

    # -- each operation ----------------------------------------------------------------------------

    def _operations(self) -> None:
        for name, done in self._books.operations.items():
            names = [message_of(elements[0]) for elements in done.messages]
            present = [n for n in names if n in self._messages]
            if present and len(present) < len(names):
                self._broken["partial"].add(name)
            for each, elements in zip(names, done.messages, strict=True):
                self._message(each, elements)
            for each, policy in zip(names, done.policies, strict=False):
                if any(found.policy != policy for found in self._messages.get(each, ())):
                    self._broken["policy_differs"].add(each)
            if done.kind == _INVALID and (present or done.ids):
                self._broken["invalid_accepted"].add(name)
            if done.sound_refused:
                self._broken["sound_refused"].add(name)
            if done.refused:
                self._broken["refused_recorded"].update(present)
                sent = [e for elements in done.messages for e in elements if self._count[e]]
                self._broken["refused_delivered"].update(sent)
            if len({tuple(ids) for ids in done.ids}) > 1:
                self._broken["two_ids"].add(name)
            for ids in done.ids:
                self._acknowledged(name, names, ids)
            if done.ids:
                missing = {e for m in done.messages for e in m} - set(self._elements)
                self._broken["lost"].update(missing)

    def _message(self, name: str, elements: Sequence[str]) -> None:
        found = self._messages.get(name, [])
        if len(found) > 1:
            self._broken["accepted_twice"].add(name)
        if any(set(each.elements) != set(elements) for each in found):
            self._broken["partial"].add(name)

    def _acknowledged(self, operation: str, names: Sequence[str], ids: Sequence[str]) -> None:
        if [self._by_id.get(each) for each in ids] != list(names):
            self._broken["wrong_id"].update(ids or [operation])

    # -- each recipient in the record --------------------------------------------------------------

    def _record(self) -> None:
        for name, (message, element) in self._elements.items():
            copies = self._count[name]
            delivered = element.state == "delivered"
            if name not in self._known:
                self._broken["unexpected"].add(name)
                continue
            if delivered and name not in self._answered:
                self._broken["phantom_delivery"].add(name)
            if delivered and not copies:
                self._broken["lost"].add(name)
            final = message.policy in ("hold", "fail") and message.id not in self._books.released
            if final and element.in_doubt + delivered > 1:
                self._broken["against_policy"].add(name)
            operation = message.name.rpartition(".")[0]
            if operation in self._books.cancelled and element.state != "cancelled":
                self._broken["cancel_undone"].add(name)
            if copies > delivered + element.in_doubt:
                self._broken["copies_unlisted"].add(name)
            if element.state in ("queued", "claimed"):
                self._broken["unended"].add(name)
            elif not self._explained(name, message, element):
                self._broken["wrong_end"].add(name)
            due, first = message.scheduled_ms, element.first_ms
            if due is not None and first is not None and first < due:
                self._broken["early"].add(name)

    def _explained(self, name: str, message: Recorded, element: Element) -> bool:
        match element.state:
            case "delivered":
                return True
            case "bounced":
                return name.startswith(REFUSED)
            case "cancelled":
                return message.name.rpartition(".")[0] in self._books.cancels
            case "failed":
                return message.policy == "fail" and element.in_doubt > 0
            case "held" if element.reason == "in_doubt":
                return message.policy == "hold" and element.in_doubt > 0
            case "held":
                return element.reason == "damaged" and name in self._books.flipped
            case _:
                return False

    # -- each copy in the sinks --------------------------------------------------------------------

    def _sinks(self) -> None:
        names: defaultdict[str, set[str]] = defaultdict(set)
        for copy in self._copies:
            for element in _locals(copy):
                if element not in self._known:
                    self._broken["unexpected"].add(element)
                    continue
                message = message_of(element)
                names[message].add(copy.message_id)
                if copy.body != body_hash(message):
                    self._broken["body_differs"].add(element)
                operation = message.rpartition(".")[0]
                due = self._books.operations[operation].due
                if due and copy.at < due - _SLACK_S:
                    self._broken["early"].add(element)
                ended = self._books.cancelled.get(operation)
                if ended is not None and copy.at > ended + _LATEST_S:
                    self._broken["after_cancel"].add(element)
        for message, ids in names.items():
            recorded = {each.message_id for each in self._messages.get(message, ())}
            if len(ids) > 1 or (recorded and not ids <= recorded):
                self._broken["copies_differ"].add(message)

    # -- the sum -----------------------------------------------------------------------------------

    def _summary(self) -> Verdict:
        done = self._books.operations.values()
        attempted = {e for d in done for m in d.messages for e in m}
        acknowledged = {e for d in done if d.ids for m in d.messages for e in m}
        ends = Counter(
            f"{e.state}: {e.reason}" if e.state == "held" else e.state
            for _, e in self._elements.values()
        )
        doubts = {name: e.in_doubt for name, (_, e) in self._elements.items()}
        return Verdict(
            broken={k: sorted(v) for k, v in self._broken.items() if v},
            operations=len(self._books.operations),
            messages=sum(len(d.messages) for d in done),
            attempted=len(attempted),
            acknowledged=len(acknowledged),
            refused=sum(len(m) for d in done if d.refused for m in d.messages),
            delivered=len(self._count),
            copies=self._count.total(),
            recovered=len((set(self._count) & attempted) - acknowledged),
            in_doubt=sum(doubts.values()),
            duplicates={e: (n, doubts.get(e, 0)) for e, n in sorted(self._count.items()) if n > 1},
            ends=dict(ends),
            damaged=sorted(n for n, (_, e) in self._elements.items() if e.reason == "damaged"),
            answered=sum(len(d.messages) for d in done if d.ids),
        )


def _locals(copy: Taken) -> list[str]:
    """Elements; an address that lies elsewhere is one that nobody sent to."""
    return [to.removesuffix(f"@{DOMAIN}") for to in copy.recipients]
