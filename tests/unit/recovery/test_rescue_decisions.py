"""What becomes of a lost process's claims."""

import pytest

from everpost.dispatch.dots import Dot, Step
from everpost.model.states import InDoubtPolicy, State, Verb, allowed
from everpost.recovery.rescuer import decide_rescue
from everpost.recovery.watching import backoff_s
from everpost.store.interface import Claim

NOW = 5_000_000
CLAIM = Claim(
    message=b"m" * 16,
    n=2,
    term=7,
    deadline=NOW + 1,
    address="a@b.test",
    destination="b.test",
    route="b.test",
    attempts=0,
    crashes=0,
    not_before=0,
    expires_at=NOW + 10**9,
    created_at=0,
)
DOT = (CLAIM.message, CLAIM.n, CLAIM.term)


@pytest.mark.parametrize(
    ("dots", "policy", "target", "event"),
    [
        ({}, InDoubtPolicy.FAIL, State.QUEUED, "abandoned"),
        ({DOT: Step.COMPOSING}, InDoubtPolicy.FAIL, State.QUEUED, "abandoned"),
        ({DOT: Step.CARRYING}, InDoubtPolicy.FAIL, State.QUEUED, "abandoned"),
        # the dot of an earlier claim of the same recipient says nothing of this one
        ({(CLAIM.message, 2, 6): Step.DOT}, InDoubtPolicy.HOLD, State.QUEUED, "abandoned"),
        ({DOT: Step.DOT}, InDoubtPolicy.RESEND, State.QUEUED, "in_doubt"),
        ({DOT: Step.DOT}, InDoubtPolicy.HOLD, State.HELD, "in_doubt"),
        ({DOT: Step.DOT}, InDoubtPolicy.FAIL, State.FAILED, "in_doubt"),
        (None, InDoubtPolicy.RESEND, State.QUEUED, "in_doubt"),
        (None, InDoubtPolicy.HOLD, State.HELD, "in_doubt"),
    ],
)
def test_a_claim_whose_process_died(
    dots: dict[Dot, Step] | None,
    policy: InDoubtPolicy,
    target: State,
    event: str,
) -> None:
    settlement = decide_rescue(CLAIM, policy, dots=dots, now=NOW, jitter=0.5)
    assert (settlement.target, settlement.event) == (target, event)
    untouched = dots is not None and DOT not in dots
    assert (settlement.attempt is None) == untouched
    assert settlement.crashed == (dots == {DOT: Step.COMPOSING})
    assert allowed(State.CLAIMED, Verb.RESCUE, settlement.target)


def test_short_lives_in_a_row_wait_longer_and_longer() -> None:
    waits = [backoff_s(n) for n in range(12)]
    assert waits[0] == 0
    assert waits == sorted(waits)
    assert waits[-1] == 30
