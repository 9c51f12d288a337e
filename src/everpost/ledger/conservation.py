"""The judge: a page of facts in, findings out. Pure; `model.states` is the law.

Claiming and handing back leave no event, so what the events of a recipient lead to is `queued`
where it may just as well be claimed. One cause should be one finding: where a timeline has a gap,
what follows from its events is not judged.
"""

from collections.abc import Iterator, Mapping, Sequence

from everpost.ids import Id
from everpost.ledger.findings import Finding
from everpost.model.states import TERMINAL, TRANSITIONS, InDoubtPolicy, State, Verb
from everpost.store.auditing import (
    ACCEPTED,
    AttemptFacts,
    AuditPage,
    ContentFacts,
    EventFacts,
    MessageFacts,
    PartsPage,
    RecipientFacts,
    Totals,
)

__all__ = ["differences", "judge", "judge_parts", "judge_totals"]

_SETTLED = (Verb.SETTLE, Verb.RESCUE)
_DRAWN_BY: Mapping[str, tuple[tuple[Verb, ...], tuple[State, ...]]] = {
    "delivered": (_SETTLED, (State.DELIVERED,)),
    "bounced": (_SETTLED, (State.BOUNCED,)),
    "failed": (_SETTLED, (State.FAILED,)),
    "expired": (_SETTLED, (State.EXPIRED,)),
    "suppressed": (_SETTLED, (State.SUPPRESSED,)),
    "deferred": (_SETTLED, (State.QUEUED,)),
    "abandoned": (_SETTLED, (State.QUEUED,)),
    "in_doubt": (_SETTLED, (State.QUEUED, State.HELD, State.FAILED)),
    "held": ((*_SETTLED, Verb.HOLD), (State.HELD,)),
    "released": ((Verb.RELEASE,), (State.QUEUED,)),
    "cancelled": ((Verb.CANCEL,), (State.CANCELLED,)),
}
"""By event of a recipient, the verbs that write it and the states that it may lead to."""

_TARGETS: Mapping[str, State | None] = {
    type_: targets[0] if len(targets) == 1 else None for type_, (_, targets) in _DRAWN_BY.items()
}
_MAY_FOLLOW = frozenset(
    (State.QUEUED if t.source is State.CLAIMED else t.source, type_, t.target)
    for type_, (verbs, targets) in _DRAWN_BY.items()
    for t in TRANSITIONS
    if t.verb in verbs and t.target in targets
)
_WHOLE = frozenset({"accepted", "rescheduled"})
_STATES: Mapping[str, State] = {state.value: state for state in State}


class _Book:
    """All rows of one message."""

    __slots__ = ("attempts", "contents", "events", "id", "messages", "recipients")

    def __init__(self, id_: Id) -> None:
        self.id = id_
        self.messages: list[MessageFacts] = []
        self.contents: list[ContentFacts] = []
        self.recipients: list[RecipientFacts] = []
        self.events: list[EventFacts] = []
        self.attempts: list[AttemptFacts] = []

    @property
    def project(self) -> int | None:
        rows = self.messages or self.recipients or self.contents
        return rows[0].project if rows else None

    def finding(
        self, kind: str, text: str, *, recipient: int | None = None, mends: bool = False
    ) -> Finding:
        return Finding(kind, text, self.project, self.id, recipient, mends)


def judge(page: AuditPage) -> list[Finding]:
    """What is wrong with the rows of a page, message by message."""
    found: list[Finding] = []
    for book in _books(page):
        if not book.messages and not book.recipients:
            found += _orphans(book)
            continue
        found += _of_message(book)
        for row in book.recipients:
            found += _of_recipient(book, row, page.workers)
        found += _of_timeline(book)
    return found


def _books(page: AuditPage) -> list[_Book]:
    books: dict[Id, _Book] = {}

    def book(id_: Id) -> _Book:
        found = books.get(id_)
        if found is None:
            found = books[id_] = _Book(id_)
        return found

    for message in page.messages:
        book(message.id).messages.append(message)
    for content in page.contents:
        book(content.id).contents.append(content)
    for recipient in page.recipients:
        book(recipient.message).recipients.append(recipient)
    for event in page.events:
        book(event.message).events.append(event)
    for attempt in page.attempts:
        book(attempt.message).attempts.append(attempt)
    return list(books.values())


# --- a message and its content --------------------------------------------------------------------


