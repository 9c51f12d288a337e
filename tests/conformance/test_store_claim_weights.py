"""claim, by weight: a project's share of the queue, a stream's share of its project, and what
becomes of a share that nobody uses."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from everpost.ids import IdMaker
from everpost.model.message import Priority
from everpost.model.states import InDoubtPolicy
from everpost.store.interface import Claim, ProjectRow, Store, StreamRow
from tests.conformance.engines import Engine, MakeEngine
from tests.conformance.making import DAY, START, claims, lane, message

LEASE = 900_000

make_id = IdMaker(lambda: START)

CLAIMS = 40
"""Of one example at most; each must be fair."""

weights = st.lists(st.integers(1, 12), min_size=2, max_size=5)


async def _project(store: Store, id_: int, weight: int) -> None:
    row = ProjectRow(id=id_, name=f"p{id_}", sandbox=False, created_at=START, weight=weight)
    await store.put(row, actor="test", action="add")


async def _stream(store: Store, project: int, name: str, weight: int = 1) -> None:
    row = StreamRow(
        project=project, name=name, priority="transactional", in_doubt=InDoubtPolicy.RESEND,
        lifetime_ms=5 * DAY, retry_first_ms=60_000, retry_cap_ms=60_000, weight=weight,
    )  # fmt: skip
    await store.put(row, actor="test", action="add")


async def _queue(
    store: Store, n: int, to: str = "a.test", *, project: int = 1, stream: str | None = None
) -> None:
    sent = [message(f"x@{to}", id_=make_id(), project=project, stream=stream) for _ in range(n)]
    await store.accept(project, sent)


async def _claim(store: Store, limit: int, busy: Sequence[str] = ()) -> Sequence[Claim]:
    return claims(await store.claim(make_id(), limit=limit, lease_ms=LEASE, busy=busy))


def _within_a_claim(got: Mapping[int, int], by: Mapping[int, int], limit: int) -> None:
    """Whether everybody has what his weight is worth, to within one claim."""
    total, whole = sum(got.values()), sum(by.values())
    for group, weight in by.items():
        assert abs(got.get(group, 0) - total * weight / whole) <= limit


def test_a_project_gets_more_or_less_than_its_weight(make_engine: MakeEngine) -> None:
    @settings(max_examples=make_engine.examples(15), deadline=None)
    @given(by_weight=weights, limit=st.integers(1, 40))
    def check(by_weight: list[int], limit: int) -> None:
        by = dict(enumerate(by_weight, 1))

        async def scene(engine: Engine) -> None:
            async with engine.opened() as store:
                for id_, weight in by.items():
                    await _project(store, id_, weight)
                    await _queue(store, 120, project=id_)
                got: Counter[int] = Counter()
                for _ in range(CLAIMS):
                    if max(got.values(), default=0) + limit > 120:  # somebody might have no more
                        break
                    taken = await _claim(store, limit)
                    assert len(taken) == limit
                    got.update(int(c.route.partition("/")[0]) for c in taken)
                    _within_a_claim(got, by, limit)

        with make_engine() as engine:
            asyncio.run(scene(engine))

    check()


def test_a_stream_gets_more_or_less_than_its_weight(make_engine: MakeEngine) -> None:
    @settings(max_examples=make_engine.examples(15), deadline=None)
    @given(by_weight=weights, limit=st.integers(1, 40))
    def check(by_weight: list[int], limit: int) -> None:
        by = dict(enumerate(by_weight))

        async def scene(engine: Engine) -> None:
            async with engine.opened() as store:
                await _project(store, 2, 1)
                await _queue(store, 300, project=2)
                for n, weight in by.items():
                    await _stream(store, 1, f"s{n}", weight)
                    await _queue(store, 120, stream=f"s{n}")
                got: Counter[int] = Counter()
                for _ in range(CLAIMS):
                    if max(got.values(), default=0) + limit > 120 or sum(got.values()) >= 200:
                        break
                    taken = await _claim(store, limit)
                    names = [c.route.split("/")[1] for c in taken if c.route.startswith("1/")]
                    assert abs(2 * len(names) - limit) <= 2  # the other project has its half
                    got.update(int(name[1:]) for name in names)
                    _within_a_claim(got, by, limit)

        with make_engine() as engine:
            asyncio.run(scene(engine))

    check()


def test_a_project_with_many_destinations_takes_the_place_of_one_with_a_single(
    engine: Engine,
) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            await _project(store, 2, 1)
            sent = [message(f"x@d{n}.test", id_=make_id(), project=2) for n in range(2_000)]
            await store.accept(2, sent)
            await _queue(store, 300)
            got: Counter[str] = Counter()
            for _ in range(10):
                got.update(c.route[:2] for c in await _claim(store, 50))
            assert got == {"1/": 250, "2/": 250}

    asyncio.run(scene())


def test_a_share_that_nobody_uses_is_lost(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            await _project(store, 2, 1_000)
            await _project(store, 3, 1)
            await _queue(store, 100)
            await _queue(store, 3, project=2)
            await _queue(store, 100, project=3)
            got = Counter(c.route[:2] for c in await _claim(store, 43))
            assert got["2/"] == 3
            assert abs(got["1/"] - 20) <= 1
            assert len(await _claim(store, 1_000)) == 160

    asyncio.run(scene())


def test_projects_wait_for_more_than_a_turn_when_a_claim_is_smaller_than_their_number(
    engine: Engine,
) -> None:
    """Each in its turn has as many rows as it weighs."""

    async def scene() -> None:
        async with engine.opened() as store:
            for id_ in range(2, 101):
                await _project(store, id_, 3 if id_ % 2 else 1)
                await _queue(store, 9, project=id_)
            got: Counter[int] = Counter()
            for _ in range(22):  # 49 x 3 + 50 x 1 rows are a turn of all: 197
                got.update(int(c.route.partition("/")[0]) for c in await _claim(store, 9))
            assert all(got[id_] >= (3 if id_ % 2 else 1) for id_ in range(2, 101))
            assert max(got.values()) <= 6

    asyncio.run(scene())


def test_a_stream_among_very_many_is_never_served(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            for n in range(50):
                await _stream(store, 1, f"s{n:02}")
                await _queue(store, 4, stream=f"s{n:02}")
            got: Counter[str] = Counter()
            for _ in range(12):
                got.update(c.route for c in await _claim(store, 10))
            assert len(got) == 50

    asyncio.run(scene())


def test_a_busy_project_or_stream_gets_something_all_the_same(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            await _project(store, 2, 1)
            await _stream(store, 1, "other")
            for project in (1, 2):
                await _queue(store, 5, project=project)
            await _queue(store, 5, stream="other")
            busy = ["2/", "1/transactional/"]
            assert {c.route for c in await _claim(store, 9, busy)} == {"1/other/a.test"}
            assert await _claim(store, 9, busy) == []
            assert await store.next_due(busy) is None
            assert await store.next_due(["2/"]) == START
            assert {c.route for c in await _claim(store, 9, ["1/"])} == {lane("a.test", project=2)}

    asyncio.run(scene())


def test_a_claim_takes_more_broadcast_mail_than_it_may(engine: Engine) -> None:
    async def scene() -> None:
        async with engine.opened() as store:
            many = [message(id_=make_id(), priority=Priority.BROADCAST) for _ in range(20)]
            await store.accept(1, many)
            await _queue(store, 4)
            owner = make_id()
            got = claims(await store.claim(owner, limit=10, lease_ms=LEASE, broadcast=3))
            assert Counter(c.route.split("/")[1] for c in got) == {
                "transactional": 4, "broadcast": 3
            }  # fmt: skip
            assert await store.claim(owner, limit=10, lease_ms=LEASE, broadcast=0) == []
            assert await store.next_due(broadcast=False) is None
            assert await store.next_due() == START

    asyncio.run(scene())
