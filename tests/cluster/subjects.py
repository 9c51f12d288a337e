"""What is tormented: Everpost on three hosts, or the database alone."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

import psycopg

from tests.chaos.checker import check
from tests.chaos.history import History
from tests.chaos.sink import Sink
from tests.cluster import record, writer
from tests.cluster.clients import PULSES, ClusterClient, Door, Pulse
from tests.cluster.cluster import Cluster
from tests.cluster.configuration import API, DATABASE
from tests.cluster.nodes import Nodes
from tests.cluster.record import Claims
from tests.cluster.report import Plan, Result
from tests.cluster.writer import Writer

__all__ = ["SUBJECTS", "Subject", "Worker"]

_LOOKS_EVERY_S = 0.5
_STEADY_S = 3.0
_PULSES, _PULSE = 4, 5.0
"""So many of them, and messages a second of each."""
_STREAM = {"retry_first": 1, "retry_cap": 4}


class Worker(Protocol):
    """A thread that asks for things."""

    ended: threading.Event
    error: Exception | None

    def start(self) -> None: ...
    def join(self, timeout: float | None = None) -> None: ...
    def is_alive(self) -> bool: ...


class Subject(Protocol):
    """What is tormented. `table`: whose rows a stranger locks."""

    table: str
    sinks: Sequence[Sink]

    def workers(self, history: History) -> Sequence[Worker]: ...

    def leader(self) -> str | None:
        """The host whose node does what one does for all."""

    def drain(self, result: Result) -> None:
        """Until nothing waits any more; all is healed."""

    def judge(self, history: History, result: Result) -> None:
        """Fills in the verdict."""

    def arrivals(self) -> list[float]: ...


class Database:
    """PostgreSQL alone."""

    table = writer.TABLE
    sinks: Sequence[Sink] = ()

    def __init__(self, cluster: Cluster, plan: Plan) -> None:
        self._cluster = cluster
        self._plan = plan

    def workers(self, history: History) -> Sequence[Worker]:
        each = self._plan.rate / self._plan.clients
        return [
            Writer(self._cluster, history, number=PULSES + n, rate=each)
            for n in range(self._plan.clients)
        ]

    def leader(self) -> str | None:
        return None

    def drain(self, result: Result) -> None:
        """Nothing waits in it."""

    def judge(self, history: History, result: Result) -> None:
        result.verdict = writer.judge(self._cluster, history)

    def arrivals(self) -> list[float]:
        return []


class Everpost:
    """A node on each host, sinks where the clients are."""

    table = "recipients"

    def __init__(self, cluster: Cluster, plan: Plan, sinks: Sequence[Sink]) -> None:
        self.sinks = sinks
        self._cluster = cluster
        self._plan = plan
        self._nodes = Nodes(cluster, pooled=plan.pooled)
        self._claims = Claims(cluster)

    def start(self) -> None:
        self._nodes.start({sink.name: sink.url for sink in self.sinks}, stream=_STREAM)
        self._claims.start()

    def stop(self) -> None:
        self._claims.ended.set()
        if self._claims.is_alive():
            self._claims.join(10)

    def workers(self, history: History) -> Sequence[Worker]:
        cluster, plan = self._cluster, self._plan
        door = Door(cluster.clients, [(b.address, API) for b in cluster.balancers],
                    self._nodes.front.key)  # fmt: skip
        each = plan.rate / plan.clients
        clients = [
            ClusterClient(door, history, number=n, seed=plan.seed, rate=each)
            for n in range(plan.clients)
        ]
        pulses = [
            Pulse(door, history, number=PULSES + n, seed=plan.seed, rate=_PULSE)
            for n in range(_PULSES)
        ]
        return [*clients, *pulses]

    def leader(self) -> str | None:
        return self._nodes.leader()

    def drain(self, result: Result) -> None:
        """Until nothing is queued or claimed, and nothing more comes from the journals. What is
        held because its process died of it (the faults killed them) is released."""
        for host in self._cluster.hosts:
            self._nodes.wait_ready(host)
        for sink in self.sinks:
            sink.behave("ok")
        began = steady = time.monotonic()
        last: Mapping[str, int] = {}
        while time.monotonic() - steady < _STEADY_S:
            if time.monotonic() - began > self._plan.drain_s:
                result.problems.append(f"I19: not drained in {self._plan.drain_s} s: {last}")
                break
            threading.Event().wait(_LOOKS_EVERY_S)
            found = self._states()
            self._release(result)
            if found != last or found.get("queued", 0) or found.get("claimed", 0):
                steady = time.monotonic()
            last = found
        result.drained_s = round(time.monotonic() - began - _STEADY_S, 1)

    def _states(self) -> Mapping[str, int]:
        with suppress(psycopg.Error):
            rows = self._cluster.sql(
                "SELECT state, count(*) FROM recipients GROUP BY state", database=DATABASE
            )
            return {str(state): int(n) for state, n in rows}
        return {}

    def _release(self, result: Result) -> None:
        held = "SELECT DISTINCT message FROM recipients WHERE state = 'held' AND reason = 'poison'"
        with suppress(psycopg.Error, OSError):
            for (id_,) in self._cluster.sql(held, database=DATABASE):
                self._nodes.front.post(f"/emails/{record.shown(id_)}/release", None)
                result.released.append(record.shown(id_))

    def judge(self, history: History, result: Result) -> None:
        for id_ in result.released:
            history.write("release", of=id_)
        result.findings += self._nodes.findings()
        self.stop()
        aliases = record.read_aliases(self._cluster)
        found = record.read_record(self._cluster)
        result.aliases = len(aliases)
        result.owners += record.two_owners(self._claims.owners)
        result.owners += record.read_overlaps(self._cluster)
        result.claims = len(self._claims.owners)
        for sink in self.sinks:
            sink.close()
            if sink.ended != 0:
                result.problems.append(f"{sink.name} ended with {sink.ended}")
        copies = [taken for sink in self.sinks for taken in sink.taken()]
        early = record.not_yet_shown(history.events)
        result.early_reads = len(early)
        excused = {id(event) for event in early}
        events = [event for event in history.events if id(event) not in excused]
        result.verdict = check(record.resolved(events, aliases), copies, found)

    def arrivals(self) -> list[float]:
        return [taken.at for sink in self.sinks for taken in sink.taken()]


@contextmanager
def _database(cluster: Cluster, plan: Plan, _: Path) -> Iterator[Subject]:
    writer.lay_out(cluster)
    yield Database(cluster, plan)


@contextmanager
def _everpost(cluster: Cluster, plan: Plan, folder: Path) -> Iterator[Subject]:
    with cluster.clients.inside():
        sinks = [Sink(folder, f"sink{n}", host=cluster.clients.address) for n in range(3)]
    subject = Everpost(cluster, plan, sinks)
    try:
        subject.start()
        yield subject
    finally:
        subject.stop()
        for sink in sinks:
            sink.close()


SUBJECTS: Mapping[str, Callable[[Cluster, Plan, Path], AbstractContextManager[Subject]]] = {
    "everpost": _everpost,
    "sql": _database,
}
