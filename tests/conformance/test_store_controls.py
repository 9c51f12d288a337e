"""cancel, hold, release, reschedule: only what the table of states lets them move."""

import asyncio

from everpost.model.states import HeldReason, State
from everpost.store.interface import MessageRow, Store
from tests.conformance.engines import Engine
from tests.conformance.making import (
    DAY,
    START,
    claims,
    deferred,
    delivered,
    make_id,
    message,
    settlement,
)

LEASE = 900_000


async def _found(store: Store, id_: bytes) -> MessageRow:
    found = await store.message(1, id_)
    assert found is not None
    return found


async def _states(store: Store, id_: bytes) -> list[State]:
    return [r.state for r in (await _found(store, id_)).recipients]


async def _types(store: Store, id_: bytes) -> list[tuple[int, int | None, str]]:
    return [(e.seq, e.n, e.type) for e in await store.events(1, id_)]


def test_cancel_leaves_alone_what_is_under_way_or_done(engine: Engine) -> None:
    sent = message("a@1.test", "b@2.test", "c@3.test", "d@4.test")

    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [sent])
            owner = make_id()
            done, held, _ = claims(await store.claim(owner, limit=3, lease_ms=LEASE))
            await store.settle(
                owner, [delivered(done), settlement(held, State.HELD, reason=HeldReason.POISON)]
            )
            assert await store.cancel(1, sent.id) == 2
            assert await _states(store, sent.id) == [
                State.DELIVERED,
                State.CANCELLED,
                State.CLAIMED,
                State.CANCELLED,
            ]
            assert await store.cancel(1, sent.id) == 0
            assert [t for *_, t in await _types(store, sent.id)][-2:] == ["cancelled"] * 2
            assert (await _found(store, sent.id)).recipients[3].settled_at == START
            assert await store.claim(owner, limit=9, lease_ms=LEASE) == []
            facts = await store.facts()
            assert (facts.states["cancelled"], facts.states["claimed"]) == (2, 1)

    asyncio.run(scene())


def test_what_is_held_waits_until_it_is_released(engine: Engine) -> None:
    sent = message(not_before=START + 5_000)

    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [sent])
            assert await store.hold(1, sent.id, HeldReason.OPERATOR) == 1
            assert (await _found(store, sent.id)).recipients[0].reason == "operator"
            engine.clock.pass_(10_000)
            assert await store.claim(make_id(), limit=9, lease_ms=LEASE) == []
            assert await store.next_due() is None
            assert await store.hold(1, sent.id, HeldReason.OPERATOR) == 0
            assert await store.release(1, sent.id) == 1
            assert await store.release(1, sent.id) == 0
            assert len(await store.claim(make_id(), limit=9, lease_ms=LEASE)) == 1
            assert await _types(store, sent.id) == [
                (1, None, "accepted"),
                (2, 1, "held"),
                (3, 1, "released"),
            ]
            events = await store.events(1, sent.id)
            assert events[1].data == {"reason": "operator"}

    asyncio.run(scene())


def test_reschedule_moves_the_lifetime_along_with_the_due_time(engine: Engine) -> None:
    sent = message(not_before=START + DAY)

    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [sent])
            at = START + 10 * DAY
            assert await store.reschedule(1, sent.id, at) == 1
            found = await _found(store, sent.id)
            assert (found.scheduled_at, found.expires_at) == (at, at + 5 * DAY)
            assert (found.recipients[0].not_before, found.recipients[0].expires_at) == (
                at,
                at + 5 * DAY,
            )
            assert await store.next_due() == at
            assert await store.reschedule(1, sent.id, START) == 1
            assert len(await store.claim(make_id(), limit=9, lease_ms=LEASE)) == 1
            assert await store.reschedule(1, sent.id, at) == 0
            assert [t for *_, t in await _types(store, sent.id)] == [
                "accepted",
                "rescheduled",
                "rescheduled",
            ]

    asyncio.run(scene())


def test_reschedule_leaves_alone_what_was_tried(engine: Engine) -> None:
    sent = message("a@1.test", "b@2.test")

    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [sent])
            owner = make_id()
            first, second = claims(await store.claim(owner, limit=9, lease_ms=LEASE))
            await store.resign(owner, [(second.message, second.n, second.term)])
            await store.settle(owner, [deferred(first)])
            assert await store.reschedule(1, sent.id, START + 7) == 1
            rows = (await _found(store, sent.id)).recipients
            assert [r.not_before for r in rows] == [START + 60_000, START + 7]

    asyncio.run(scene())


def test_a_message_that_does_not_exist(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            nobody = make_id()
            assert await store.message(1, nobody) is None
            assert await store.cancel(1, nobody) == 0
            assert await store.hold(1, nobody, HeldReason.OPERATOR) == 0
            assert await store.release(1, nobody) == 0
            assert await store.reschedule(1, nobody, START) == 0
            assert await store.events(1, nobody) == []

    asyncio.run(scene())
