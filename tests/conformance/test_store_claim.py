"""claim: the right rows, to one process only, in a fair order."""

import asyncio
from collections import Counter

import pytest

from everpost.model.message import Priority
from everpost.model.shares import Ask
from everpost.model.states import State
from everpost.store.interface import WorkerRow
from tests.conformance.engines import Engine
from tests.conformance.making import (
    DAY,
    START,
    UP,
    attempt,
    claims,
    deferred,
    delivered,
    lane,
    make_id,
    message,
    triples,
)

LEASE = 900_000


def test_what_a_claim_holds(engine: Engine) -> None:
    sent = message("a@one.test", "b@two.test", sealed=b"sealed content")

    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [sent])
            owner = make_id()
            (taken,) = await store.claim(owner, limit=10, lease_ms=LEASE)
            assert (taken.message, taken.project, taken.stream) == (sent.id, 1, "transactional")
            assert (taken.sealed, taken.key_id, taken.content_id) == (b"sealed content", 7, sent.id)
            assert (taken.return_token, taken.sender) == (sent.return_token, sent.sender)
            assert taken.body_hashes == {}
            assert [(c.n, c.term, c.address, c.route) for c in taken.claims] == [
                (1, 1, "a@one.test", "1/transactional/one.test"),
                (2, 1, "b@two.test", "1/transactional/two.test"),
            ]
            first = taken.claims[0]
            assert (first.deadline, first.created_at) == (UP + LEASE, START)
            assert (first.attempts, first.crashes) == (0, 0)
            assert await store.claim(owner, limit=10, lease_ms=LEASE) == []
            facts = await store.facts()
            assert (facts.states["queued"], facts.states["claimed"], facts.due) == (0, 2, 0)

    asyncio.run(scene())


def test_nothing_is_claimed_before_its_time(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            assert await store.next_due() is None
            later = [message(not_before=START + ms) for ms in (30_000, 10_000, 20_000)]
            await store.accept(1, later)
            assert await store.claim(make_id(), limit=10, lease_ms=LEASE) == []
            assert await store.next_due() == START + 10_000
            engine.clock.pass_(20_000)
            got = await store.claim(make_id(), limit=10, lease_ms=LEASE)
            assert [c.message for c in claims(got)] == [later[1].id, later[2].id]
            assert await store.next_due() == START + 30_000

    asyncio.run(scene())


def test_a_clock_that_steps_back_sends_nothing_early(engine: Engine) -> None:
    """I22: what was never due waits for its moment; what was due does not wait again."""

    async def scene() -> None:
        async with engine.opened() as store:
            engine.clock.step(7_200_000)
            due, later = message(not_before=engine.clock.now()), message(not_before=START + DAY)
            await store.accept(1, [due, later])
            engine.clock.step(-7_200_000)
            assert await store.next_due() == START
            assert (await store.facts()).oldest_due_ms == 0
            (taken,) = await store.claim(make_id(), limit=10, lease_ms=LEASE)
            assert taken.message == due.id
            assert await store.next_due() == START + DAY

    asyncio.run(scene())


@pytest.mark.parametrize("step", [7_200_000, -7_200_000])
def test_a_wall_clock_that_is_set_between_all_verbs(engine: Engine, step: int) -> None:
    """F19, I22: claims, leads and seats hold as long as they would have, and no longer."""

    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [message(not_before=START), message(not_before=START)])
            owner = make_id()
            held = triples(await store.claim(owner, limit=9, lease_ms=LEASE))
            assert await store.lead("probes", owner, lease_ms=LEASE) == 1
            seats = Ask("relay/1", "seats", 9, 9)
            (mine,) = await store.share(owner, [seats], lease_ms=LEASE)
            engine.clock.step(step)
            assert await store.claims_of(None, expired_only=True, limit=9) == []
            assert await store.lead("probes", make_id(), lease_ms=LEASE) is None
            (theirs,) = await store.share(make_id(), [seats], lease_ms=LEASE)
            assert mine.amount + theirs.amount <= 9
            assert await store.extend(owner, held, lease_ms=LEASE) == [True, True]
            engine.clock.step(-step)
            engine.clock.pass_(LEASE - 1)
            engine.clock.step(step)
            assert await store.claims_of(None, expired_only=True, limit=9) == []
            engine.clock.pass_(1)
            assert len(await store.claims_of(None, expired_only=True, limit=9)) == 2
            assert await store.lead("probes", make_id(), lease_ms=LEASE) == 2

    asyncio.run(scene())