def _orphans(book: _Book) -> Iterator[Finding]:
    for kind, noun, rows in (
        ("orphan_content", "content", book.contents),
        ("orphan_events", "events", book.events),
        ("orphan_attempts", "attempts", book.attempts),
    ):
        if rows:
            text = f"{len(rows)} rows of {noun}, and neither a message nor recipients"
            yield book.finding(kind, text, mends=True)


def _of_message(book: _Book) -> Iterator[Finding]:
    if (
        len(book.messages) == len(book.contents) == 1
        and book.contents[0].sound
        and book.messages[0].content_there
    ):
        return
    queued = _any_queued(book)
    if not book.messages:
        text = f"{len(book.recipients)} recipients of a message that has no row"
        yield book.finding("message_missing", text, mends=queued)
    elif len(book.messages) > 1:
        yield book.finding("message_twice", f"{len(book.messages)} messages have this id")
    elif not book.messages[0].content_there or (
        book.messages[0].content == book.id and not book.contents
    ):
        yield book.finding("content_missing", "its content is not stored", mends=queued)
    if any(not content.sound for content in book.contents):
        text = "its stored content does not match its checksum"
        yield book.finding("content_damaged", text, mends=queued)


def _any_queued(book: _Book) -> bool:
    return any(row.state == State.QUEUED for row in book.recipients)


# --- a recipient's row by itself ------------------------------------------------------------------


def _of_recipient(book: _Book, row: RecipientFacts, workers: frozenset[Id]) -> Iterator[Finding]:
    state = _STATES.get(row.state)
    if state is None:
        yield book.finding("state_unknown", f"its state is {row.state!r}", recipient=row.n)
        return
    if row.sound is False:
        yield book.finding(
            "recipient_damaged",
            "its row does not match its checksum",
            recipient=row.n,
            mends=state is State.QUEUED,
        )
    if state is State.CLAIMED:
        yield from _of_claim(book, row, workers)
    elif row.owner is not None or row.deadline is not None:
        text = f"it is {row.state} and has an owner or a deadline"
        yield book.finding("owner_left", text, recipient=row.n)
    if (row.settled_at is None) is (state in TERMINAL):
        has = "no" if row.settled_at is None else "a"
        text = f"it is {row.state} and has {has} time of its end"
        yield book.finding("end_undated", text, recipient=row.n)
    if state is State.QUEUED and row.due not in (0, 1):
        text = f"its mark for being due is {row.due}"
        yield book.finding("due_impossible", text, recipient=row.n, mends=True)


def _of_claim(book: _Book, row: RecipientFacts, workers: frozenset[Id]) -> Iterator[Finding]:
    if row.owner is None or row.deadline is None:
        lacks = "owner" if row.owner is None else "deadline"
        yield book.finding(
            "claim_incomplete", f"it is claimed without {lacks}", recipient=row.n, mends=True
        )
    elif row.owner not in workers:
        text = "it is claimed, and its owner is no process that is known"
        yield book.finding("claim_unowned", text, recipient=row.n, mends=True)


# --- a message's timeline against its rows --------------------------------------------------------


def _of_timeline(book: _Book) -> Iterator[Finding]:
    gap = _gap(book.events)
    if gap is not None:
        yield book.finding("event_gap", gap)
    faults = list(_unreadable(book))
    yield from faults
    if gap is not None or faults:
        return
    said = book.events[0].said
    accepted = said.recipients if said is not None else None
    assert accepted is not None  # else it would be unreadable
    numbers = {row.n for row in book.recipients}
    for n in range(1, accepted + 1):
        if n not in numbers:
            yield book.finding("recipient_missing", "it was accepted and has no row", recipient=n)
    by_recipient: dict[int, list[EventFacts]] = {}
    for event in book.events:
        if event.n is not None:
            by_recipient.setdefault(event.n, []).append(event)
    attempts: dict[int, list[int]] = {}
    for attempt in book.attempts:
        attempts.setdefault(attempt.n, []).append(attempt.attempt)
    for row in book.recipients:
        if not 1 <= row.n <= accepted:
            text = f"only {accepted} recipients were accepted"
            yield book.finding("recipient_extra", text, recipient=row.n)
            continue
        events = by_recipient.get(row.n, [])
        yield from _replayed(book, row, events)
        yield from _attempts(book, row, events, attempts.get(row.n, []))


