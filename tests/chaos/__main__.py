"""`python -m tests.chaos --seed 7 --minutes 10`: exit code 0 when no invariant broke."""

import argparse
import json
import sys
import time
from pathlib import Path

from tests.chaos import picture, report
from tests.chaos.nemesis import FAULTS
from tests.chaos.run import Plan, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--rate", type=float, default=500.0, help="messages a second")
    parser.add_argument("--faults", default=",".join(FAULTS), help=f"of: {', '.join(FAULTS)}")
    parser.add_argument("--mutant", help="a module of tests/chaos/mutants: the run must fail")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    parser.add_argument("--table", type=Path, help="no run: a result.json as a Markdown table")
    given = parser.parse_args()
    if given.table is not None:
        sys.stdout.write(report.table(json.loads(given.table.read_text(encoding="utf-8"))))
        return 0
    faults = tuple(f for f in given.faults.split(",") if f)
    if unknown := set(faults) - set(FAULTS):
        parser.error(f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}")
    folder = Path("chaos-runs").absolute() / f"{given.seed}-{int(time.time())}"
    folder.mkdir(parents=True)
    plan = Plan(given.seed, given.minutes * 60, faults, given.rate, mutant=given.mutant)
    result = run(plan, folder)
    (folder / "result.json").write_text(report.as_json(result), encoding="utf-8")
    (folder / "summary.txt").write_text(report.summary(result), encoding="utf-8")
    drawn = picture.draw(folder, title=f"seed {plan.seed}, {given.minutes:g} minutes")
    (folder / "picture.svg").write_text(drawn, encoding="utf-8")
    sys.stdout.write(report.as_json(result) if given.json else report.summary(result))
    sys.stderr.write(f"kept: {folder}\n")
    return 0 if result.good else 1


if __name__ == "__main__":
    sys.exit(main())
