"""What conformance cannot bring about: the judge's own words, and rows that later schemas hold."""

import msgspec
import pytest

from everpost.ids import Id
from everpost.ledger import KINDS, Finding, Findings, differences, judge, judge_totals
from everpost.ledger.conservation import _DRAWN_BY, _MAY_FOLLOW
from everpost.ledger.findings import said
from everpost.ledger.repair import Repairs, plan
from everpost.model.states import TRANSITIONS, State, Verb
from everpost.store.auditing import (
    AuditPage,
    ContentFacts,
    EventFacts,
    MessageFacts,
    RecipientFacts,
    Said,
    Totals,
)

ID: Id = bytes.fromhex("018f3c2e7a1b7c3d8e4f5a6b7c8d9e0f")


def page(
    *events: EventFacts, state: str = "queued", sound: bool | None = None, **row: object
) -> AuditPage:
    fields = {
        "message": ID, "n": 1, "project": 1, "state": state, "due": 1, "owner": None,
        "deadline": None, "attempts": 0, "settled_at": None, "sound": sound,
    }  # fmt: skip
    return AuditPage(
        after=b"",
        upto=None,
        messages=[MessageFacts(ID, 1, ID, True)],
        contents=[ContentFacts(ID, 1, True)],
        recipients=[msgspec.convert({**fields, **row}, RecipientFacts)],
        events=[EventFacts(ID, 1, None, "accepted", Said(recipients=1)), *events],
        attempts=[],
        workers=frozenset(),
    )


def event(seq: int, type_: str, **fields: object) -> EventFacts:
    return EventFacts(ID, seq, 1, type_, msgspec.convert(fields, Said))


@pytest.mark.parametrize(
    ("events", "state"),
    [
        (["held", "released"], "queued"),
        (["held", "released", "held", "cancelled"], "cancelled"),
        (["deferred", "abandoned", "deferred", "delivered"], "delivered"),
        (["deferred", "expired"], "expired"),
        (["suppressed"], "suppressed"),
        (["failed"], "failed"),
    ],
)
def test_a_story_that_may_be(events: list[str], state: str) -> None:
    told = page(
        *(event(at, type_) for at, type_ in enumerate(events, 2)),
        state=state,
        settled_at=None if state == "queued" else 9,
    )
    assert judge(told) == []


@pytest.mark.parametrize(
    ("events", "state", "kind"),
    [
        (["released"], "queued", "event_order"),
        (["held", "delivered"], "delivered", "event_order"),
        (["held", "deferred"], "queued", "event_order"),
        (["delivered", "released"], "queued", "event_order"),
        (["delivered", "delivered"], "delivered", "two_ends"),
        (["cancelled", "expired"], "cancelled", "two_ends"),
        (["deferred"], "held", "state_differs"),
        (["held"], "queued", "state_differs"),
    ],
)
def test_a_story_that_cannot_be(events: list[str], state: str, kind: str) -> None:
    told = page(
        *(event(at, type_) for at, type_ in enumerate(events, 2)),
        state=state,
        settled_at=None if state in ("queued", "held") else 9,
    )
    assert [finding.kind for finding in judge(told)] == [kind]


@pytest.mark.parametrize(
    ("policy", "again", "state"),
    [
        ("resend", 5, "queued"),
        ("resend", None, "failed"),
        ("hold", None, "held"),
        ("fail", None, "failed"),
    ],
)
def test_what_follows_a_doubt_is_what_its_event_says(
    policy: str, again: int | None, state: str
) -> None:
    told = page(
        event(2, "in_doubt", policy=policy, next_attempt_at=again),
        state=state,
        settled_at=9 if state == "failed" else None,
    )
    assert judge(told) == []


def test_events_follow_the_table_of_states() -> None:
    """Every arrow that leaves a trace is one that an event may draw, and the other way round."""
    traced = {
        (State.QUEUED if t.source is State.CLAIMED else t.source, t.target)
        for t in TRANSITIONS
        if t.verb not in (Verb.ACCEPT, Verb.CLAIM, Verb.RESIGN)
    }
    assert {(source, target) for source, _, target in _MAY_FOLLOW} == traced
    assert {target for _, targets in _DRAWN_BY.values() for target in targets} == {
        State(state) for state in State if state is not State.CLAIMED
    }


@pytest.mark.parametrize(("state", "mends"), [("queued", True), ("held", False)])
def test_a_row_that_does_not_match_its_checksum(state: str, mends: bool) -> None:
    told = page(*([event(2, "held")] if state == "held" else []), state=state, sound=False)
    [finding] = judge(told)
    assert (finding.kind, finding.recipient, finding.mends) == ("recipient_damaged", 1, mends)
    assert plan([finding]).hold == ([(ID, 1)] if mends else [])
    assert judge(page(sound=True)) == []


def test_a_gap_is_one_finding_and_not_five() -> None:
    told = page(event(4, "delivered", attempt=1), state="queued", attempts=3)
    assert [finding.kind for finding in judge(told)] == ["event_gap"]


def test_sums_with_states_that_do_not_exist() -> None:
    totals = Totals(tallies={(1, "accepted"): 2, (2, "held"): 1}, rows={(1, "lost"): 3})
    assert differences(totals) == {(1, "accepted"): 1, (1, "lost"): 3, (2, "held"): -1}
    assert [f.text for f in judge_totals(totals)][2] == (
        "the tally of held is 1, which is 1 too many"
    )


def test_a_flood_of_findings_is_counted_and_the_first_are_kept() -> None:
    one, other = Findings(most=3), Findings(most=3)
    one.add(Finding("two_ends", str(n), 1, ID, 1) for n in range(2))
    other.add(Finding("two_ends", str(n), 1, ID, 1) for n in range(100))
    other.add([Finding("tally_off", "x")])
    one.merge(other)
    assert one.total == 103
    assert one.counts == {"two_ends": 102, "tally_off": 1}
    assert [finding.text for finding in one.kept] == ["0", "1", "0", "x"]


def test_how_a_finding_reads() -> None:
    finding = Finding("two_ends", "it ended twice", 3, ID, 2)
    assert said(finding) == (
        "two_ends 018f3c2e-7a1b-7c3d-8e4f-5a6b7c8d9e0f to recipient 2: it ended twice"
    )
    assert finding.as_json() == {
        "kind": "two_ends",
        "invariant": "I2",
        "project": 3,
        "message": "018f3c2e-7a1b-7c3d-8e4f-5a6b7c8d9e0f",
        "recipient": 2,
        "text": "it ended twice",
        "mends": False,
    }
    assert said(Finding("tally_off", "x")) == "tally_off: x"


def test_only_what_is_said_to_be_mended_is_planned() -> None:
    found = [Finding(kind, "", 1, ID, 1, mends=False) for kind in KINDS]
    assert plan(found) == Repairs([], [], [], [])
    everything = plan([Finding(kind, "", 1, ID, 1, mends=True) for kind in KINDS] * 2)
    assert everything.hold == [(ID, 1)]
    assert everything.take_back == [(ID, 1)]
    assert everything.queue == [(ID, 1)]
    assert everything.set_aside == [ID]
