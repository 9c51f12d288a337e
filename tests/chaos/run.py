"""One run: a host, a house, clients, faults; then heal, drain and check."""

import os
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.checker import Copy, Element, Verdict, check
from tests.chaos.clients import Client
from tests.chaos.history import History
from tests.chaos.nemesis import Fault, schedule
from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.power import Host
from tests.support.waiting import wait_until

__all__ = ["Plan", "Result", "run"]

_SETTINGS = {"EVERPOST_DELIVERY_DOT_S": "5", "EVERPOST_DISPATCH_LEASE_S": "8"}


@dataclass(frozen=True, slots=True)
class Plan:
    """`rate`: messages a second over all clients, at most; `drain_s`: the bound of the drain."""

    seed: int
    seconds: float
    faults: tuple[str, ...]
    rate: float = 200.0
    clients: int = 8
    mutant: str | None = None
    drain_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Result:
    """`kills`: processes killed, those of a power cut left out; `states` are /status's tallies."""

    verdict: Verdict
    kills: int
    cuts: int
    faults: dict[str, int]
    drained_s: float
    accepted: int
    states: dict[str, int]

    @property
    def good(self) -> bool:
        """No invariant broke, and the tallies agree with the history: every client asks until its
        key is known, so one key is one message (I7, I20)."""
        counts = {self.accepted, sum(self.states.values()), self.verdict.acknowledged}
        return self.verdict.good and len(counts) == 1


def run(plan: Plan, folder: Path) -> Result:
    """`folder` is kept: history.jsonl and the server's log. Needs root."""
    history = History(folder / "history.jsonl")
    inside = (f"tests.chaos.mutants.{plan.mutant}",) if plan.mutant else ()
    with FarEnd() as far, Host(folder) as host:
        house = host.house(inside=inside, settings=_SETTINGS)
        house.log = folder / "server.log"
        with house:
            house.relay(far.url, tls="none")
            house.domain(signing="unsigned")
            gap_s = plan.clients / plan.rate
            clients = [Client(house, history, n, gap_s) for n in range(plan.clients)]
            for client in clients:
                client.start()
            done, kills = _torment(plan, host, house, history)
            for client in clients:
                client.ended.set()
            for client in clients:
                client.join(90)
                assert client.stuck is None, f"{client.stuck} never acknowledged\n{house.tail()}"
                assert not client.is_alive(), f"a client hangs\n{house.tail()}"
            drained_s = _drain(house, plan.drain_s)
            copies = [
                Copy(r.partition("@")[0], m.message_id) for m in far.complete for r in m.recipients
            ]
            record = _record(house, history, copies)
            status = house.get("/status").json
    history.close()
    verdict = check(history.events, copies, record)
    return Result(
        verdict, kills, host.cuts, dict(done), drained_s, status["accepted"], status["states"]
    )


def _torment(plan: Plan, host: Host, house: House, history: History) -> tuple[Counter[str], int]:
    begun = time.monotonic()
    done: Counter[str] = Counter()
    kills = 0
    for fault in schedule(plan.seed, plan.seconds, faults=plan.faults):
        threading.Event().wait(max(0.0, begun + fault.at - time.monotonic()))
        if time.monotonic() > begun + plan.seconds + 5:
            break
        history.write("fault", name=fault.name, length=fault.length)
        kills += _do(fault, host, house)
        done[fault.name] += 1
    return done, kills


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


def _drain(house: House, seconds: float) -> float:
    begun = time.monotonic()

    def empty() -> bool:
        states = house.get("/status").json["states"]
        return not any(states.get(s, 0) for s in ("queued", "claimed", "held"))

    wait_until(empty, seconds=seconds, what=lambda: f"the queue to drain\n{house.tail()}")
    return time.monotonic() - begun


def _record(house: House, history: History, copies: list[Copy]) -> dict[str, Element]:
    """Of the acknowledged keys that the sink lacks or holds more than once."""
    count = Counter(c.key for c in copies)
    ids = {e["key"]: e["id"] for e in history.events if e["kind"] == "ok"}
    found = {}
    for key, id_ in ids.items():
        if count[key] != 1:
            answer = house.get(f"/emails/{id_}/recipients")
            state = answer.json["data"][0]["status"] if answer.status == 200 else "missing"
            events = house.events(id_) if answer.status == 200 else []
            found[key] = Element(state, sum(e["type"] == "in_doubt" for e in events))
    return found
