"""One run: a host, a house, sinks, clients, faults; then heal, drain and check."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import apsw

from tests.chaos.checker import Verdict, check
from tests.chaos.clients import Client
from tests.chaos.history import History
from tests.chaos.nemesis import Fault, schedule
from tests.chaos.record import Recorded, read_record
from tests.chaos.sink import Sink
from tests.chaos.watching import Peaks, Watcher
from tests.support.house import House
from tests.support.power import Host

__all__ = ["Plan", "Result", "run"]

_SETTINGS = {
    "EVERPOST_DELIVERY_DOT_S": "5",
    "EVERPOST_DISPATCH_LEASE_S": "8",
    "EVERPOST_DELIVERY_CONNECT_S": "2",
    "EVERPOST_DELIVERY_GREET_S": "3",
    "EVERPOST_DELIVERY_MAIL_S": "3",
    "EVERPOST_DELIVERY_RCPT_S": "3",
    "EVERPOST_DELIVERY_DATA_S": "3",
    "EVERPOST_DELIVERY_BLOCK_S": "3",
    "EVERPOST_DELIVERY_EJECT_S": "0.5",
    "EVERPOST_DELIVERY_PROBE_S": "2",
}
"""Waits of minutes are seconds here, so that a run of ten minutes sees their ends."""

_STREAM = {"retry_first": 1, "retry_cap": 4}
_MOST_RSS_MIB = 1200
_MOST_FILES = 4096


@dataclass(frozen=True, slots=True)
class Plan:
    """`rate`: messages a second over all clients, at most; `drain_s`: the bound of the drain."""

    seed: int
    seconds: float
    faults: tuple[str, ...]
    rate: float = 300.0
    clients: int = 8
    sinks: int = 3
    mutant: str | None = None
    drain_s: float = 90.0


@dataclass(slots=True)
class Result:
    """`kills`: processes killed, those of a power cut left out. `problems` are what broke beside
    the invariants of the verdict; `findings`, what `everpost verify` found, live and stopped."""

    plan: Plan
    verdict: Verdict = field(default_factory=Verdict)
    kills: int = 0
    cuts: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    tormented_s: float = 0.0
    drained_s: float = 0.0
    peaks: Peaks = field(default_factory=Peaks)

    @property
    def good(self) -> bool:
        return self.verdict.good and not self.problems and not self.findings


def run(plan: Plan, folder: Path) -> Result:
    """`folder` is kept: history.jsonl, the sinks' journals and the server's log. Needs root."""
    return _Run(plan, folder).run()


class _Run:
    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._history = History(folder / "history.jsonl")
        self._result = Result(plan)
        self._record: list[Recorded] = []

    def run(self) -> Result:
        plan, result = self._plan, self._result
        inside = (f"tests.chaos.mutants.{plan.mutant}",) if plan.mutant else ()
        with ExitStack() as stack:
            sinks = [stack.enter_context(Sink(self._folder, f"sink{n}")) for n in range(plan.sinks)]
            host = stack.enter_context(Host(self._folder))
            house = stack.enter_context(host.house(inside=inside, settings=_SETTINGS))
            for sink in sinks:
                house.relay(sink.url, name=sink.name, tls="none")
            house.domain(signing="unsigned")
            answer = house.call("PATCH", "/streams/transactional", _STREAM)
            assert answer.status == 200, answer
            self._torment(host, house)
            for sink in sinks:
                sink.behave("ok")
            self._drain(house)
            self._audit(house)
            for sink in sinks:
                sink.close()
            copies = [taken for sink in sinks for taken in sink.taken()]
        self._history.close()
        result.verdict = check(
            self._history.events, copies, self._record, flips="flip" in plan.faults,
            steps="clock" in plan.faults,
        )  # fmt: skip
        return result

    # -- clients and faults ------------------------------------------------------------------------

    def _torment(self, host: Host, house: House) -> None:
        plan, result = self._plan, self._result
        each = plan.rate / plan.clients
        clients = [
            Client(house, self._history, number=n, seed=plan.seed, rate=each)
            for n in range(plan.clients)
        ]
        watcher = Watcher(house, lambda: self._progress(host))
        watcher.start()
        for client in clients:
            client.start()
        began = time.monotonic()
        done: Counter[str] = Counter()
        for fault in schedule(plan.seed, plan.seconds, faults=plan.faults):
            threading.Event().wait(max(0.0, began + fault.at - time.monotonic()))
            if time.monotonic() > began + plan.seconds + 5:
                break
            self._history.write("fault", name=fault.name, length=fault.length)
            result.kills += _do(fault, host, house)
            done[fault.name] += 1
        threading.Event().wait(max(0.0, began + plan.seconds - time.monotonic()))
        result.tormented_s = round(time.monotonic() - began, 1)
        for client in clients:
            client.ended.set()
        for client in clients:
            client.join(120)
            if client.stuck is not None:
                result.problems.append(f"{client.stuck} never got an answer")
            elif client.is_alive():
                result.problems.append("a client hangs")
        result.cuts, result.faults = host.cuts, dict(done)
        watcher.ended.set()
        watcher.join(10)
        result.peaks = watcher.peaks
        if result.peaks.rss_mib > _MOST_RSS_MIB or result.peaks.files > _MOST_FILES:
            result.problems.append(f"I16: {result.peaks}")

    def _progress(self, host: Host) -> str:
        return (
            f"{self._history.acknowledged} messages acknowledged, {self._result.kills} kills,"
            f" {host.cuts} power cuts"
        )

    # -- afterwards --------------------------------------------------------------------------------

    def _drain(self, house: House) -> None:
        """Until nothing is queued or claimed. What is held because its process died of it (the
        faults killed them) is released; what is held in doubt, or as damaged, stays."""
        began = time.monotonic()
        end = began + self._plan.drain_s
        states: dict[str, int] = {"queued": 1}
        while states.get("queued", 0) or states.get("claimed", 0):
            if time.monotonic() > end:
                self._result.problems.append(
                    f"I19: not drained in {self._plan.drain_s} s: {states}"
                )
                break
            threading.Event().wait(0.2)
            for id_ in _poisoned(house):
                house.post(f"/emails/{id_}/release", None)
            answer = house.get("/status")
            if answer.status == 200:
                states = answer.json["states"]
        self._result.drained_s = round(time.monotonic() - began, 1)

    def _audit(self, house: House) -> None:
        """The books, live and stopped; then the server is stopped and its record is read."""
        result = self._result
        status = house.get("/status").json
        result.findings += [f"live: {each}" for each in house.findings()]
        if (code := house.stop()) != 0:
            result.problems.append(f"the server ended with {code}")
        result.findings += [f"stopped: {each}" for each in house.findings()]
        self._record = read_record(house.data / "everpost.db")
        counts = {
            "accepted": status["accepted"],
            "states": sum(status["states"].values()),
            "recorded": sum(len(each.elements) for each in self._record),
        }
        if len(set(counts.values())) != 1:
            result.problems.append(f"I20: {counts}")


def _poisoned(house: House) -> Sequence[str]:
    query = "SELECT DISTINCT message FROM recipients WHERE state = 'held' AND reason = 'poison'"
    db = apsw.Connection(str(house.data / "everpost.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return [str(UUID(bytes=id_)) for (id_,) in db.execute(query)]
    finally:
        db.close()


def _do(fault: Fault, host: Host, house: House) -> int:
    """How many processes it killed (those of a power cut are not counted)."""
    if fault.name == "power":
        host.cut(house)
        house.start()
        return 0
    children = house.children()
    if fault.name == "kill_all":
        house.kill()
        house.start()
        return len(children) + 1
    if not children:
        return 0
    victim = children[int(fault.pick * len(children))]
    try:
        if fault.name == "kill":
            os.kill(victim, signal.SIGKILL)
            return 1
        os.kill(victim, signal.SIGSTOP)
        threading.Event().wait(fault.length)
        os.kill(victim, signal.SIGCONT)
    except ProcessLookupError:
        pass
    return 0
