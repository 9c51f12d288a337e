"""accept: all of it, once, or nothing."""

import asyncio

import pytest

from everpost.ids import made_at
from everpost.model.message import Durability, Priority
from everpost.model.states import InDoubtPolicy, State
from everpost.store.interface import (
    Accepted,
    Conflicting,
    IdempotencyKey,
    Replayed,
    StoreError,
    StoreUnavailable,
)
from tests.conformance.engines import Engine
from tests.conformance.making import DAY, START, make_id, message


def _key(name: str = "k", fingerprint: bytes = b"f", answer: bytes = b"a") -> IdempotencyKey:
    return IdempotencyKey(name, fingerprint, answer, START + DAY)


def test_a_message_comes_back_as_it_was_accepted(engine: Engine) -> None:
    sent = message(
        "a@one.test", "b@two.test", sandbox=True, in_doubt=InDoubtPolicy.HOLD, sealed=b"\0\xff" * 9
    )

    async def scene() -> None:
        async with engine.opened() as store:
            assert await store.accept(1, [sent]) == Accepted()
            found = await store.message(1, sent.id)
            assert found is not None
            assert found.sealed == sent.sealed
            assert (found.content_id, found.key_id) == (sent.id, 7)
            assert (found.to, found.cc, found.bcc) == (list(sent.to), list(sent.cc), [])
            assert (found.subject, found.sender) == (sent.subject, sent.sender)
            assert (list(found.tags), found.metadata) == (list(sent.tags), sent.metadata)
            assert found.created_at == made_at(sent.id)
            assert (found.durability, found.in_doubt) == ("committed", InDoubtPolicy.HOLD)
            assert found.sandbox is True
            assert [(r.n, r.address, r.destination) for r in found.recipients] == [
                (1, "a@one.test", "one.test"),
                (2, "b@two.test", "two.test"),
            ]
            assert {r.state for r in found.recipients} == {State.QUEUED}
            events = await store.events(1, sent.id)
            assert [(e.seq, e.n, e.type, e.data) for e in events] == [
                (1, None, "accepted", {"recipients": 2})
            ]
            facts = await store.facts()
            assert (facts.accepted, facts.states["queued"], facts.due) == (2, 2, 2)

    asyncio.run(scene())


def test_another_project_asks_for_a_message(engine: Engine) -> None:
    sent = message()

    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [sent])
            assert await store.message(2, sent.id) is None
            assert await store.events(2, sent.id) == []
            assert await store.attempts(2, sent.id) == []
            assert await store.messages(2, limit=10) == ([], False)
            assert await store.cancel(2, sent.id) == 0
            assert await store.reschedule(2, sent.id, START + 1) == 0

    asyncio.run(scene())


