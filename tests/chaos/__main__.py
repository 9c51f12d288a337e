"""`python -m tests.chaos --seed 7 --minutes 10`: exit code 0 when no invariant broke."""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

from tests.chaos.nemesis import FAULTS
from tests.chaos.run import Plan, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--rate", type=float, default=200.0, help="messages a second, at most")
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--mutant", help="a module of tests/chaos/mutants")
    given = parser.parse_args()
    faults = tuple(given.faults.split(","))
    if unknown := set(faults) - set(FAULTS):
        parser.error(f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}")
    folder = Path("chaos-runs").absolute() / f"{given.seed}-{int(time.time())}"
    folder.mkdir(parents=True)
    plan = Plan(given.seed, given.minutes * 60, faults, given.rate, mutant=given.mutant)
    result = run(plan, folder)
    text = json.dumps(dataclasses.asdict(result), indent=2)
    (folder / "result.json").write_text(text + "\n")
    sys.stdout.write(text + "\n")
    return 0 if result.good else 1


if __name__ == "__main__":
    sys.exit(main())
