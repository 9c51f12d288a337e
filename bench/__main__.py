"""`make bench`: Everpost beside a tuned Postfix, interleaved in one run, as a table and as JSON.

python -m bench [--messages N] [--rounds N] [--json FILE] [--only NAME,NAME]
"""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping

from bench import everpost, postfix

Figures = Mapping[str, float]
HALF: dict[str, float] = {"rate": 500.0}
"""The rate of the latency case: half of what the case `single` accepted in this round."""

CASES: dict[str, Callable[[int], Figures]] = {
    "postfix": postfix.run,
    "single": everpost.run,
    "batch-100": lambda n: everpost.run(n, batch=100, connections=8),
    "postfix-dkim": lambda n: postfix.run(n // 2, signed=True),
    "single-rsa": lambda n: everpost.run(n // 2, signing="rsa"),
    "single-ed25519": lambda n: everpost.run(n, signing="ed25519"),
    "half-rate": lambda n: everpost.run(n, rate=HALF["rate"]),
}
# name, case, figure, against (case, figure), bar, whether more is better
BARS = (
    ("single posts, end to end, x Postfix", "single", "delivered_per_s", "postfix", 2.5, True),
    ("batches of 100, end to end, x Postfix", "batch-100", "delivered_per_s", "postfix", 4.0, True),
    ("RSA-2048, x Postfix + OpenDKIM", "single-rsa", "delivered_per_s", "postfix-dkim", 2.5, True),
    ("CPU seconds per 1,000, unsigned", "single", "cpu_s_per_1000", None, 1.0, False),
    ("accept p50 ms at half the rate", "half-rate", "p50_ms", None, 10.0, False),
    ("accept p99 ms at half the rate", "half-rate", "p99_ms", None, 50.0, False),
    ("peak memory MB, single posts", "single", "peak_mb", None, 400.0, False),
    ("peak memory MB, batches", "batch-100", "peak_mb", None, 400.0, False),
)
COLUMNS = (
    "accepted_per_s", "delivered_per_s", "p50_ms", "p99_ms", "cpu_s_per_1000", "peak_mb",
)  # fmt: skip


def measure(messages: int, rounds: int, names: list[str]) -> dict[str, list[Figures]]:
    """Each case once a round, in turn, so that a drifting machine drifts for all of them."""
    found: dict[str, list[Figures]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
            figures = CASES[name](messages)
            found[name].append(figures)
            if name == "single":
                HALF["rate"] = figures["accepted_per_s"] / 2
    return found


def table(found: Mapping[str, list[Figures]]) -> str:
    lines = [f"{'':16}" + "".join(f"{c:>18}" for c in COLUMNS)]
    for name, rows in found.items():
        cells = ""
        for column in COLUMNS:
            values = [row[column] for row in rows if column in row]
            if not values:
                cells += f"{'-':>18}"
                continue
            spread = f" ({min(values):.4g}-{max(values):.4g})" if len(values) > 1 else ""
            cells += f"{f'{statistics.median(values):.4g}{spread}':>18}"
        lines.append(f"{name:16}{cells}")
    return "\n".join(lines)


def verdicts(found: Mapping[str, list[Figures]]) -> list[dict[str, object]]:
    """Each bar of the budget with what was measured: medians; ratios pair by pair."""
    rows: list[dict[str, object]] = []
    for label, case, figure, against, bar, more in BARS:
        if not found.get(case) or (against and not found.get(against)):
            continue
        if against:
            values = [
                ours[figure] / theirs[figure]
                for ours, theirs in zip(found[case], found[against], strict=True)
            ]
        else:
            values = [row[figure] for row in found[case]]
        median = statistics.median(values)
        rows.append(
            {
                "bar": label,
                "measured": round(median, 3),
                "lowest": round(min(values), 3),
                "highest": round(max(values), 3),
                "wanted": f"{'≥' if more else '≤'} {bar:g}",
                "met": median >= bar if more else median <= bar,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--only", metavar="NAME,NAME", default=",".join(CASES))
    options = parser.parse_args()
    found = measure(options.messages, options.rounds, options.only.split(","))
    rows = verdicts(found)
    print(f"CPython {platform.python_version()}, {os.cpu_count()} cores, {options.rounds} rounds")
    print(table(found))
    print()
    for row in rows:
        print(
            f"{row['bar']:42}{row['measured']:>10} ({row['lowest']}-{row['highest']})"
            f"  wanted {row['wanted']:8} {'met' if row['met'] else 'NOT MET'}"
        )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"cases": found, "bars": rows}, file, indent=1)


if __name__ == "__main__":
    main()
