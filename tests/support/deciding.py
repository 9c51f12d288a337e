"""One claim and what dispatch decides about it, for the tests of its deciders."""

from everpost.dispatch.retry import RetryPolicy
from everpost.dispatch.settle import decide
from everpost.model.outcome import AttemptRecord, Outcome
from everpost.model.states import InDoubtPolicy
from everpost.store.interface import Claim, Settlement

__all__ = ["NOW", "POLICY", "RECORD", "a_claim", "decided"]

NOW = 1_000_000
POLICY = RetryPolicy(first_ms=60_000, cap_ms=14_400_000)
RECORD = AttemptRecord(started_at=NOW - 5, ended_at=NOW, relay="one", host="mx.test")


def a_claim(*, attempts: int = 0, expires_at: int = NOW + 10**9, crashes: int = 0) -> Claim:
    return Claim(
        message=b"m" * 16,
        n=1,
        term=3,
        deadline=NOW + 900_000,
        address="a@b.test",
        destination="b.test",
        route="b.test",
        attempts=attempts,
        crashes=crashes,
        not_before=NOW,
        expires_at=expires_at,
        created_at=NOW,
    )


def decided(
    outcome: Outcome,
    *,
    claim: Claim | None = None,
    in_doubt: InDoubtPolicy = InDoubtPolicy.RESEND,
) -> Settlement:
    return decide(
        claim or a_claim(),
        outcome,
        RECORD,
        policy=POLICY,
        in_doubt=in_doubt,
        now=NOW,
        jitter=0.0,
    )
