"""What processes tell each other through the store: notes, leases, shares of limits."""

import asyncio
from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings

from everpost.ids import Id
from everpost.model.shares import Ask, Grant
from everpost.store.interface import Store, WorkerRow
from everpost.store.sharing import Note
from tests.conformance.engines import Engine, MakeEngine
from tests.conformance.making import DAY, START, UP, make_id

LEASE = 6_000


def _note(kind: str, key: str, *, lasts: int = 60_000, **data: Any) -> Note:
    return Note(kind, key, data, START + lasts)


def _seats(want: int, *, cap: int, used: int = 0, name: str = "relay/1") -> Ask:
    return Ask(name, "seats", cap, want, used)


def _uses(want: int, *, cap: int, window: int = 1_000, name: str = "relay/1/second") -> Ask:
    return Ask(name, "budget", cap, want, window_ms=window)


async def _one(store: Store, owner: Id, ask: Ask) -> Grant:
    (grant,) = await store.share(owner, [ask], lease_ms=LEASE)
    assert grant.name == ask.name
    return grant


async def _enlist(store: Store, id_: Id) -> None:
    await store.register(WorkerRow(id_, "dispatch", 1, "boot", "dots.log", START, START))


def test_seats_of_a_process_that_is_gone_wait_for_their_term(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            dead, heir = make_id(), make_id()
            await _enlist(store, dead)
            assert (await _one(store, dead, _seats(8, cap=8))).amount == 8
            await _enlist(store, heir)
            await store.forget(dead)
            assert (await _one(store, heir, _seats(8, cap=8))).amount == 8

    asyncio.run(scene())


# --- notes ----------------------------------------------------------------------------------------


def test_a_note_of_another_process_is_read_once_in_the_order_of_writing(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store, engine.opened() as other:
            assert await other.noted(["health"]) == (0, ())
            await store.note([_note("health", "b", state="open"), _note("health", "a")])
            await asyncio.gather(store.note([_note("cooldown", "c")]), store.note([]))
            newest, found = await other.noted(["health"])
            assert [(n.key, n.data) for n in found] == [("b", {"state": "open"}), ("a", {})]
            assert [n.version for n in found] == sorted({n.version for n in found})
            assert newest > found[-1].version  # of the kind that nobody asked for
            assert await other.noted(["health", "cooldown"], after=newest) == (newest, ())
            await store.note([_note("health", "b", state="closed")])
            again, found = await other.noted(["cooldown", "health"], after=newest)
            assert [(n.key, n.data) for n in found] == [("b", {"state": "closed"})]
            assert again == found[0].version > newest

    asyncio.run(scene())


def test_the_same_key_twice_in_one_call_keeps_the_later(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            await store.note([_note("health", "a", n=1), _note("health", "a", n=2)])
            _, found = await store.noted(["health"])
            assert [n.data for n in found] == [{"n": 2}]

    asyncio.run(scene())


def test_a_note_that_has_expired_is_not_seen(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            await store.note([_note("health", "short", lasts=10), _note("health", "long")])
            engine.clock.pass_(10)
            newest, found = await store.noted(["health"])
            assert [n.key for n in found] == ["long"]
            engine.clock.pass_(DAY)
            assert await store.noted(["health"]) == (newest, [])

    asyncio.run(scene())


def test_versions_grow_though_every_note_was_purged(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            await store.note([_note("health", str(i), lasts=10) for i in range(5)])
            newest, _ = await store.noted(["health"])
            engine.clock.pass_(100)
            assert await store.purge(before=START + 100, limit=1000) == 5
            await store.note([_note("health", "new")])
            _, found = await store.noted(["health"], after=newest)
            assert [n.key for n in found] == ["new"]

    asyncio.run(scene())


# --- leases ---------------------------------------------------------------------------------------


def test_a_lease_is_anothers_until_it_ends_and_each_owner_has_its_own_term(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store, engine.opened() as other:
            one, two = make_id(), make_id()
            term = await store.lead("probes", one, lease_ms=LEASE)
            assert term is not None
            assert await other.lead("probes", two, lease_ms=LEASE) is None
            assert await other.lead("canaries", two, lease_ms=LEASE) is not None
            engine.clock.pass_(LEASE - 1)
            assert await store.lead("probes", one, lease_ms=LEASE) == term
            engine.clock.pass_(LEASE - 1)  # held since its renewal
            assert await other.lead("probes", two, lease_ms=LEASE) is None
            engine.clock.pass_(1)
            taken = await other.lead("probes", two, lease_ms=LEASE)
            assert taken is not None
            assert taken > term
            assert await store.lead("probes", one, lease_ms=LEASE) is None  # the old owner's
            await store.yield_lead("probes", one)  # not its own any more
            assert await store.lead("probes", one, lease_ms=LEASE) is None

    asyncio.run(scene())


def test_a_lease_that_is_given_back_is_free_at_once(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            one, two = make_id(), make_id()
            first = await store.lead("probes", one, lease_ms=LEASE)
            await store.yield_lead("probes", one)
            second = await store.lead("probes", two, lease_ms=LEASE)
            assert first is not None
            assert second is not None
            assert second > first

    asyncio.run(scene())


def test_an_owner_that_let_its_lease_end_learns_it_from_the_term(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            one = make_id()
            first = await store.lead("probes", one, lease_ms=LEASE)
            engine.clock.pass_(LEASE)
            second = await store.lead("probes", one, lease_ms=LEASE)
            assert first is not None
            assert second is not None
            assert second > first

    asyncio.run(scene())


def test_a_clock_set_back_locks_nobody_out_of_a_lease_for_hours(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            one, two = make_id(), make_id()
            assert await store.lead("probes", one, lease_ms=LEASE) is not None
            engine.clock.pass_(-2 * 3_600_000)
            assert await store.lead("probes", two, lease_ms=LEASE) is None
            engine.clock.pass_(LEASE)
            assert await store.lead("probes", two, lease_ms=LEASE) is not None

    asyncio.run(scene())


# --- seats ----------------------------------------------------------------------------------------


def test_who_comes_alone_has_all_seats_and_shares_when_another_comes(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store, engine.opened() as other:
            one, two = make_id(), make_id()
            alone = await _one(store, one, _seats(50, cap=20))
            assert alone == Grant("relay/1", 20, UP + LEASE, left=0)
            assert (await _one(other, two, _seats(50, cap=20))).amount == 0
            engine.clock.pass_(2_000)
            shared = await _one(store, one, _seats(50, cap=20, used=4))
            assert (shared.amount, shared.left) == (10, 10)
            assert (await _one(other, two, _seats(50, cap=20))).amount == 10

    asyncio.run(scene())


def test_what_one_does_not_want_is_the_others(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            few, many, more = make_id(), make_id(), make_id()
            for owner, want in ((few, 2), (many, 20), (more, 20)):
                await _one(store, owner, _seats(want, cap=20))
            amounts = [
                (await _one(store, owner, _seats(want, cap=20))).amount
                for owner, want in ((few, 2), (many, 20), (more, 20))
            ]
            assert amounts == [2, 9, 9]
            await _one(store, few, _seats(0, cap=20))
            assert (await _one(store, many, _seats(20, cap=20))).amount == 10

    asyncio.run(scene())


def test_seats_in_use_stay_counted_until_they_are_free(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            one, two = make_id(), make_id()
            await _one(store, one, _seats(10, cap=10))
            await _one(store, two, _seats(10, cap=10))
            shrunk = await _one(store, one, _seats(10, cap=10, used=8))
            assert (shrunk.amount, shrunk.left) == (5, 2)
            assert (await _one(store, two, _seats(10, cap=10))).amount == 2
            told = await _one(store, one, _seats(10, cap=10, used=8))
            assert told.left == -8  # what the other one lacks
            await _one(store, one, _seats(10, cap=10, used=5))
            assert (await _one(store, two, _seats(10, cap=10))).amount == 5
            # Who wants no more keeps what is open until it is closed.
            assert (await _one(store, one, _seats(0, cap=10, used=3))).amount == 0
            assert (await _one(store, two, _seats(10, cap=10))).amount == 7
            await _one(store, one, _seats(0, cap=10))
            assert (await _one(store, two, _seats(10, cap=10))).amount == 10

    asyncio.run(scene())


def test_fewer_seats_than_processes_go_round(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            owners = [make_id() for _ in range(3)]
            had: dict[Id, int] = dict.fromkeys(owners, 0)
            for _ in range(60):
                grants = [await _one(store, owner, _seats(5, cap=1)) for owner in owners]
                assert sum(g.amount for g in grants) <= 1
                for owner, grant in zip(owners, grants, strict=True):
                    had[owner] += grant.amount
                engine.clock.pass_(LEASE // 6)
            assert min(had.values()) >= 10

    asyncio.run(scene())


def test_a_dead_process_seats_come_back_when_their_term_ends(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            dead, alive = make_id(), make_id()
            await _one(store, dead, _seats(3, cap=3))
            engine.clock.pass_(LEASE - 1)
            assert (await _one(store, alive, _seats(3, cap=3))).amount == 0
            engine.clock.pass_(1)
            assert (await _one(store, alive, _seats(3, cap=3))).amount == 3

    asyncio.run(scene())


def test_who_leaves_frees_all_its_seats_at_once(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            one, two = make_id(), make_id()
            names = [f"relay/{i}" for i in range(100)]  # more than one statement takes
            asks = [_seats(2, cap=2, name=name) for name in names]
            granted = await store.share(one, asks, lease_ms=LEASE)
            assert [(g.name, g.amount) for g in granted] == [(name, 2) for name in names]
            assert {g.amount for g in await store.share(two, asks, lease_ms=LEASE)} == {0}
            await store.leave(one)
            assert {g.amount for g in await store.share(two, asks, lease_ms=LEASE)} == {2}
            assert await store.share(one, [], lease_ms=LEASE) == ()

    asyncio.run(scene())


def test_a_registered_process_that_begins_to_send_finds_less_than_its_part(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            one, two, three = make_id(), make_id(), make_id()
            for worker in (one, two, three):
                await _enlist(store, worker)
            assert (await _one(store, one, _seats(50, cap=20))).amount == 7
            assert (await _one(store, two, _seats(50, cap=20))).amount == 7
            assert (await _one(store, three, _seats(50, cap=20))).amount == 6
            assert (await _one(store, one, _seats(50, cap=3, name="small"))).amount == 3
            await store.forget(two)
            await store.forget(three)
            assert (await _one(store, one, _seats(50, cap=20, name="alone"))).amount == 20

    asyncio.run(scene())


def test_the_first_of_several_processes_takes_what_the_others_will_need(engine: Engine) -> None:
    """I17: at a start they come one after the other; what hangs in the first one's hands by then
    would leave it no place for other mail."""

    async def scene() -> None:
        async with engine.opened() as store:
            one, two = make_id(), make_id()
            (grant,) = await store.share(one, [_seats(20, cap=20)], lease_ms=6_000, among=2)
            assert grant.amount == 10
            (grant,) = await store.share(two, [_seats(20, cap=20)], lease_ms=6_000, among=2)
            assert grant.amount == 10
            (grant,) = await store.share(one, [_seats(1, cap=1, name="s")], lease_ms=6_000, among=2)
            assert grant.amount == 1, "one seat is nobody's part"

    asyncio.run(scene())


def test_a_cap_that_was_lowered_holds_from_the_next_renewal(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            one, two = make_id(), make_id()
            await _one(store, one, _seats(10, cap=20))
            await _one(store, two, _seats(10, cap=20))
            assert (await _one(store, one, _seats(10, cap=4))).amount == 0
            assert (await _one(store, two, _seats(10, cap=4))).amount == 2
            assert (await _one(store, one, _seats(10, cap=4))).amount == 2

    asyncio.run(scene())


def test_a_clock_set_back_gives_a_dead_process_no_hours(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            dead, alive = make_id(), make_id()
            await _one(store, dead, _seats(3, cap=3))
            engine.clock.pass_(-2 * 3_600_000)
            assert (await _one(store, alive, _seats(3, cap=3))).amount == 0
            engine.clock.pass_(LEASE)
            assert (await _one(store, alive, _seats(3, cap=3))).amount == 3

    asyncio.run(scene())


OWNERS = [bytes([i]) * 16 for i in range(4)]
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("ask"),
            st.integers(0, 3),  # who
            st.integers(0, 12),  # want
            st.floats(0, 1),  # how much of what it holds is in use
        ),
        st.tuples(st.just("pass"), st.integers(1, LEASE * 2)),
        st.tuples(st.just("leave"), st.integers(0, 3)),
    ),
    max_size=40,
)


def test_seats_never_exceed_the_cap_whatever_the_order(make_engine: MakeEngine) -> None:
    @settings(max_examples=make_engine.examples(60), deadline=None)
    @given(cap=st.integers(0, 9), enlisted=st.integers(0, 4), steps=STEPS)
    def check(cap: int, enlisted: int, steps: Sequence[tuple[Any, ...]]) -> None:
        async def scene(engine: Engine) -> None:
            held: dict[int, tuple[int, int]] = {}  # owner: seats, until
            async with engine.opened() as store:
                for owner in OWNERS[:enlisted]:
                    await _enlist(store, owner)
                for step in steps:
                    now = engine.clock.now()
                    if step[0] == "pass":
                        engine.clock.pass_(step[1])
                    elif step[0] == "leave":
                        await store.leave(OWNERS[step[1]])
                        held.pop(step[1], None)
                    else:
                        _, who, want, part = step
                        mine, until = held.get(who, (0, 0))
                        used = int(mine * part) if until > now else 0
                        grant = await _one(store, OWNERS[who], _seats(want, cap=cap, used=used))
                        assert 0 <= grant.amount <= want
                        held[who] = (max(grant.amount, used), grant.until)
                        lives = [n for n, until in held.values() if until > now]
                        assert sum(lives) + grant.left <= cap

        with make_engine() as engine:
            asyncio.run(scene(engine))

    check()


def test_after_two_renewals_the_shares_are_fair(make_engine: MakeEngine) -> None:
    @settings(max_examples=make_engine.examples(40), deadline=None)
    @given(cap=st.integers(1, 12), wants=st.lists(st.integers(1, 12), min_size=1, max_size=4))
    def check(cap: int, wants: Sequence[int]) -> None:
        async def scene(engine: Engine) -> None:
            async with engine.opened() as store:
                for _ in range(3):
                    shares = [
                        (await _one(store, OWNERS[i], _seats(want, cap=cap))).amount
                        for i, want in enumerate(wants)
                    ]
                assert sum(shares) == min(cap, sum(wants))
                # Who has less than it wants has no less than anybody, but for the odd seat.
                for share, want in zip(shares, wants, strict=True):
                    assert share == want or share >= max(shares) - 1

        with make_engine() as engine:
            asyncio.run(scene(engine))

    check()


# --- budgets --------------------------------------------------------------------------------------


def test_a_budget_is_spent_once_in_a_window_and_new_in_the_next(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store, engine.opened() as other:
            one, two = make_id(), make_id()
            engine.clock.pass_(300)
            granted = await _one(store, one, _uses(15, cap=20))
            assert granted == Grant("relay/1/second", 15, START + 1_000, left=5)
            assert (await _one(other, two, _uses(15, cap=20))).amount == 5
            spent = await _one(store, one, _uses(15, cap=20))
            assert (spent.amount, spent.left) == (0, 0)
            engine.clock.pass_(699)
            assert (await _one(store, one, _uses(1, cap=20))).amount == 0
            engine.clock.pass_(1)
            assert (await _one(store, one, _uses(1, cap=20))).amount == 1

    asyncio.run(scene())


def test_the_window_of_a_day_is_a_utc_day(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            midnight = (START // DAY + 1) * DAY
            ask = _uses(50, cap=50, window=DAY, name="relay/1/day")
            assert (await _one(store, make_id(), ask)).until == midnight
            engine.clock.pass_(midnight - START - 1)
            assert (await _one(store, make_id(), ask)).amount == 0
            engine.clock.pass_(1)
            assert (await _one(store, make_id(), ask)).amount == 50

    asyncio.run(scene())


def test_a_budget_that_grows_with_the_day_gives_the_difference(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            owner = make_id()
            for cap, amount in ((10, 10), (10, 0), (14, 4), (12, 0)):
                ask = _uses(20, cap=cap, window=DAY, name="relay/1/warmup")
                assert (await _one(store, owner, ask)).amount == amount

    asyncio.run(scene())


def test_the_first_to_ask_leaves_the_other_processes_a_part(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            one, two = make_id(), make_id()
            for worker in (one, two):
                await _enlist(store, worker)
            assert (await _one(store, one, _uses(50, cap=20))).amount == 10
            assert (await _one(store, two, _uses(50, cap=20))).amount == 5
            last = [(await _one(store, one, _uses(50, cap=20))).amount for _ in range(5)]
            assert sum(last) == 5

    asyncio.run(scene())


def test_a_budget_is_never_exceeded_in_a_window(make_engine: MakeEngine) -> None:
    @settings(max_examples=make_engine.examples(40), deadline=None)
    @given(
        cap=st.integers(0, 30),
        enlisted=st.integers(0, 3),
        asks=st.lists(
            st.tuples(st.integers(0, 3), st.integers(0, 20), st.integers(0, 700)), max_size=30
        ),
    )
    def check(cap: int, enlisted: int, asks: Sequence[tuple[int, int, int]]) -> None:
        async def scene(engine: Engine) -> None:
            granted: dict[int, int] = {}
            async with engine.opened() as store:
                for owner in OWNERS[:enlisted]:
                    await _enlist(store, owner)
                for who, want, pause in asks:
                    engine.clock.pass_(pause)
                    grant = await _one(store, OWNERS[who], _uses(want, cap=cap))
                    assert grant.until - 1_000 <= engine.clock.now() < grant.until
                    granted[grant.until] = granted.get(grant.until, 0) + grant.amount
                    assert granted[grant.until] + grant.left <= cap
                    assert 0 <= grant.amount <= want
                    assert (
                        grant.amount or not want or not grant.left
                    )  # never none where some is left

        with make_engine() as engine:
            asyncio.run(scene(engine))

    check()


# --- together -------------------------------------------------------------------------------------


def test_asks_of_several_callers_at_once_are_answered_in_their_own_order(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store, engine.opened() as other:
            one, two = make_id(), make_id()
            asks = [
                _seats(6, cap=10),
                _uses(6, cap=10),
                _seats(1, cap=9, name="relay/2"),
                _uses(9, cap=10, window=60_000, name="relay/1/minute"),
            ]
            answers = await asyncio.gather(
                store.share(one, asks, lease_ms=LEASE),
                store.share(two, asks, lease_ms=LEASE),
                other.share(make_id(), asks, lease_ms=LEASE),
            )
            for grants in answers:
                assert [g.name for g in grants] == [a.name for a in asks]
            for place, most in ((0, 10), (1, 10), (3, 10)):
                assert sum(grants[place].amount for grants in answers) == most
            assert [grants[2].amount for grants in answers] == [1, 1, 1]

    asyncio.run(scene())


def test_purge_takes_what_is_over_and_leaves_what_holds(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            owner = make_id()
            await store.note([_note("health", "old", lasts=10), _note("health", "new")])
            day = _uses(1, cap=1, window=DAY, name="relay/1/day")
            await store.share(owner, [_seats(1, cap=1), _uses(1, cap=1), day], lease_ms=LEASE)
            assert await store.purge(before=START, limit=1000) == 0
            engine.clock.pass_(LEASE + 1)
            assert await store.purge(before=engine.clock.now(), limit=1000) == 3
            assert await store.purge(before=engine.clock.now(), limit=1000) == 0
            assert [n.key for n in (await store.noted(["health"]))[1]] == ["new"]
            assert (await _one(store, owner, day)).amount == 0

    asyncio.run(scene())
