"""Two nodes, one database that comes and goes, a link between the nodes that does, too, processes
that die, and at the end perhaps a host that never comes back: whatever was acknowledged is in the
database once when all is over, but for what only the lost host's journal had."""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from everpost.ids import Id
from everpost.journal.entry import decode
from everpost.model.message import Assurance
from everpost.store.interface import Accepted, IdempotencyKey, Replayed
from tests.conformance.making import message
from tests.support.journalling import Desk, desk, key

T = TypeVar("T")

NODES = st.sampled_from(["a", "b"])
KEYS = st.sampled_from([None, None, "k1", "k2", "k3"])


class _Link:
    """Copies go straight into the other node's journal, while the link is up and it lives."""

    def __init__(self, cluster: "Cluster", to: str) -> None:
        self._cluster = cluster
        self._to = to

    async def copy(self, body: bytes) -> bool:
        if not self._cluster.linked:
            return False
        await self._cluster.nodes[self._to].journal.hold([(decode(body), body)])
        return True


class Cluster(RuleBasedStateMachine):
    empty: Path

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="everpost-", dir=_memory()))
        self.database = self.folder / "store.db"
        shutil.copy(self.empty, self.database)
        self.mode = "down"
        self.linked = True
        self.lost: str | None = None
        self.nodes: dict[str, Desk] = {}
        self.stacks: dict[str, AsyncExitStack] = {}
        self.acknowledged: dict[Id, tuple[str, Assurance]] = {}
        self.plain: set[Id] = set()
        self.keyed: dict[str, set[Id]] = {}
        for name in ("a", "b"):
            self._run(self._start(name))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    async def _start(self, name: str) -> None:
        stack = AsyncExitStack()
        node = await stack.enter_async_context(
            desk(self.database, journal=self.folder / f"{name}.db")
        )
        node.journal.node = name
        node.accepting._peers = _Link(self, "b" if name == "a" else "a")
        node.accepting._patience_s = 0.005
        node.switch.mode = self.mode
        self.nodes[name], self.stacks[name] = node, stack

    @rule(mode=st.sampled_from(["up", "down", "silent", "late"]))
    def the_database_changes(self, mode: str) -> None:
        self.mode = mode
        self._run(self._set(mode))

    async def _set(self, mode: str) -> None:
        for node in self.nodes.values():
            node.switch.mode = mode
            node.switch.answer.set()
            node.switch.answer = asyncio.Event()
        await asyncio.sleep(0)

    @rule()
    def the_link_changes(self) -> None:
        self.linked = not self.linked

    @rule(requests=st.lists(st.tuples(NODES, KEYS), min_size=1, max_size=5))
    def accept(self, requests: list[tuple[str, str | None]]) -> None:
        for name, named in requests:
            self._accept(name, named)

    def _accept(self, name: str, named: str | None) -> None:
        sent = message()
        record = None if named is None else _for_ever(key(named, answer=sent.id))
        outcome = self._run(self.nodes[name].accepting.accept(1, [sent], record))
        match outcome:
            case Accepted(assurance=assurance):
                self.acknowledged[sent.id] = (name, assurance)
                if named is None:
                    self.plain.add(sent.id)
                else:
                    self.keyed.setdefault(named, set()).add(sent.id)
            case Replayed(answer=first):
                assert named is not None
                assert first in self.keyed[named]
            case _:
                raise AssertionError(outcome)

    @rule(name=NODES)
    def a_process_dies(self, name: str) -> None:
        async def again() -> None:
            await self.stacks[name].aclose()
            await self._start(name)

        self._run(again())

    @rule(name=NODES)
    def drain(self, name: str) -> None:
        if self.mode in {"up", "down"}:  # in the others it would wait for us
            self._run(self.nodes[name].drain.round())

    @rule()
    def time_passes(self) -> None:
        for node in self.nodes.values():
            node.clock.pass_(400_000)

    @rule(name=NODES)
    def a_failover(self, name: str) -> None:
        for node in self.nodes.values():
            node.switch.timeline += 1

    @rule(name=NODES)
    def a_host_will_not_come_back(self, name: str) -> None:
        """It goes on until the end; then its journal is gone before it was drained."""
        self.lost = name

    async def _heal(self) -> None:
        """What survives drains; then what was acknowledged is counted."""
        self.mode, self.linked = "up", True
        await self._set("up")
        for name, node in self.nodes.items():
            if name != self.lost:
                await node.drain.round()
        await self._check(self.lost)

    async def _check(self, lost: str | None) -> None:
        store = self.nodes["b" if lost == "a" else "a"].store
        for id_, (name, assurance) in self.acknowledged.items():
            if name == lost and assurance is Assurance.JOURNAL:
                continue
            row = await store.message(1, id_)
            assert row is not None, (name, assurance)
            assert row.id == id_
        if lost is None:
            facts = await store.facts()
            assert facts.accepted == len(self.plain) + len(self.keyed)

    def teardown(self) -> None:
        try:
            self._run(self._heal())
        finally:
            for stack in self.stacks.values():
                self._run(stack.aclose())
            self.loop.close()
            shutil.rmtree(self.folder)


def _for_ever(named: IdempotencyKey) -> IdempotencyKey:
    """However much time passes here, it does not end."""
    return msgspec.structs.replace(named, expires_at=1 << 60)


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def test_what_was_acknowledged_is_there_once(empty_store: Path) -> None:
    Cluster.empty = empty_store
    run_state_machine_as_test(
        Cluster,
        settings=settings(
            max_examples=60,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
