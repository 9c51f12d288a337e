"""settle and rescue: what was decided is written once, by the claim's holder only."""

import asyncio

import pytest

from everpost.model.outcome import Bounced, Delivered, InDoubt, Phase, Reply, TlsFacts, Via
from everpost.model.states import HeldReason, State, Verb, allowed
from everpost.store.interface import Settlement, Store
from tests.conformance.engines import Engine
from tests.conformance.making import (
    START,
    attempt,
    claims,
    deferred,
    delivered,
    make_id,
    message,
    settlement,
)

LEASE = 900_000


async def _seqs(store: Store, id_: bytes) -> list[int]:
    return [e.seq for e in await store.events(1, id_)]


def test_a_delivery_is_recorded_in_full(engine: Engine) -> None:
    sent = message("a@one.test", "b@one.test")
    record = attempt(
        relay="r1",
        relay_id=make_id(),
        host="mx.one.test",
        peer="192.0.2.1",
        tls=TlsFacts(version="TLSv1.3", cipher="X", verified=True),
        timings={"dot": 1.5},
        form="7bit",
        body_hash=b"\x01" * 32,
        transaction=make_id(),
    )
    outcome = Delivered(reply=Reply(code=250, text="queued as 1", enhanced="2.0.0"), via=Via.MX)

    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [sent])
            owner = make_id()
            held = claims(await store.claim(owner, limit=9, lease_ms=LEASE))
            engine.clock.pass_(10)
            answer = await store.settle(
                owner,
                [
                    settlement(
                        claim,
                        State.DELIVERED,
                        event="delivered",
                        data={"via": "mx", "n": claim.n},
                        outcome=outcome,
                        record=record,
                    )
                    for claim in held
                ],
            )
            assert answer == [True, True]
            found = await store.message(1, sent.id)
            assert found is not None
            assert [(r.state, r.via, r.settled_at, r.attempts) for r in found.recipients] == [
                (State.DELIVERED, "mx", START + 10, 1)
            ] * 2
            rows = await store.attempts(1, sent.id)
            assert [(a.n, a.attempt) for a in rows] == [(1, 1), (2, 1)]
            assert rows[0].record == record
            assert rows[0].outcome == {
                "type": "delivered",
                "reply": {"code": 250, "text": "queued as 1", "enhanced": "2.0.0"},
                "via": "mx",
            }
            events = await store.events(1, sent.id)
            assert [(e.seq, e.n, e.type) for e in events] == [
                (1, None, "accepted"),
                (2, 1, "delivered"),
                (3, 2, "delivered"),
            ]
            assert events[2].data == {"via": "mx", "n": 2}
            facts = await store.facts()
            assert (facts.states["delivered"], facts.states["claimed"]) == (2, 0)

    asyncio.run(scene())


@pytest.mark.parametrize("twist", ["owner", "term", "state", "recipient", "message"])
def test_a_stale_claim_writes_nothing(engine: Engine, twist: str) -> None:
    sent = message()

    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [sent])
            owner = make_id()
            (claim,) = claims(await store.claim(owner, limit=9, lease_ms=LEASE))
            told = delivered(claim)
            fields = {f: getattr(told, f) for f in told.__struct_fields__}
            if twist == "term":
                fields["term"] += 1
            elif twist == "recipient":
                fields["n"] = 2
            elif twist == "message":
                fields["message"] = make_id()
            elif twist == "state":
                await store.resign(owner, [(claim.message, claim.n, claim.term)])
            settler = make_id() if twist == "owner" else owner
            before = await store.facts()
            assert await store.settle(settler, [Settlement(**fields)]) == [False]
            assert await store.facts() == before
            assert await store.attempts(1, sent.id) == []
            assert await _seqs(store, sent.id) == [1]

    asyncio.run(scene())


def test_the_fresh_ones_of_a_batch_are_written_beside_the_stale(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [message() for _ in range(4)])
            owner = make_id()
            held = claims(await store.claim(owner, limit=9, lease_ms=LEASE))
            await store.resign(owner, [(held[1].message, held[1].n, held[1].term)])
            told = [delivered(c) for c in held]
            assert await store.settle(owner, [*told, told[0]]) == [True, False, True, True, False]

    asyncio.run(scene())


