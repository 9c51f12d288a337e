"""`python -m tests.cluster.chaos --seed 7 --minutes 5`: exit code 0 when no invariant broke.

Three hosts, faults from a seed, and a history of all that clients did; then all is healed, what
waits is sent, and the books are checked. `--subject sql`: the database alone, without Everpost.
"""

import argparse
import dataclasses
import json
import random
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.chaos import picture
from tests.chaos.checker import BROKEN, Verdict
from tests.chaos.history import History
from tests.chaos.sink import Sink
from tests.cluster import writer
from tests.cluster.cluster import Cluster
from tests.cluster.faults import Faults
from tests.cluster.gaps import Gap, Outage, accept_gap, client_gap, false_promises, outages
from tests.cluster.nemesis import FAULTS, schedule
from tests.cluster.writer import Writer

__all__ = ["Plan", "Result", "main", "run"]

_SAID_EVERY_S = 15.0
_ENDS_S = 60.0
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Plan:
    """`rate`: messages a second over all clients, at most."""

    seed: int
    seconds: float
    faults: tuple[str, ...] = FAULTS
    subject: str = "everpost"
    pooled: bool = False
    rate: float = 60.0
    clients: int = 12
    drain_s: float = 120.0


@dataclass(slots=True)
class Result:
    """`accept`: nobody was acknowledged; `client`: one client was not."""

    plan: Plan
    verdict: Verdict = field(default_factory=Verdict)
    accept: Gap = field(default_factory=Gap)
    client: Gap = field(default_factory=Gap)
    outages: list[Outage] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    kills: int = 0
    cuts: int = 0
    problems: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)
    tormented_s: float = 0.0
    drained_s: float = 0.0

    @property
    def good(self) -> bool:
        return self.verdict.good and not (self.problems or self.findings or self.owners)


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
        writer.lay_out(cluster)

    def workers(self, history: History) -> Sequence[Worker]:
        each = self._plan.rate / self._plan.clients
        return [
            Writer(self._cluster, history, number=n, rate=each) for n in range(self._plan.clients)
        ]

    def leader(self) -> str | None:
        return None

    def drain(self, result: Result) -> None:
        """Nothing waits in it."""

    def judge(self, history: History, result: Result) -> None:
        result.verdict = writer.judge(self._cluster, history)

    def arrivals(self) -> list[float]:
        return []


def run(plan: Plan, folder: Path) -> Result:
    """`folder` is kept: history.jsonl, the sinks' journals, all logs. Needs root."""
    result = Result(plan)
    history = History(folder / "history.jsonl")
    with ExitStack() as stack:
        stack.callback(history.close)
        cluster = stack.enter_context(Cluster(disks=True, keep=folder))
        subject = stack.enter_context(_subject(cluster, plan, folder))
        faults = Faults(cluster, subject.sinks, history, table=subject.table, leader=subject.leader)
        workers = subject.workers(history)
        _torment(plan, faults, workers, history, result)
        try:
            cluster.wait_healthy(seconds=150)
            subject.drain(result)
            subject.judge(history, result)
        except (AssertionError, OSError) as error:
            result.problems.append(f"at the end: {error!r}")
        arrivals = subject.arrivals()
    result.accept, result.client = accept_gap(history.events), client_gap(history.events)
    result.outages = outages(history.events, arrivals)
    result.problems += [f"I8: {key}: replicated?" for key in false_promises(history.events)]
    result.problems += _idle(result)
    return result


def _subject(cluster: Cluster, plan: Plan, folder: Path) -> Any:
    from contextlib import nullcontext

    return nullcontext(Database(cluster, plan))


def _torment(
    plan: Plan, faults: Faults, workers: Sequence[Worker], history: History, result: Result
) -> None:
    began = time.monotonic()
    said = threading.Event()

    def say() -> None:
        while not said.wait(_SAID_EVERY_S):
            line = f"{history.acknowledged} acknowledged, faults: {dict(faults.done)}"
            sys.stderr.write(f"{time.monotonic() - began:5.0f} s: {line}\n")

    teller = threading.Thread(target=say, daemon=True)
    teller.start()
    for worker in workers:
        worker.start()
    try:
        plays = schedule(plan.seed, plan.seconds, faults=plan.faults) if plan.faults else []
        faults.play(plays, seconds=plan.seconds)
        threading.Event().wait(max(0.0, began + plan.seconds - time.monotonic()))
    except Exception as error:
        result.problems.append(f"a fault could not be done, or healed: {error!r}")
    result.tormented_s = round(time.monotonic() - began, 1)
    said.set()
    for worker in workers:
        worker.ended.set()
    for worker in workers:
        worker.join(_ENDS_S)
        if worker.is_alive():
            result.problems.append("a client hangs")
        if worker.error is not None:
            result.problems.append(f"a client ended: {worker.error!r}")
    teller.join(5)
    result.faults, result.kills, result.cuts = dict(faults.done), faults.kills, faults.cuts


