"""Whatever is done in whatever order: nothing is lost, nothing counted twice, no gap in a timeline,
and the ledger finds nothing wrong (I5, I20)."""

import asyncio
import contextlib
from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from everpost.ids import Id
from everpost.ledger import Findings, check_store, walk
from everpost.model.states import TERMINAL, HeldReason, State, Verb, allowed
from everpost.store.interface import Claim, Settlement, WorkerRow
from tests.conformance.engines import MakeEngine
from tests.conformance.making import START, attempt, claims, make_id, message, settlement

TARGETS = [s for s in State if allowed(State.CLAIMED, Verb.SETTLE, s)]
RESCUES = [s for s in State if allowed(State.CLAIMED, Verb.RESCUE, s)]


_EVENTS = {State.QUEUED: "deferred", State.HELD: "held"}


def _to(claim: Claim, target: State, now: int, wait: int) -> Settlement:
    """As dispatch writes it; of every other recipient an attempt was made."""
    tried = claim.n % 2 == 0
    return settlement(
        claim,
        target,
        event=_EVENTS.get(target, target.value),
        data={"attempt": claim.attempts + 1} if tried else {},
        record=attempt() if tried else None,
        not_before=now + wait if target is State.QUEUED else None,
        reason=HeldReason.IN_DOUBT if target is State.HELD else None,
    )


class Mailroom(RuleBasedStateMachine):
    """Two processes and two owners on one store. A claim once held stays in `claims` for ever, so
    that most of what is settled later is stale."""

    make_engine: MakeEngine

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.engine = self.stack.enter_context(self.make_engine())
        self.runner = self.stack.enter_context(asyncio.Runner())
        self.stores = [self.engine.store(), self.engine.store()]
        for store in self.stores:
            self.runner.run(store.open())
        self.owners = [make_id(), make_id()]
        for pid, owner in enumerate(self.owners):
            worker = WorkerRow(owner, "dispatch", pid, "boot", f"dots-{pid}.log", START, START)
            self.runner.run(self.stores[0].register(worker))
        self.messages: list[Id] = []
        self.claims: list[tuple[int, Claim]] = []
        self.accepted = 0
        self.ended: dict[tuple[Id, int], State] = {}

    def teardown(self) -> None:
        try:
            findings = Findings()
            checked = self.runner.run(walk(self.stores[1], findings, limit=3))
            self.runner.run(check_store(self.stores[1], findings))
            assert findings.kept == []
            assert checked.recipients == self.accepted
        finally:
            for store in self.stores:
                self.runner.run(store.close())
            self.stack.close()

    @initialize(n=st.integers(1, 4))
    def first(self, n: int) -> None:
        self.accept(n=n, wait=0, side=0)

    @rule(n=st.integers(1, 5), wait=st.sampled_from([0, 0, 500]), side=st.integers(0, 1))
    def accept(self, n: int, wait: int, side: int) -> None:
        sent = message(
            *(f"x{i}@r{i % 3}.test" for i in range(n)), not_before=self.engine.clock.now() + wait
        )
        self.runner.run(self.stores[side].accept(1, [sent]))
        self.messages.append(sent.id)
        self.accepted += n

    @rule(side=st.integers(0, 1), limit=st.integers(1, 8))
    def claim(self, side: int, limit: int) -> None:
        taken = self.runner.run(
            self.stores[side].claim(self.owners[side], limit=limit, lease_ms=1_000)
        )
        self.claims += [(side, claim) for claim in claims(taken)]

    @rule(data=st.data(), wait=st.sampled_from([0, 500]), rescued=st.booleans())
    def settle(self, data: st.DataObject, wait: int, rescued: bool) -> None:
        if not self.claims:
            return
        side, claim = data.draw(st.sampled_from(self.claims))
        target = data.draw(st.sampled_from(RESCUES if rescued else TARGETS))
        store = self.stores[data.draw(st.integers(0, 1))]
        verb = store.rescue if rescued else store.settle
        told = _to(claim, target, self.engine.clock.now(), wait)
        written = self.runner.run(verb(self.owners[side], [told, told]))
        assert not written[1]

    @rule(data=st.data())
    def resign(self, data: st.DataObject) -> None:
        if self.claims:
            side, claim = data.draw(st.sampled_from(self.claims))
            named = (claim.message, claim.n, claim.term)
            self.runner.run(self.stores[side].resign(self.owners[side], [named]))

    @rule(data=st.data(), verb=st.sampled_from(["cancel", "hold", "release", "reschedule"]))
    def control(self, data: st.DataObject, verb: str) -> None:
        id_ = data.draw(st.sampled_from(self.messages))
        store = self.stores[0]
        match verb:
            case "cancel":
                self.runner.run(store.cancel(1, id_))
            case "hold":
                self.runner.run(store.hold(1, id_, HeldReason.OPERATOR))
            case "release":
                self.runner.run(store.release(1, id_))
            case _:
                self.runner.run(store.reschedule(1, id_, self.engine.clock.now() + 100))

    @rule(ms=st.sampled_from([1, 500, 2_000]))
    def time_passes(self, ms: int) -> None:
        self.engine.clock.pass_(ms)

    @invariant()
    def all_is_accounted_for(self) -> None:
        store = self.stores[1]
        facts = self.runner.run(store.facts())
        rows, _ = self.runner.run(store.messages(1, limit=1000))
        counted = Counter(r.state.value for m in rows for r in m.recipients)
        assert {s: n for s, n in facts.states.items() if n} == dict(counted)
        assert facts.accepted == self.accepted == sum(counted.values())
        for row in rows:
            for r in row.recipients:
                was = self.ended.get((row.id, r.n))
                assert was is None or was is r.state, "an end was undone"
                if r.state in TERMINAL:
                    self.ended[row.id, r.n] = r.state

    @invariant()
    def no_timeline_has_a_gap(self) -> None:
        for id_ in self.messages[-3:]:
            seqs = [e.seq for e in self.runner.run(self.stores[0].events(1, id_))]
            assert seqs == list(range(1, len(seqs) + 1))


def test_random_work_of_two_processes_keeps_the_books(make_engine: MakeEngine) -> None:
    machine = type("Room", (Mailroom,), {"make_engine": staticmethod(make_engine)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=make_engine.examples(30), stateful_step_count=30, deadline=None
        ),
    )
