"""One run: a host, a house, sinks, clients, faults; then heal, drain and check."""

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import apsw

from tests.chaos.checker import Verdict, check
from tests.chaos.clients import Client
from tests.chaos.faults import Faults
from tests.chaos.history import History
from tests.chaos.nemesis import HUNG_S, LEASE_S, schedule
from tests.chaos.record import Recorded, read_record
from tests.chaos.sink import Sink
from tests.chaos.watching import Peaks, Watcher
from tests.support.faketime import WallClock
from tests.support.house import House
from tests.support.power import Host

__all__ = ["Plan", "Result", "idle", "run"]

_SETTINGS = {
    "EVERPOST_DELIVERY_DOT_S": "5",
    "EVERPOST_DISPATCH_LEASE_S": f"{LEASE_S:g}",
    "EVERPOST_NODE_HUNG_S": f"{HUNG_S:g}",
    "EVERPOST_DELIVERY_CONNECT_S": "2",
    "EVERPOST_DELIVERY_GREET_S": "3",
    "EVERPOST_DELIVERY_MAIL_S": "20",
    "EVERPOST_DELIVERY_RCPT_S": "20",
    "EVERPOST_DELIVERY_DATA_S": "20",
    "EVERPOST_DELIVERY_BLOCK_S": "20",
    "EVERPOST_DELIVERY_EJECT_S": "0.5",
    "EVERPOST_DELIVERY_PROBE_S": "2",
}
"""Waits of minutes are seconds here, so that a run of ten minutes sees their ends. Those within a
transaction are longer than a claim's term: a process that stood still goes on with its mail."""

_STREAM = {"retry_first": 1, "retry_cap": 4}
_MOST_RSS_MIB = 1200
_MOST_FILES = 4096
_LOOKS_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """`rate`: messages a second over all clients, at most; `drain_s`: the bound of the drain."""

    seed: int
    seconds: float
    faults: tuple[str, ...]
    rate: float = 500.0
    clients: int = 12
    sinks: int = 3
    mutant: str | None = None
    drain_s: float = 90.0


