"""What recovery asks: workers, lost claims, purging; and the outbox."""

import asyncio

from everpost.model.states import HeldReason, InDoubtPolicy, State
from everpost.store.interface import IdempotencyKey, Replayed, WorkerRow
from tests.conformance.engines import Engine
from tests.conformance.making import START, claims, delivered, make_id, message, settlement


def _worker(pid: int = 1) -> WorkerRow:
    return WorkerRow(make_id(), "dispatch", pid, "boot-1", f"dots-{pid}.log", START + pid, START)


def test_workers_come_are_seen_and_go(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store, engine.opened() as other:
            one, two = _worker(1), _worker(2)
            await store.register(one)
            await other.register(two)
            assert list(await store.workers()) == [one, two]
            engine.clock.pass_(9)
            await store.seen(one.id)
            assert [w.seen_at for w in await other.workers()] == [START + 9, START]
            await store.forget(one.id)
            await store.forget(one.id)
            assert [w.id for w in await store.workers()] == [two.id]

    asyncio.run(scene())


def test_lost_claims_are_found_by_owner_and_by_their_end(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [message(in_doubt=InDoubtPolicy.FAIL) for _ in range(5)])
            dead, alive = make_id(), make_id()
            lost = claims(await store.claim(dead, limit=3, lease_ms=1_000))
            kept = claims(await store.claim(alive, limit=9, lease_ms=9_000))
            found = await store.claims_of(dead, expired_only=False, limit=9)
            assert [(o, c, p) for o, c, p in found] == [
                (dead, claim, InDoubtPolicy.FAIL) for claim in lost
            ]
            assert await store.claims_of(None, expired_only=True, limit=9) == []
            engine.clock.pass_(1_000)
            ended = await store.claims_of(None, expired_only=True, limit=2)
            assert [o for o, _, _ in ended] == [dead, dead]
            assert await store.claims_of(alive, expired_only=True, limit=9) == []
            everyone = await store.claims_of(None, expired_only=False, limit=9)
            assert [c for _, c, _ in everyone] == [*lost, *kept]

    asyncio.run(scene())


def test_what_is_held_is_known_by_its_reasons(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            sent = [message() for _ in range(3)]
            await store.accept(1, sent)
            assert await store.held_for() == frozenset()
            owner = make_id()
            (claim,) = claims(await store.claim(owner, limit=1, lease_ms=1_000))
            await store.settle(owner, [settlement(claim, State.HELD, reason=HeldReason.POISON)])
            assert await store.held_for() == {HeldReason.POISON}
            other = next(each for each in sent if each.id != claim.message)
            await store.hold(1, other.id, HeldReason.OPERATOR)
            assert await store.held_for() == {HeldReason.POISON, HeldReason.OPERATOR}
            await store.release(1, claim.message)
            assert await store.held_for() == {HeldReason.OPERATOR}

    asyncio.run(scene())


def test_purge_removes_ended_records_and_no_others(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            for i in range(5):
                key = IdempotencyKey(f"k{i}", b"f", b"a", START + i * 1000)
                await store.accept(1, [message()], key)
            assert await store.purge(before=START, limit=100) == 0
            assert await store.purge(before=START + 2_500, limit=2) == 2
            assert await store.purge(before=START + 2_500, limit=2) == 1
            assert await store.purge(before=START + 2_500, limit=2) == 0
            kept = IdempotencyKey("k4", b"f", b"other", START + 9_000)
            assert await store.accept(1, [message()], kept) == Replayed(b"a")

    asyncio.run(scene())


def test_each_consumer_reads_the_outbox_in_commit_order_from_its_own_place(
    engine: Engine,
) -> None:
    async def scene() -> None:
        async with engine.opened() as store, engine.opened() as other:
            sent = [message() for _ in range(4)]
            await asyncio.gather(
                *(s.accept(1, [m]) for s, m in zip([store, other] * 2, sent, strict=True))
            )
            owner = make_id()
            held = claims(await store.claim(owner, limit=9, lease_ms=9_000))
            await store.settle(owner, [delivered(c) for c in held])
            rows = await other.outbox("webhooks", limit=100)
            assert [r.type for r in rows] == ["accepted"] * 4 + ["delivered"] * 4
            assert [r.position for r in rows] == sorted({r.position for r in rows})
            await store.mark_published("webhooks", rows[5].position)
            await store.mark_published("webhooks", rows[1].position)  # late: must not go back
            assert list(await other.outbox("webhooks", limit=100)) == list(rows[6:])
            assert list(await other.outbox("statistics", limit=2)) == list(rows[:2])

    asyncio.run(scene())


def test_housekeeping_leaves_the_mail_alone(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [message() for _ in range(50)])
            await store.checkpoint()
            await asyncio.gather(
                store.checkpoint(), store.accept(1, [message()]), store.checkpoint()
            )
            assert (await store.facts()).states["queued"] == 51

    asyncio.run(scene())