def _gap(events: Sequence[EventFacts]) -> str | None:
    if not events:
        return "it has no events"
    for expected, event in enumerate(events, 1):
        if event.seq != expected:
            return (
                f"event {expected} of its timeline is followed by a hole or a repeat: "
                + ", ".join(str(each.seq) for each in events[:20])
            )
    return None


def _unreadable(book: _Book) -> Iterator[Finding]:
    """Events that nothing can be concluded from."""
    for event in book.events:
        if event.said is None:
            text = f"event {event.seq} ({event.type}) has fields that cannot be read"
            yield book.finding("event_unreadable", text, recipient=event.n)
        elif (event.n is None) is not (event.type in _WHOLE) or (
            event.n is not None and event.type not in _DRAWN_BY
        ):
            text = f"event {event.seq} is of the type {event.type!r}, which is not known"
            yield book.finding("event_unknown", text, recipient=event.n)
        elif (event.type == "accepted") is not (event.seq == 1):
            text = f"event {event.seq} is {event.type}: a timeline begins with `accepted`, once"
            yield book.finding("event_order", text)
        elif event.seq == 1 and event.said.recipients is None:
            text = "event 1 (accepted) does not say how many recipients there are"
            yield book.finding("event_unreadable", text)


def _target(event: EventFacts) -> State:
    """Where an event leads; `in_doubt` by what it says (dispatch.settle)."""
    target = _TARGETS[event.type]
    if target is not None:
        return target
    said = event.said
    if said is not None and said.next_attempt_at is not None:
        return State.QUEUED
    if said is not None and said.policy == InDoubtPolicy.HOLD:
        return State.HELD
    return State.FAILED


def _replayed(book: _Book, row: RecipientFacts, events: Sequence[EventFacts]) -> Iterator[Finding]:
    now = State.QUEUED
    for event in events:
        target = _target(event)
        if (now, event.type, target) not in _MAY_FOLLOW:
            kind = "two_ends" if now in TERMINAL and target in TERMINAL else "event_order"
            text = f"event {event.seq} is {event.type}, after it was {now.value}"
            yield book.finding(kind, text, recipient=row.n)
            return
        now = target
    stored = _STATES.get(row.state)
    if stored is None or stored is now or (now is State.QUEUED and stored is State.CLAIMED):
        return
    text = f"it is {row.state}, and its events lead to {now.value}"
    yield book.finding("state_differs", text, recipient=row.n)


def _attempts(
    book: _Book, row: RecipientFacts, events: Sequence[EventFacts], numbers: Sequence[int]
) -> Iterator[Finding]:
    told = [e.said.attempt for e in events if e.said is not None and e.said.attempt is not None]
    if len(numbers) == len(told) == row.attempts == (numbers[-1] if numbers else 0) and all(
        at == attempt == number
        for at, (attempt, number) in enumerate(zip(numbers, told, strict=True), 1)
    ):
        return
    text = (
        f"its row counts {row.attempts} attempts, {len(numbers)} are kept"
        f" ({', '.join(map(str, numbers[:20]))}), and events tell of {len(told)}"
        f" ({', '.join(map(str, told[:20]))})"
    )
    yield book.finding("attempts_differ", text, recipient=row.n)


# --- sums -----------------------------------------------------------------------------------------


def differences(totals: Totals) -> dict[tuple[int, str], int]:
    """What must be added to the tallies, by (project, state), to make them the number of rows."""
    rows: dict[tuple[int, str], int] = dict(totals.rows)
    for (project, _), n in totals.rows.items():
        rows[project, ACCEPTED] = rows.get((project, ACCEPTED), 0) + n
    found = {}
    for key in sorted(rows.keys() | totals.tallies.keys()):
        difference = rows.get(key, 0) - totals.tallies.get(key, 0)
        if difference:
            found[key] = difference
    return found


def judge_totals(totals: Totals) -> list[Finding]:
    """The tallies, which the metrics show, against the rows."""
    return [
        Finding(
            "tally_off",
            f"the tally of {state} is {totals.tallies.get((project, state), 0)}, "
            f"which is {abs(off)} too {'few' if off > 0 else 'many'}",
            project=project,
            mends=True,
        )
        for (project, state), off in differences(totals).items()
    ]


def judge_parts(page: PartsPage) -> list[Finding]:
    """Stored attachments against their checksums."""
    return [
        Finding(
            "part_damaged",
            f"attachment {part.hash.hex()} of day {part.day} does not match its checksum",
            project=part.project,
        )
        for part in page.parts
        if not part.sound
    ]
