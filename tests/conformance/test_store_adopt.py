"""adopt: what a journal accepted while no database answered is in the store once, and both of two
answers lead to it."""

import asyncio

import msgspec

from everpost.ids import Id, made_at
from everpost.ledger import Findings, check_store, walk
from everpost.model.message import Assurance, NewMessage
from everpost.model.states import HeldReason, State
from everpost.store.cluster import Adopted, Aliased
from everpost.store.interface import Conflicting, IdempotencyKey, Replayed, Store
from tests.conformance.engines import Engine
from tests.conformance.making import DAY, START, claims, delivered, make_id, message, triples

LEASE = 900_000


def _key(
    fingerprint: bytes = b"f", answer: bytes = b"a", ends: int = START + DAY
) -> IdempotencyKey:
    return IdempotencyKey("k", fingerprint, answer, ends)


def _again(one: NewMessage) -> NewMessage:
    """The same request as another node accepted it: an id, a token and a seal of its own."""
    return msgspec.structs.replace(
        one, id=make_id(), return_token=b"another!", sealed=b"sealed by another node"
    )


async def _ids(store: Store) -> list[Id]:
    page, more = await store.messages(1, limit=100)
    assert not more
    return [row.id for row in page]


async def _states(store: Store, id_: Id) -> list[State]:
    found = await store.message(1, id_)
    assert found is not None
    return [row.state for row in found.recipients]


def test_what_a_journal_accepted_is_sent_and_shows_what_was_answered(engine: Engine) -> None:
    sent = msgspec.structs.replace(
        message("a@one.test", "b@two.test", parts=[(b"h" * 32, b"a large part")]),
        durability=Assurance.JOURNAL_PEER,
    )

    async def scene() -> None:
        async with engine.opened() as store:
            engine.clock.pass_(60_000)
            assert await store.adopt(1, [sent], _key()) == Adopted()
            found = await store.message(1, sent.id)
            assert found is not None
            assert (found.durability, found.sealed) == ("journal+peer", sent.sealed)
            (event,) = await store.events(1, sent.id)
            assert (event.type, event.at) == ("accepted", made_at(sent.id))
            assert len(claims(await store.claim(make_id(), limit=9, lease_ms=LEASE))) == 2
            facts = await store.facts()
            assert (facts.accepted, facts.states["claimed"]) == (2, 2)
            # its key answers on every node now
            assert await store.accept(1, [message()], _key()) == Replayed(b"a")
            assert await store.accept(1, [message()], _key(b"other")) == Conflicting()

    asyncio.run(scene())


def test_dispatch_is_woken_for_what_is_adopted(engine: Engine) -> None:
    woken: list[int] = []

    async def scene() -> None:
        async with engine.opened(accepted=woken.append) as store:
            sent = [message("a@x.test", "b@x.test"), message(not_before=START + DAY)]
            await store.adopt(1, sent)
            assert woken == [2]
            await store.adopt(1, sent)
            assert woken == [2]

    asyncio.run(scene())


def test_the_same_entry_is_adopted_twice_by_two_nodes_at_once(engine: Engine) -> None:
    sent = [message() for _ in range(3)]

    async def scene() -> None:
        async with engine.opened() as store, engine.opened() as peer:
            both = await asyncio.gather(store.adopt(1, sent, _key()), peer.adopt(1, sent, _key()))
            assert set(map(type, both)) == {Adopted}
            assert await store.adopt(1, sent, _key()) == Adopted()
            assert sorted(await _ids(store)) == sorted(m.id for m in sent)
            assert (await store.facts()).accepted == 3

    asyncio.run(scene())


def test_the_commit_had_happened_after_all_and_the_mail_is_on_its_way(engine: Engine) -> None:
    """What became of it since stays as it is."""
    sent = message("a@1.test", "b@2.test")

    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [sent], _key())
            owner = make_id()
            one, _ = claims(await store.claim(owner, limit=9, lease_ms=LEASE))
            await store.settle(owner, [delivered(one)])
            before = await store.message(1, sent.id), await store.events(1, sent.id)
            assert await store.adopt(1, [sent], _key()) == Adopted()
            assert (await store.message(1, sent.id), await store.events(1, sent.id)) == before
            assert (await store.facts()).accepted == 2

    asyncio.run(scene())


def test_the_database_took_a_part_of_a_journals_slice_before(engine: Engine) -> None:
    sent = [message() for _ in range(4)]

    async def scene() -> None:
        async with engine.opened() as store:
            await store.adopt(1, sent[1:3])
            assert await store.adopt(1, sent) == Adopted()
            assert sorted(await _ids(store)) == sorted(m.id for m in sent)
            assert (await store.facts()).accepted == 4

    asyncio.run(scene())


def test_a_key_is_accepted_on_two_nodes_in_the_gap(engine: Engine) -> None:
    """One mail goes out; both ids lead to it (I7)."""
    first = message("a@1.test", "b@2.test")
    second = _again(first)

    async def scene() -> None:
        async with engine.opened() as store:
            assert await store.adopt(1, [first], _key(answer=b"one")) == Adopted()
            assert await store.adopt(1, [second], _key(answer=b"two")) == Aliased((first.id,))
            assert (await store.facts()).accepted == 2
            taken = await store.claim(make_id(), limit=9, lease_ms=LEASE)
            assert [t.message for t in taken] == [first.id]
            assert await _ids(store) == [first.id]
            assert await store.accept(1, [message()], _key()) == Replayed(b"one")

    asyncio.run(scene())


