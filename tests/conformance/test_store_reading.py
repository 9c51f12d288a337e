"""Lists, pages and facts."""

import asyncio

from everpost.model.states import State
from tests.conformance.engines import Engine
from tests.conformance.making import START, message


def test_pages_in_both_directions(engine: Engine) -> None:
    sent = [message() for _ in range(10)]
    ids = [m.id for m in reversed(sent)]  # newest first

    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, sent)
            page, more = await store.messages(1, limit=4)
            assert ([m.id for m in page], more) == (ids[:4], True)
            page, more = await store.messages(1, limit=4, after=ids[3])
            assert ([m.id for m in page], more) == (ids[4:8], True)
            page, more = await store.messages(1, limit=4, after=ids[7])
            assert ([m.id for m in page], more) == (ids[8:], False)
            page, more = await store.messages(1, limit=4, before=ids[7])
            assert ([m.id for m in page], more) == (ids[3:7], True)
            page, more = await store.messages(1, limit=4, before=ids[3])
            assert ([m.id for m in page], more) == (ids[:3], False)
            assert page[0].sealed is None
            page, more = await store.messages(1, limit=10)
            assert (len(page), more) == (10, False)
            assert await store.messages(1, limit=10, before=ids[0]) == ([], False)

    asyncio.run(scene())


def test_whoever_asks_right_after_an_answer_finds_what_it_stands_for(engine: Engine) -> None:
    """F34: by whichever process, and in lists too."""

    async def scene() -> None:
        async with engine.opened() as store, engine.opened() as other:
            for n in range(1, 31):
                sent = message()
                await store.accept(1, [sent])
                found = await other.message(1, sent.id)
                assert found is not None
                assert len(await other.events(1, sent.id)) == 1
                assert (await other.messages(1, limit=1))[0][0].id == sent.id
                assert (await other.facts()).accepted == n
                await other.cancel(1, sent.id)
                found = await store.message(1, sent.id)
                assert found is not None
                assert found.recipients[0].state is State.CANCELLED

    asyncio.run(scene())


def test_a_list_holds_the_recipients_of_each_message(engine: Engine) -> None:
    sent = [message(*(f"x{n}@r.test" for n in range(k))) for k in (1, 70, 3)]

    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, sent)
            page, _ = await store.messages(1, limit=100)
            assert [[r.n for r in m.recipients] for m in page] == [
                list(range(1, k + 1)) for k in (3, 70, 1)
            ]

    asyncio.run(scene())


def test_sandboxed_mail_is_listed_apart(engine: Engine) -> None:
    sent = [message(sandbox=i % 3 == 0) for i in range(9)]

    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, sent)
            for sandbox in (True, False):
                wanted = [m.id for m in reversed(sent) if m.sandbox is sandbox]
                page, more = await store.messages(1, limit=2, sandbox=sandbox)
                assert ([m.id for m in page], more) == (wanted[:2], True)
                page, more = await store.messages(1, limit=9, sandbox=sandbox, after=wanted[1])
                assert ([m.id for m in page], more) == (wanted[2:], False)
                page, _ = await store.messages(1, limit=1, sandbox=sandbox, before=wanted[2])
                assert [m.id for m in page] == [wanted[1]]

    asyncio.run(scene())


def test_facts_tell_the_age_of_the_oldest_due_recipient(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            facts = await store.facts()
            assert (facts.oldest_due_ms, facts.due, facts.accepted) == (0, 0, 0)
            await store.accept(1, [message("a@b.test"), message("a@c.test", not_before=START + 9)])
            engine.clock.pass_(5)
            facts = await store.facts()
            assert (facts.oldest_due_ms, facts.due) == (5, 1)
            engine.clock.pass_(5)
            facts = await store.facts()
            assert (facts.oldest_due_ms, facts.due) == (10, 2)
            assert sum(facts.states.values()) == facts.accepted == 2

    asyncio.run(scene())