def _idle(result: Result) -> list[str]:
    """Why a run shows nothing."""
    found = []
    if not result.verdict.acknowledged or not result.verdict.delivered:
        found.append("nothing was acknowledged, or nothing was delivered")
    if result.plan.faults and not any("(" not in name for name in result.faults):
        found.append("no fault was done")
    return found


# -- what is said of it ----------------------------------------------------------------------------


def as_json(result: Result) -> str:
    return json.dumps({"good": result.good, **dataclasses.asdict(result)}, indent=2) + "\n"


def summary(result: Result) -> str:
    """A page of text."""
    plan, verdict = result.plan, result.verdict
    broken, gaps = verdict.broken, (result.accept.seconds, result.client.seconds)
    rows = [
        ("seed, faults for, subject", f"{plan.seed}, {result.tormented_s:g} s, {plan.subject}"),
        ("by way of PgBouncer", "yes" if plan.pooled else "no"),
        ("messages sent, acknowledged", f"{verdict.messages:,}, {verdict.answered:,}"),
        ("lost, phantoms", f"{len(broken.get('lost', ()))}, {len(broken.get('unexpected', ()))}"),
        ("copies beyond one", f"{verdict.copies - verdict.delivered:,}"),
        ("attempts in doubt", f"{verdict.in_doubt:,}"),
        ("kept though no answer came", f"{verdict.recovered:,}"),
        ("accept gap: nobody, one client", f"{gaps[0]:g} s, {gaps[1]:g} s"),
        ("claims with two owners", str(len(result.owners))),
        ("verify", f"{len(result.findings)} findings"),
        ("drained in", f"{result.drained_s:g} s"),
        ("faults", ", ".join(f"{n} {c}" for n, c in sorted(result.faults.items()))),
        ("processes killed, disks cut", f"{result.kills:,}, {result.cuts}"),
    ]  # fmt: skip
    lines = [f"{name:<34} {value}" for name, value in rows]
    lines.append(f"{'fault':<22}{'at':>7}{'lasts':>8}{'accept':>9}{'deliver':>9}{'whole':>8}")
    begin = min((o.begin for o in result.outages), default=0.0)
    for each in result.outages:
        whole = each.told.get("whole_after_s", "")
        lines.append(
            f"{each.name:<22}{each.begin - begin:>7.1f}{each.end - each.begin:>8.1f}"
            f"{each.accept_s:>9.2f}{each.deliver_s:>9.2f}{whole:>8}"
        )
    for name, found in broken.items():
        lines.append(f"BROKEN {name} ({BROKEN.get(name, name)}): {len(found)}")
        lines += [f"    {each}" for each in found[:_SHOWN]]
    for word, found in (
        ("PROBLEM", result.problems), ("FINDING", result.findings), ("OWNERS", result.owners)
    ):  # fmt: skip
        lines += [f"{word} {each}" for each in found[:_SHOWN]]
    lines.append("nothing broke" if result.good else "IT FAILED")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.chaos")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--faults", default=",".join(FAULTS), help=f"of: {', '.join(FAULTS)}")
    parser.add_argument("--few", type=int, default=0, help="so many of them, the seed says which")
    parser.add_argument("--subject", choices=("everpost", "sql"), default="everpost")
    parser.add_argument("--pgbouncer", action="store_true", help="by way of PgBouncer (F33)")
    parser.add_argument("--rate", type=float, default=60.0, help="messages a second")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    given = parser.parse_args()
    faults = tuple(f for f in given.faults.split(",") if f)
    if unknown := set(faults) - set(FAULTS):
        parser.error(f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}")
    if given.few:
        faults = tuple(random.Random(given.seed).sample(faults, min(given.few, len(faults))))
    # A run that is ended from outside takes down what it made.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path("chaos-runs").absolute() / f"cluster-{given.seed}-{int(time.time())}"
    folder.mkdir(parents=True)
    plan = Plan(given.seed, given.minutes * 60, faults, given.subject, given.pgbouncer, given.rate)
    result = run(plan, folder)
    (folder / "result.json").write_text(as_json(result), encoding="utf-8")
    (folder / "summary.txt").write_text(summary(result), encoding="utf-8")
    drawn = picture.draw(folder, title=f"cluster, seed {plan.seed}, {given.minutes:g} minutes")
    (folder / "picture.svg").write_text(drawn, encoding="utf-8")
    sys.stdout.write(as_json(result) if given.json else summary(result))
    sys.stderr.write(f"kept: {folder}\n")
    return 0 if result.good else 1


if __name__ == "__main__":
    sys.exit(main())
