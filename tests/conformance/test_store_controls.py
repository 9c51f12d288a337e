"""cancel, hold, release, reschedule: only what the table of states lets them move."""

import asyncio

import pytest

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


def test_cancel_takes_all_that_waits_or_is_held(engine: Engine) -> None:
    sent = message("a@1.test", "b@2.test", "c@3.test")

    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [sent])
            owner = make_id()
            held, tried = claims(await store.claim(owner, limit=2, lease_ms=LEASE))
            await store.settle(
                owner, [settlement(held, State.HELD, reason=HeldReason.POISON), deferred(tried)]
            )
            assert await store.cancel(1, sent.id) == 3
            assert await _states(store, sent.id) == [State.CANCELLED] * 3
            assert [t for *_, t in await _types(store, sent.id)][-3:] == ["cancelled"] * 3
            assert (await _found(store, sent.id)).recipients[2].settled_at == START
            assert await store.cancel(1, sent.id) == 0
            engine.clock.pass_(DAY)
            assert await store.claim(owner, limit=9, lease_ms=LEASE) == []
            assert (await store.facts()).states["cancelled"] == 3

    asyncio.run(scene())


@pytest.mark.parametrize("fate", ["in hand", "delivered", "bounced", "failed"])
def test_cancel_of_what_is_partly_under_way_or_done_changes_nothing(
    engine: Engine, fate: str
) -> None:
    """What was answered `cancelled` must not arrive anywhere (COMPAT §15)."""
    sent = message("a@1.test", "b@2.test", "c@3.test")

    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [sent])
            owner = make_id()
            (claim,) = claims(await store.claim(owner, limit=1, lease_ms=LEASE))
            if fate == "delivered":
                await store.settle(owner, [delivered(claim)])
            elif fate != "in hand":
                await store.settle(owner, [settlement(claim, State(fate))])
            before = (await _found(store, sent.id)), await store.events(1, sent.id)
            assert await store.cancel(1, sent.id) == 0
            assert ((await _found(store, sent.id)), await store.events(1, sent.id)) == before
            assert (await store.facts()).states["cancelled"] == 0
            assert len(claims(await store.claim(owner, limit=9, lease_ms=LEASE))) == 2

    asyncio.run(scene())


def test_cancel_of_another_project_changes_nothing(engine: Engine) -> None:
    sent = message()

    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [sent])
            assert await store.cancel(2, sent.id) == 0
            assert await _states(store, sent.id) == [State.QUEUED]

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


def test_a_released_recipient_is_still_held_to_be_poison(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            sent = message()
            await store.accept(1, [sent])
            owner = make_id()
            (claim,) = claims(await store.claim(owner, limit=1, lease_ms=LEASE))
            await store.rescue(
                owner, [settlement(claim, State.HELD, reason=HeldReason.POISON, crashed=True)]
            )
            assert await store.release(1, sent.id) == 1
            (again,) = claims(await store.claim(owner, limit=1, lease_ms=LEASE))
            assert again.crashes == 0

    asyncio.run(scene())