@dataclass(slots=True)
class Result:
    """`kills`: processes killed, those of a power cut left out. `problems` are what broke beside
    the invariants of the verdict; `findings`, what `everpost verify` found, live and stopped.
    `released`: messages that were held as poison because the faults killed their processes, and
    that the drain let go."""

    plan: Plan
    verdict: Verdict = field(default_factory=Verdict)
    kills: int = 0
    cuts: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    tormented_s: float = 0.0
    drained_s: float = 0.0
    released: int = 0
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
            host = stack.enter_context(Host(Path(stack.enter_context(_quick_folder()))))
            host.log = self._folder / "server.log"
            clock = WallClock(self._folder)
            settings = dict(_SETTINGS)
            if any(name.startswith("clock") for name in plan.faults):
                settings |= _seldom(clock.environment)
                inside = (*clock.inside, *inside)
            house = host.house(inside=inside, settings=settings, processes=3)
            stack.enter_context(house)
            for sink in sinks:
                house.relay(sink.url, name=sink.name, tls="none")
            house.domain(signing="unsigned")
            answer = house.call("PATCH", "/streams/transactional", _STREAM)
            assert answer.status == 200, answer
            faults = Faults(house, host, sinks, clock, self._history)
            try:
                if not self._torment(host, house, faults):
                    return result  # there is no server whose record could be read
                for sink in sinks:
                    sink.behave("ok")
                self._drain(house)
                self._audit(house)
            except (AssertionError, OSError, HTTPException) as error:
                result.problems.append(f"the server could not be asked at the end: {error!r}")
                return result
            finally:
                self._history.close()
            for sink in sinks:
                sink.close()
                if sink.ended != 0:
                    result.problems.append(f"{sink.name} ended with {sink.ended}")
            copies = [taken for sink in sinks for taken in sink.taken()]
        result.verdict = check(self._history.events, copies, self._record)
        result.problems += idle(result)
        return result

    # -- clients and faults ------------------------------------------------------------------------

    def _torment(self, host: Host, house: House, faults: Faults) -> bool:
        """Whether the server is there at the end: all faults could be done, and healed."""
        plan, result = self._plan, self._result
        each = plan.rate / plan.clients
        clients = [
            Client(house, self._history, number=n, seed=plan.seed, rate=each)
            for n in range(plan.clients)
        ]
        watcher = Watcher(house, lambda: self._progress(host, faults))
        watcher.start()
        for client in clients:
            client.start()
        began = time.monotonic()
        plays = schedule(plan.seed, plan.seconds, faults=plan.faults) if plan.faults else []
        healed = True
        try:
            faults.play(plays, seconds=plan.seconds)
        except Exception as error:
            healed = False
            result.problems.append(f"a fault could not be done, or healed: {error!r}")
            for client in clients:
                client.hopeless.set()
        else:
            threading.Event().wait(max(0.0, began + plan.seconds - time.monotonic()))
        result.tormented_s = round(time.monotonic() - began, 1)
        for client in clients:
            client.ended.set()
        for client in clients:
            client.join(120)
            if client.stuck is not None and healed:
                result.problems.append(f"{client.stuck} never got an answer")
            elif client.is_alive():
                result.problems.append("a client hangs")
            if client.error is not None:
                result.problems.append(f"a client ended: {client.error!r}")
        result.kills, result.cuts, result.faults = faults.kills, host.cuts, dict(faults.done)
        watcher.ended.set()
        watcher.join(10)
        result.peaks = watcher.peaks
        if result.peaks.rss_mib > _MOST_RSS_MIB or result.peaks.files > _MOST_FILES:
            result.problems.append(f"I16: {result.peaks}")
        return healed

    def _progress(self, host: Host, faults: Faults) -> str:
        return (
            f"{self._history.acknowledged} messages acknowledged, {faults.kills} kills,"
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
            threading.Event().wait(_LOOKS_EVERY_S)
            for id_ in _poisoned(house):
                self._history.write("release", of=id_)
                self._result.released += 1
                house.post(f"/emails/{id_}/release", None)
            answer = house.get("/status")
            if answer.status == 200:
                states = answer.json["states"]
        self._result.drained_s = round(time.monotonic() - began, 1)

    def _audit(self, house: House) -> None:
        """The books, live and stopped; then the server is stopped and its record is read."""
        result = self._result
        status = house.get("/status").json
        result.findings += [f"live: {each}" for each in self._unexpected(house.findings())]
        if (code := house.stop()) != 0:
            result.problems.append(f"the server ended with {code}")
        result.findings += [f"stopped: {each}" for each in self._unexpected(house.findings())]
        self._record = read_record(house.data / "everpost.db")
        counts = {
            "accepted": status["accepted"],
            "states": sum(status["states"].values()),
            "recorded": sum(len(each.elements) for each in self._record),
        }
        if len(set(counts.values())) != 1:
            result.problems.append(f"I20: {counts}")

    def _unexpected(self, findings: Sequence[str]) -> list[str]:
        """Without those of the messages in which the nemesis flipped a bit; that one of these was
        not found is reported in its place."""
        ids = [event["id"] for event in self._history.events if event["kind"] == "flip"]
        found = {each.partition(":")[0] for each in findings}
        expected = {f"content_damaged {id_}" for id_ in ids}
        missed = [f"not found: {each}" for each in sorted(expected - found)]
        return [each for each in findings if each.partition(":")[0] not in expected] + missed


def idle(result: Result) -> list[str]:
    """Why a run shows nothing: what nobody did cannot have gone wrong."""
    found = []
    if not result.verdict.acknowledged or not result.verdict.delivered:
        found.append("nothing was acknowledged, or nothing was delivered")
    if result.plan.faults and not any("(" not in name for name in result.faults):
        found.append("no fault was done")
    if not result.peaks.processes:
        found.append("I16: memory and files were never looked at")
    return found


def _quick_folder() -> "TemporaryDirectory[str]":
    """Where the disk's image lies: in memory, if there is room, so that it is the faults that slow
    the host down and not this machine's disk. What was not flushed is as lost at a power cut."""
    memory = Path("/dev/shm")
    return TemporaryDirectory(prefix="chaos-", dir=memory if memory.is_dir() else None)


def _seldom(environment: Mapping[str, str]) -> dict[str, str]:
    """Steps are seen within a second: to look at each reading of the clock would take most of the
    processor."""
    kept = {k: v for k, v in environment.items() if k != "FAKETIME_NO_CACHE"}
    return {**kept, "FAKETIME_CACHE_DURATION": "1"}


def _poisoned(house: House) -> Sequence[str]:
    query = "SELECT DISTINCT message FROM recipients WHERE state = 'held' AND reason = 'poison'"
    db = apsw.Connection(str(house.data / "everpost.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return [str(UUID(bytes=id_)) for (id_,) in db.execute(query)]
    finally:
        db.close()
