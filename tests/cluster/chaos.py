"""`python -m tests.cluster.chaos --seed 7 --minutes 5`: exit code 0 when no invariant broke.

Three hosts, faults from a seed, and a history of all that clients did; then all is healed, what
waits is sent, and the books are checked. `--subject sql`: the database alone, without Everpost.
"""

import argparse
import random
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.chaos import picture
from tests.chaos.history import History
from tests.cluster import report
from tests.cluster.cluster import Cluster
from tests.cluster.faults import Faults
from tests.cluster.gaps import accept_gap, client_gap, false_promises, outages
from tests.cluster.nemesis import FAULTS, OF_DATABASE, schedule
from tests.cluster.report import Plan, Result, idle
from tests.cluster.subjects import SUBJECTS, Worker

__all__ = ["main", "run"]

_SAID_EVERY_S = 15.0
_ENDS_S = 60.0


def run(plan: Plan, folder: Path) -> Result:
    """`folder` is kept: history.jsonl, the sinks' journals, all logs. Needs root."""
    result = Result(plan)
    history = History(folder / "history.jsonl")
    with ExitStack() as stack:
        stack.callback(history.close)
        cluster = stack.enter_context(Cluster(disks=True, keep=folder))
        subject = stack.enter_context(SUBJECTS[plan.subject](cluster, plan, folder))
        faults = Faults(
            cluster,
            subject.sinks,
            history,
            table=subject.table,
            leader=subject.leader,
            other_python=plan.other_python,
        )
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
    result.problems += idle(result)
    return result


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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.chaos")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--faults", help=f"all that make sense, or of: {', '.join(FAULTS)}")
    parser.add_argument("--few", type=int, default=0, help="so many of them, the seed says which")
    parser.add_argument("--subject", choices=("everpost", "sql"), default="everpost")
    parser.add_argument("--pgbouncer", action="store_true", help="by way of PgBouncer (F33)")
    parser.add_argument("--other", help="a Python with another version of Everpost (F41)")
    parser.add_argument("--rate", type=float, default=60.0, help="messages a second")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    given = parser.parse_args()
    faults = OF_DATABASE if given.subject == "sql" else FAULTS
    if given.faults is not None:
        faults = tuple(f for f in given.faults.split(",") if f)
    if unknown := set(faults) - set(FAULTS):
        parser.error(f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}")
    if given.few:
        faults = tuple(random.Random(given.seed).sample(faults, min(given.few, len(faults))))
    # A run that is ended from outside takes down what it made.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path("chaos-runs").absolute() / f"cluster-{given.seed}-{int(time.time())}"
    folder.mkdir(parents=True)
    plan = Plan(
        seed=given.seed,
        seconds=given.minutes * 60,
        faults=faults,
        subject=given.subject,
        pooled=given.pgbouncer,
        rate=given.rate,
        other_python=given.other,
    )
    result = run(plan, folder)
    (folder / "result.json").write_text(report.as_json(result), encoding="utf-8")
    (folder / "summary.txt").write_text(report.summary(result), encoding="utf-8")
    drawn = picture.draw(folder, title=f"cluster, seed {plan.seed}, {given.minutes:g} minutes")
    (folder / "picture.svg").write_text(drawn, encoding="utf-8")
    sys.stdout.write(report.as_json(result) if given.json else report.summary(result))
    sys.stderr.write(f"kept: {folder}\n")
    return 0 if result.good else 1


if __name__ == "__main__":
    sys.exit(main())