def test_a_deferred_recipient_is_due_again_at_its_time(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [message()])
            owner = make_id()
            (claim,) = claims(await store.claim(owner, limit=9, lease_ms=LEASE))
            await store.settle(owner, [deferred(claim, at=START + 60_000)])
            assert await store.next_due() == START + 60_000
            assert await store.claim(owner, limit=9, lease_ms=LEASE) == []
            engine.clock.pass_(60_000)
            (claim,) = claims(await store.claim(owner, limit=9, lease_ms=LEASE))
            assert (claim.term, claim.attempts, claim.not_before) == (2, 1, START + 60_000)

    asyncio.run(scene())


def test_arrows_that_the_table_of_states_lacks_are_refused_before_anything_is_written(
    engine: Engine,
) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [message() for _ in range(2)])
            owner = make_id()
            good, other = claims(await store.claim(owner, limit=9, lease_ms=LEASE))
            for verb, call in ((Verb.SETTLE, store.settle), (Verb.RESCUE, store.rescue)):
                for target in State:
                    if allowed(State.CLAIMED, verb, target):
                        continue
                    with pytest.raises(ValueError, match=target.value):
                        await call(
                            owner, [settlement(good, State.FAILED), settlement(other, target)]
                        )
            with pytest.raises(ValueError, match="not_before"):
                await store.settle(owner, [settlement(good, State.QUEUED)])
            with pytest.raises(ValueError, match="reason"):
                await store.settle(owner, [settlement(good, State.HELD)])
            assert (await store.facts()).states["claimed"] == 2

    asyncio.run(scene())


def test_two_processes_settle_one_message_and_its_timeline_has_no_gap(engine: Engine) -> None:
    sent = message(*(f"x{i}@r{i}.test" for i in range(40)))

    async def scene() -> None:
        async with engine.opened() as one, engine.opened() as other:
            await one.accept(1, [sent])
            work = []
            for store in (one, other):
                owner = make_id()
                held = claims(await store.claim(owner, limit=20, lease_ms=LEASE))
                assert len(held) == 20
                work += [(store, owner, claim) for claim in held]
            done = await asyncio.gather(*(s.settle(o, [delivered(c)]) for s, o, c in work))
            assert done == [[True]] * 40
            assert await _seqs(one, sent.id) == list(range(1, 42))
            positions = [e.position for e in await other.events(1, sent.id)]
            assert positions == sorted(set(positions))

    asyncio.run(scene())


def test_a_rescue_counts_a_crash_only_on_what_its_process_died_of(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [message() for _ in range(3)])
            dead = make_id()
            back, doubtful, untold = claims(await store.claim(dead, limit=9, lease_ms=LEASE))
            outcome = InDoubt(reason="its process ended")
            answer = await store.rescue(
                dead,
                [
                    settlement(
 back, State.QUEUED, not_before=START, record=attempt(), crashed=True),
                    settlement(
                        doubtful, State.HELD, reason=HeldReason.IN_DOUBT, outcome=outcome,
                        record=attempt(),
                    ),
                    settlement(untold, State.QUEUED, not_before=START),
                ],
            )  # fmt: skip
            assert answer == [True, True, True]
            got = claims(await store.claim(make_id(), limit=9, lease_ms=LEASE))
            assert sorted((c.attempts, c.crashes, c.term) for c in got) == [(0, 0, 2), (1, 1, 2)]
            found = await store.message(1, doubtful.message)
            assert found is not None
            assert (found.recipients[0].state, found.recipients[0].reason) == (
                State.HELD,
                "in_doubt",
            )
            rows = await store.attempts(1, doubtful.message)
            assert rows[0].outcome == {"type": "in_doubt", "reason": "its process ended"}

    asyncio.run(scene())


def test_a_bounce_keeps_the_answer_of_the_destination(engine: Engine) -> None:
    reply = Reply(code=550, enhanced="5.1.1", text="no such user\nreally — none")

    async def scene() -> None:
        async with engine.opened() as store:
            sent = message()
            await store.accept(1, [sent])
            owner = make_id()
            (claim,) = claims(await store.claim(owner, limit=9, lease_ms=LEASE))
            outcome = Bounced(reply=reply, phase=Phase.RCPT)
            await store.settle(
                owner, [settlement(claim, State.BOUNCED, outcome=outcome, record=attempt())]
            )
            (row,) = await store.attempts(1, sent.id)
            assert row.outcome["reply"]["text"] == reply.text
            assert row.outcome["speaker"] == "destination"

    asyncio.run(scene())
