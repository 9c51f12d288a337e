"""claim, whatever was queued, claimed, settled or busy before: nobody is left out, nobody goes
twice, and what is urgent goes first."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from everpost.ids import Id, IdMaker
from everpost.model.message import Priority
from everpost.store.interface import Claim
from tests.conformance.engines import Engine, MakeEngine
from tests.conformance.making import START, claims, deferred, delivered, lane, message

DESTINATIONS = [f"r{i}.test" for i in range(6)]
ROUTES = [lane(to, priority) for to in DESTINATIONS for priority in Priority]
LEASE = 900_000

make_id = IdMaker(lambda: START)
"""Of its own: so many are made here that their time moves on."""

Key = tuple[Id, int]


class Queue(RuleBasedStateMachine):
    """Two processes that claim, beside a plain list of what is due."""

    make_engine: MakeEngine

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.engine = self.stack.enter_context(self.make_engine())
        self.runner = self.stack.enter_context(asyncio.Runner())
        self.stores = [self.engine.store(), self.engine.store()]
        for store in self.stores:
            self.runner.run(store.open())
        self.owner = make_id()
        self.queued: dict[Key, tuple[int, str, int]] = {}
        """(priority, route, not before) of each."""
        self.held: dict[Key, tuple[int, Claim]] = {}

    def teardown(self) -> None:
        for store in self.stores:
            self.runner.run(store.close())
        self.stack.close()

    @rule(
        destinations=st.lists(st.sampled_from(DESTINATIONS), min_size=1, max_size=8),
        wait=st.sampled_from([0, 0, 0, 500]),
        broadcast=st.booleans(),
    )
    def accept(self, destinations: Sequence[str], wait: int, broadcast: bool) -> None:
        due = self.engine.clock.now() + wait
        priority = Priority.BROADCAST if broadcast else Priority.TRANSACTIONAL
        sent = [
            message(f"x@{to}", id_=make_id(), not_before=due, priority=priority)
            for to in destinations
        ]
        self.runner.run(self.stores[0].accept(1, sent))
        for each, to in zip(sent, destinations, strict=True):
            self.queued[each.id, 1] = (int(broadcast), lane(to, priority), due)

    @rule(
        side=st.integers(0, 1),
        limit=st.integers(1, 12),
        busy=st.lists(st.sampled_from(ROUTES), unique=True, max_size=4),
    )
    def claim(self, side: int, limit: int, busy: Sequence[str]) -> None:
        now = self.engine.clock.now()
        may = {
            key: what for key, what in self.queued.items() if what[2] <= now and what[1] not in busy
        }
        taken = claims(
            self.runner.run(
                self.stores[side].claim(self.owner, limit=limit, lease_ms=LEASE, busy=busy)
            )
        )
        keys = [(c.message, c.n) for c in taken]
        assert len(set(keys)) == len(keys) == min(limit, len(may)), "some were left behind"
        assert set(keys) <= set(may), "not due, busy, or in somebody's hands"
        left = {key: what for key, what in may.items() if key not in set(keys)}
        got = [may[key] for key in keys]
        if any(priority == 1 for priority, _, _ in got):
            assert not any(priority == 0 for priority, _, _ in left.values())
        for priority, route, _ in left.values():
            went = [due for p, r, due in got if (p, r) == (priority, route)]
            waiting = [due for p, r, due in left.values() if (p, r) == (priority, route)]
            assert not went or max(went) <= min(waiting), "a younger one went first"
        for priority in (0, 1):
            lanes = {r for p, r, _ in may.values() if p == priority}
            served = {r for p, r, _ in got if p == priority}
            room = limit - sum(1 for p, _, _ in got if p < priority)
            assert len(served) >= min(len(lanes), room), "a lane was passed over"
        for claim in taken:
            del self.queued[claim.message, claim.n]
            self.held[claim.message, claim.n] = (may[claim.message, claim.n][0], claim)

    @rule(data=st.data(), how=st.sampled_from(["delivered", "deferred", "resigned"]))
    def let_go(self, data: st.DataObject, how: str) -> None:
        if not self.held:
            return
        key = data.draw(st.sampled_from(sorted(self.held)))
        priority, claim = self.held.pop(key)
        store = self.stores[data.draw(st.integers(0, 1))]
        now = self.engine.clock.now()
        match how:
            case "delivered":
                assert self.runner.run(store.settle(self.owner, [delivered(claim)])) == [True]
                return
            case "deferred":
                due = now + 500
                moved = self.runner.run(store.settle(self.owner, [deferred(claim, at=due)]))
            case _:
                due = min(claim.not_before, now)
                named = (claim.message, claim.n, claim.term)
                moved = self.runner.run(store.resign(self.owner, [named]))
        assert moved == [True]
        self.queued[key] = (priority, claim.route, due)

    @rule(ms=st.sampled_from([1, 500]))
    def time_passes(self, ms: int) -> None:
        self.engine.clock.pass_(ms)


def test_any_order_of_claims_loses_or_prefers_somebody(make_engine: MakeEngine) -> None:
    machine = type("Counted", (Queue,), {"make_engine": staticmethod(make_engine)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=make_engine.examples(30), stateful_step_count=25, deadline=None
        ),
    )


def test_a_lane_waits_for_more_than_one_turn_of_all(make_engine: MakeEngine) -> None:
    """Claims smaller than the number of lanes go round: after one turn of all, each lane that is
    not busy was served, however much the others have."""

    @settings(max_examples=make_engine.examples(15), deadline=None)
    @given(
        lanes=st.integers(1, 40),
        limit=st.integers(1, 12),
        busy=st.sets(st.integers(0, 39), max_size=20),
    )
    def check(lanes: int, limit: int, busy: set[int]) -> None:
        destinations = [f"r{i:02}.test" for i in range(lanes)]
        closed = [lane(destinations[i]) for i in busy if i < lanes]

        async def scene(engine: Engine) -> None:
            async with engine.opened() as store:
                await store.accept(
                    1, [message(f"x@{to}", id_=make_id()) for to in destinations for _ in range(12)]
                )
                served: Counter[str] = Counter()
                open_ = lanes - len(closed)
                for _ in range(-(-open_ // limit)):
                    got = await store.claim(make_id(), limit=limit, lease_ms=LEASE, busy=closed)
                    served.update(c.route for c in claims(got))
                assert set(served) == {lane(to) for to in destinations} - set(closed)

        with make_engine() as engine:
            asyncio.run(scene(engine))

    check()


def test_large_content_comes_with_every_claim(make_engine: MakeEngine) -> None:
    """It is fetched when it is needed, and so is what is known of its size."""

    async def scene(engine: Engine) -> None:
        async with engine.opened() as store:
            large, small = message(sealed=b"l" * 40_000), message(sealed=b"s" * 30_000)
            await store.accept(1, [large, small])
            got = {c.message: c for c in await store.claim(make_id(), limit=9, lease_ms=LEASE)}
            assert got[small.id].sealed == small.sealed
            assert got[large.id].sealed is None
            assert got[large.id].size == large.size
            assert await store.content(got[large.id].content_id) == large.sealed

    with make_engine() as engine:
        asyncio.run(scene(engine))