def test_fifty_callers_with_one_key_make_one_message(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store, engine.opened() as neighbour:
            answers = await asyncio.gather(
                *(
                    (store if i % 2 else neighbour).accept(
                        1, [message()], _key(answer=str(i).encode())
                    )
                    for i in range(50)
                )
            )
            assert sum(isinstance(a, Accepted) for a in answers) == 1
            replayed = {a.answer for a in answers if isinstance(a, Replayed)}
            assert len(replayed) == 1
            winner = int(replayed.pop())
            assert isinstance(answers[winner], Accepted)
            assert len((await store.messages(1, limit=100))[0]) == 1

    asyncio.run(scene())


def test_a_key_comes_again_with_another_body(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            first, second, third = await asyncio.gather(
                store.accept(1, [message()], _key(fingerprint=b"one")),
                store.accept(1, [message()], _key(fingerprint=b"two")),
                store.accept(1, [message()], _key(name="other", fingerprint=b"two")),
            )
            assert (first, second, third) == (Accepted(), Conflicting(), Accepted())
            assert await store.accept(1, [message()], _key(fingerprint=b"two")) == Conflicting()
            assert len((await store.messages(1, limit=9))[0]) == 2

    asyncio.run(scene())


def test_a_key_is_free_again_when_its_record_has_ended(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            assert await store.answered(1, "k") is None
            assert await store.accept(1, [message()], _key()) == Accepted()
            assert await store.answered(1, "k") == _key()
            assert await store.answered(2, "k") is None
            engine.clock.pass_(DAY)
            assert await store.answered(1, "k") is None
            later = IdempotencyKey("k", b"other", b"second", engine.clock.now() + DAY)
            assert await store.accept(1, [message()], later) == Accepted()
            assert await store.accept(1, [message()], later) == Replayed(b"second")

    asyncio.run(scene())


def test_one_bad_request_of_a_batch_fails_alone(engine: Engine) -> None:
    """Its neighbours share its transaction; they must not share its fate."""

    async def scene() -> None:
        async with engine.opened() as store:
            taken = message()
            await store.accept(1, [taken])
            batch = [message() for _ in range(20)]
            batch[7] = engine.refused(taken)
            answers = await asyncio.gather(
                *(store.accept(1, [m], _key(f"k{i}")) for i, m in enumerate(batch)),
                return_exceptions=True,
            )
            assert isinstance(answers[7], StoreError)
            assert not isinstance(answers[7], StoreUnavailable)
            assert [a for i, a in enumerate(answers) if i != 7] == [Accepted()] * 19
            facts = await store.facts()
            assert (facts.accepted, facts.states["queued"]) == (20, 20)
            # the refused one's key was not kept
            assert await store.accept(1, [message()], _key("k7")) == Accepted()

    asyncio.run(scene())


def test_a_request_of_many_messages_is_all_or_nothing(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            taken = message()
            await store.accept(1, [taken])
            many = [message() for _ in range(100)]
            with pytest.raises(StoreError):
                await store.accept(1, [*many, engine.refused(taken)])
            assert (await store.facts()).accepted == 1
            assert await store.accept(1, many) == Accepted()
            assert (await store.facts()).accepted == 101

    asyncio.run(scene())


def test_large_parts_are_kept_once_a_day(engine: Engine) -> None:
    day = START // DAY
    parts = [(b"h1" * 16, b"sealed-1"), (b"h2" * 16, b"sealed-2" * 5000)]

    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [message(parts=parts), message(parts=parts[:1])])
            await store.accept(1, [message(parts=[(b"h1" * 16, b"sealed anew")])])
            found = await store.parts(1, [(day, b"h2" * 16), (day, b"h1" * 16)])
            assert list(found) == [(7, b"sealed-2" * 5000), (7, b"sealed-1")]
            with pytest.raises(StoreError):
                await store.parts(1, [(day, b"h3" * 16)])
            with pytest.raises(StoreError):
                await store.parts(2, [(day, b"h1" * 16)])

    asyncio.run(scene())


def test_dispatch_is_woken_once_a_commit_and_only_for_what_is_due(engine: Engine) -> None:
    woken: list[int] = []

    async def scene() -> None:
        async with engine.opened(accepted=woken.append) as store:
            await store.accept(1, [message("a@x.test", "b@x.test")])
            assert woken == [2]
            later = message(not_before=START + 60_000)
            await store.accept(1, [later])
            assert woken == [2]
            await store.reschedule(1, later.id, START)
            assert woken == [2, 1]
            await asyncio.gather(*(store.accept(1, [message()]) for _ in range(30)))
            assert sum(woken) == 33

    asyncio.run(scene())


def test_a_relaxed_store_says_so_in_every_message(engine: Engine) -> None:
    sent = message(priority=Priority.BROADCAST)

    async def scene() -> None:
        async with engine.opened(durability=Durability.RELAXED) as store:
            await store.accept(1, [sent])
            found = await store.message(1, sent.id)
            assert found is not None
            assert found.durability == "relaxed"

    asyncio.run(scene())


def test_a_store_that_is_closed_takes_nothing(engine: Engine) -> None:
    async def scene() -> None:
        store = engine.store()
        with pytest.raises(StoreUnavailable):
            await store.accept(1, [message()])
        await store.open()
        pending = [asyncio.ensure_future(store.accept(1, [message()])) for _ in range(10)]
        await asyncio.sleep(0)
        await store.close()
        assert await asyncio.gather(*pending) == [Accepted()] * 10
        with pytest.raises(StoreUnavailable):
            await store.accept(1, [message()])
        with pytest.raises(StoreUnavailable):
            await store.message(1, make_id())
        await store.close()

    asyncio.run(scene())


def test_text_that_no_database_can_hold_is_refused_before_it_is_written(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            with pytest.raises(UnicodeEncodeError):
                await store.accept(1, [message("\ud800@one.test")])
            assert await store.accept(1, [message()]) == Accepted()

    asyncio.run(scene())
