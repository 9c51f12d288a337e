"""`make bench`: Everpost beside a tuned Postfix and Haraka, all on the same sink, in turn.

    python -m bench [--quick | --all | --only NAME,NAME] [--messages N] [--rounds N]
                    [--json FILE] [--markdown FILE]

Prints the table; exits with 1 if a case failed. What misses its bar is said, and is no failure.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.bars import verdicts
from bench.cases import CASES, DEFAULT, QUICK, Case, select
from bench.figures import Failure, Figures, Round
from bench.machine import describe
from bench.report import as_json, as_markdown, as_text

ROUNDS, MESSAGES = 3, 10_000
QUICK_ROUNDS, QUICK_MESSAGES = 1, 2_000


class Progress:
    """A line on stderr for each case, with the time left by what the cases took so far."""

    def __init__(self, cases: Sequence[Case], rounds: int) -> None:
        self.left = [case.name for _ in range(rounds) for case in cases]
        self.total = len(self.left)
        self.took: dict[str, float] = {}

    def begin(self, number: int, name: str) -> None:
        place = self.total - len(self.left) + 1
        print(f"[{place}/{self.total}] round {number}, {name}: ", end="", file=sys.stderr)
        sys.stderr.flush()

    def end(self, name: str, result: Figures | Failure, seconds: float) -> None:
        self.left.pop(0)
        self.took[name] = seconds
        words = (
            f"{result.delivered_per_s:,.0f} delivered/s"
            if isinstance(result, Figures)
            else f"FAILED: {result.reason}"
        )
        usual = sum(self.took.values()) / len(self.took)
        left = sum(self.took.get(name, usual) for name in self.left)
        print(f"{words}, {seconds:.0f} s; {_clock(left)} left", file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def attempt(case: Case, messages: int, so_far: Round) -> Figures | Failure:
    """One case, measured; whatever goes wrong in it is its result, and the rest goes on."""
    try:
        return case.measure(messages, so_far)
    except (RuntimeError, OSError, LookupError, ValueError, subprocess.SubprocessError) as error:
        return Failure(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def measure(cases: Sequence[Case], *, messages: int, rounds: int, into: list[Round]) -> None:
    """Each case once a round, in turn, so that a drifting machine drifts for all of them.

    What is measured is in `into` at once, so that nothing is lost when someone stops the run.
    """
    progress = Progress(cases, rounds)
    for number in range(1, rounds + 1):
        found: Round = {}
        into.append(found)
        for case in cases:
            progress.begin(number, case.name)
            began = time.monotonic()
            found[case.name] = attempt(case, messages, found)
            progress.end(case.name, found[case.name], time.monotonic() - began)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure Everpost beside tuned peers on this machine.",
        epilog=f"Cases: {', '.join(CASES)}.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_true", help="nine cases in about two minutes")
    which.add_argument("--all", action="store_true", help="the whole product of cases")
    which.add_argument("--only", metavar="NAME,NAME", help="these cases")
    parser.add_argument("--messages", type=int, help=f"a case of 2 KB, unsigned ({MESSAGES:,})")
    parser.add_argument("--rounds", type=int, help=f"how often each case is measured ({ROUNDS})")
    parser.add_argument("--json", metavar="FILE", type=Path)
    parser.add_argument("--markdown", metavar="FILE", type=Path)
    options = parser.parse_args()
    options.messages = options.messages or (QUICK_MESSAGES if options.quick else MESSAGES)
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    names = CASES if options.all else QUICK if options.quick else DEFAULT
    try:
        options.cases = select(options.only.split(",") if options.only else list(names))
    except ValueError as error:
        parser.error(str(error))
    return options


def main() -> int:
    options = _options()
    names = [case.name for case in options.cases]
    facts = describe(names)
    facts["run"] = f"{options.messages:,} messages a case of 2 KB, rounds: {options.rounds}"
    rounds: list[Round] = []
    try:
        measure(options.cases, messages=options.messages, rounds=options.rounds, into=rounds)
    except KeyboardInterrupt:
        print("stopped; what was measured so far:", file=sys.stderr)
    found = verdicts(rounds)
    print(as_text(facts, rounds, found))
    if options.json:
        options.json.write_text(as_json(facts, rounds, found), encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(as_markdown(facts, rounds, found), encoding="utf-8")
    failed = any(isinstance(row, Failure) for measured in rounds for row in measured.values())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