def test_both_nodes_drain_the_same_key_at_the_same_moment(engine: Engine) -> None:
    first = message()
    second = _again(first)

    async def scene() -> None:
        async with engine.opened() as store, engine.opened() as other:
            answers = await asyncio.gather(
                store.adopt(1, [first], _key()), other.adopt(1, [second], _key())
            )
            assert sum(isinstance(a, Adopted) for a in answers) == 1
            (alias,) = [a for a in answers if isinstance(a, Aliased)]
            (kept,) = await _ids(store)
            assert alias.of == (kept,)
            for id_ in (first.id, second.id):
                assert await _states(store, id_) == [State.QUEUED]

    asyncio.run(scene())


def test_a_batch_is_accepted_on_two_nodes_in_the_gap(engine: Engine) -> None:
    first = [message(f"x{n}@r.test") for n in range(5)]
    second = [_again(one) for one in first]

    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, first, _key())
            of = tuple(m.id for m in first)
            assert await store.adopt(1, second, _key()) == Aliased(of)
            assert await store.adopt(1, second, _key()) == Aliased(of)  # drained by the peer, too
            for one, other in zip(first, second, strict=True):
                found = await store.message(1, other.id)
                assert found is not None
                assert [r.address for r in found.recipients] == [one.recipients[0].address]
            assert (await store.facts()).accepted == 5

    asyncio.run(scene())


def test_a_key_came_with_another_payload_on_the_other_node(engine: Engine) -> None:
    """Both were answered for: both are sent, and the key stays the first one's."""
    first, second = message("a@1.test"), message("b@2.test")

    async def scene() -> None:
        async with engine.opened() as store:
            await store.adopt(1, [first], _key(b"one", b"first"))
            assert await store.adopt(1, [second], _key(b"two", b"second")) == Adopted()
            assert len(claims(await store.claim(make_id(), limit=9, lease_ms=LEASE))) == 2
            assert await store.accept(1, [message()], _key(b"one")) == Replayed(b"first")

    asyncio.run(scene())


def test_a_key_of_another_project_is_another_key(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            await store.adopt(1, [message()], _key())
            other = message(project=2, stream="transactional")
            assert await store.adopt(2, [other], _key()) == Adopted()
            assert (await store.facts()).accepted == 2

    asyncio.run(scene())


def test_a_record_that_has_ended_makes_no_further_names(engine: Engine) -> None:
    first = message()

    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [first], _key(ends=START + 10))
            engine.clock.pass_(11)
            later = _key(answer=b"later")
            second = _again(first)
            assert await store.adopt(1, [second], later) == Adopted()
            assert (await store.facts()).accepted == 2
            assert await store.accept(1, [message()], _key()) == Replayed(b"later")

    asyncio.run(scene())


def test_every_verb_takes_a_further_name_for_the_message(engine: Engine) -> None:
    first = message("a@1.test", "b@2.test", not_before=START + DAY)
    second = _again(first)
    name = second.id

    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [first], _key())
            await store.adopt(1, [second], _key())
            real = await store.message(1, first.id)
            assert real is not None
            assert await store.message(1, name) == msgspec.structs.replace(real, id=name)
            assert await store.message(2, name) is None
            assert await store.hold(1, name, HeldReason.OPERATOR) == 2
            assert await _states(store, first.id) == [State.HELD] * 2
            assert await store.release(1, name) == 2
            owner = make_id()
            taken = await store.claim(owner, limit=9, lease_ms=LEASE)
            assert [t.message for t in taken] == [first.id]
            await store.resign(owner, triples(taken))
            assert await store.reschedule(1, name, START + 5) == 2
            assert [e.type for e in await store.events(1, name)] == [
                "accepted", "held", "held", "released", "released", "rescheduled",
            ]  # fmt: skip
            assert await store.events(1, name) == await store.events(1, first.id)
            assert await store.events(2, name) == []
            engine.clock.pass_(5)
            one, other = claims(await store.claim(owner, limit=9, lease_ms=LEASE))
            await store.settle(owner, [delivered(one)])
            assert len(await store.attempts(1, name)) == 1
            assert await store.cancel(1, name) == 0
            await store.resign(owner, [(other.message, other.n, other.term)])
            assert await store.cancel(2, name) == 0

    asyncio.run(scene())


def test_a_further_name_cancels_what_has_not_begun(engine: Engine) -> None:
    first = message()
    second = _again(first)

    async def scene() -> None:
        async with engine.opened() as store:
            await store.accept(1, [first], _key())
            await store.adopt(1, [second], _key())
            assert await store.cancel(1, second.id) == 1
            assert await _states(store, first.id) == [State.CANCELLED]
            assert await store.claim(make_id(), limit=9, lease_ms=LEASE) == []

    asyncio.run(scene())


def test_the_books_have_nothing_to_say_against_a_further_name(engine: Engine) -> None:
    first = message("a@1.test", "b@2.test")

    async def scene() -> None:
        async with engine.opened() as store:
            await store.adopt(1, [first], _key())
            await store.adopt(1, [_again(first)], _key())
            findings = Findings()
            checked = await walk(store, findings)
            await check_store(store, findings, engine=False)
            assert findings.kept == []
            assert checked.messages == 1

    asyncio.run(scene())