@pytest.mark.parametrize("left", [START, UP + 30 * DAY])
def test_deadlines_of_an_earlier_run_of_the_host(engine: Engine, left: int) -> None:
    """Further ahead than any lease, or in wall time as older releases wrote them: they hold only
    for a worker that is known, who is rescued when it is gone."""

    async def scene() -> None:
        known, unknown = make_id(), make_id()
        engine.clock.up = left
        async with engine.opened() as store:
            await store.register(WorkerRow(known, "dispatch", 1, "boot", "dots", START, START))
            for owner in (known, unknown):
                await store.accept(1, [message()])
                await store.claim(owner, limit=1, lease_ms=LEASE)
            engine.clock.up = UP
            expired = await store.claims_of(None, expired_only=True, limit=9)
            assert [owner for owner, _, _ in expired] == [unknown]

    asyncio.run(scene())


def test_transactional_mail_goes_before_broadcast(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [message(priority=Priority.BROADCAST) for _ in range(10)])
            urgent = [message() for _ in range(3)]
            await store.accept(1, urgent)
            got = claims(await store.claim(make_id(), limit=5, lease_ms=LEASE))
            assert [c.message for c in got[:3]] == [m.id for m in urgent]
            assert len(got) == 5

    asyncio.run(scene())


def test_a_route_with_a_thousand_does_not_starve_one_with_three(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [message("x@big.test") for _ in range(1000)])
            await store.accept(1, [message("x@small.test") for _ in range(3)])
            await store.accept(1, [message("x@tiny.test")])
            got = claims(await store.claim(make_id(), limit=30, lease_ms=LEASE))
            assert Counter(c.destination for c in got) == {
                "big.test": 26,
                "small.test": 3,
                "tiny.test": 1,
            }

    asyncio.run(scene())


def test_routes_take_turns_when_a_claim_is_smaller_than_their_number(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            routes = [f"r{i}.test" for i in range(7)]
            await store.accept(1, [message(f"x@{r}") for _ in range(2) for r in routes])
            seen: list[str] = []
            for _ in range(4):
                got = claims(await store.claim(make_id(), limit=3, lease_ms=LEASE))
                seen += [c.destination for c in got]
            assert Counter(seen[:7]) == dict.fromkeys(routes, 1)
            assert len(seen) == 12

    asyncio.run(scene())


def test_busy_routes_are_passed_over(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [message(f"x@{r}.test") for r in "abc" for _ in range(4)])
            busy = [lane("a.test"), lane("c.test")]
            got = claims(await store.claim(make_id(), limit=99, lease_ms=LEASE, busy=busy))
            assert {c.destination for c in got} == {"b.test"}
            assert await store.claim(make_id(), limit=99, lease_ms=LEASE, busy=busy) == []
            assert await store.next_due(busy) is None
            assert await store.next_due([lane("a.test")]) == START
            assert await store.next_due() == START

    asyncio.run(scene())


def test_oldest_first_within_a_route(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            ages = [5, 1, 9, 3]
            sent = [message(not_before=START - age) for age in ages]
            await store.accept(1, sent)
            got = claims(await store.claim(make_id(), limit=9, lease_ms=LEASE))
            assert [START - c.not_before for c in got] == [9, 5, 3, 1]
            assert (await store.facts()).oldest_due_ms == 0

    asyncio.run(scene())


def test_two_processes_never_hold_the_same_recipient(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as one, engine.opened() as other:
            await one.accept(1, [message(f"x@r{i % 9}.test") for i in range(600)])
            owners = {one: make_id(), other: make_id()}
            held: list[tuple[bytes, int]] = []

            async def take(store: object) -> None:
                assert store is one or store is other
                while got := await store.claim(owners[store], limit=17, lease_ms=LEASE):
                    held.extend((c.message, c.n) for c in claims(got))

            await asyncio.gather(take(one), take(other), take(one), take(other))
            assert len(held) == len(set(held)) == 600

    asyncio.run(scene())


def test_extend_keeps_what_is_held_and_names_what_is_lost(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [message() for _ in range(3)])
            owner = make_id()
            held = triples(await store.claim(owner, limit=9, lease_ms=1000))
            await store.resign(owner, held[2:])
            engine.clock.pass_(500)
            stale = (held[1][0], held[1][1], held[1][2] - 1)
            assert await store.extend(owner, [held[0], stale, held[2]], lease_ms=1000) == [
                True,
                False,
                False,
            ]
            assert await store.extend(make_id(), held[:1], lease_ms=1000) == [False]
            engine.clock.pass_(600)
            ended = await store.claims_of(None, expired_only=True, limit=9)
            assert [c.message for _, c, _ in ended] == [held[1][0]]

    asyncio.run(scene())


def test_what_is_resigned_is_due_at_once_under_a_new_term(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [message()])
            owner = make_id()
            held = await store.claim(owner, limit=9, lease_ms=LEASE)
            assert await store.resign(make_id(), triples(held)) == [False]
            assert await store.resign(owner, triples(held)) == [True]
            assert await store.resign(owner, triples(held)) == [False]
            (again,) = await store.claim(make_id(), limit=9, lease_ms=LEASE)
            assert again.claims[0].term == 2
            assert (again.claims[0].attempts, again.claims[0].crashes) == (0, 0)
            assert await store.settle(owner, [delivered(claims(held)[0])]) == [False]

    asyncio.run(scene())


def test_a_later_attempt_is_told_the_first_body_hash_of_each_form(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [message()])
            owner = make_id()
            for form, digest in (("7bit", b"1"), ("8bitmime", b"2"), ("7bit", b"3")):
                (claim,) = claims(await store.claim(owner, limit=9, lease_ms=LEASE))
                record = attempt(form=form, body_hash=digest)
                await store.settle(owner, [deferred(claim, at=START, record=record)])
                engine.clock.pass_(1)
            (taken,) = await store.claim(owner, limit=9, lease_ms=LEASE)
            assert taken.body_hashes == {"7bit": b"1", "8bitmime": b"2"}
            assert taken.claims[0].attempts == 3

    asyncio.run(scene())


def test_a_claim_whose_caller_has_gone_takes_nothing(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [message()])
            claiming = asyncio.ensure_future(store.claim(make_id(), limit=9, lease_ms=LEASE))
            claiming.cancel()
            await asyncio.gather(claiming, return_exceptions=True)
            await store.cancel(1, make_id())  # another write, so that the first would be done
            assert (await store.facts()).states[State.CLAIMED] == 0

    asyncio.run(scene())


CHANGES = {
    "its address": "UPDATE recipients SET address = 'b@one.test' WHERE message = :id",
    "its destination": "UPDATE recipients SET destination = 'two.test' WHERE message = :id",
    "its content": "UPDATE contents SET sealed = :other WHERE id = :id",
    "its content is gone": "DELETE FROM contents WHERE id = :id",
    "its policy": "UPDATE messages SET in_doubt = 'resent' WHERE id = :id",
    "its message is gone": "DELETE FROM messages WHERE id = :id",
}


@pytest.mark.parametrize("what", sorted(CHANGES))
def test_what_is_not_what_was_accepted_is_held_and_stops_nothing_else(
    engine: Engine, what: str
) -> None:
    """Something was changed behind the store's back: it is never sent (F9)."""
    changed, sound = message("a@one.test"), message("a@one.test")

    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [changed, sound])
            assert engine.execute(CHANGES[what], {"id": changed.id, "other": b"\0"})
            owner = make_id()
            taken = await store.claim(owner, limit=9, lease_ms=LEASE)
            assert [claimed.message for claimed in taken] == [sound.id]
            assert await store.claim(owner, limit=9, lease_ms=LEASE) == []
            facts = await store.facts()
            assert (facts.states["held"], facts.states["claimed"]) == (1, 1)
            events = [(e.type, e.n) for e in await store.events(1, changed.id)]
            assert what == "its message is gone" or events == [("accepted", None), ("held", 1)]
            await store.settle(owner, [delivered(c) for c in claims(taken)])

    asyncio.run(scene())
