"""Goodput under overload (F14): the most that an instance accepts, and what is left of it when more
is offered.

    python -m bench.overload [--seconds 10] [--json FILE]

Two instances: one whose disk is slow (strace delays its writes and flushes, and stops at no other
system call), offered up to 20 times its maximum; one capped by the processor, up to 3 times.
Offered is an open loop of clients who try once; good is a 200 within 5 s. The load comes from this
machine, so on few cores the second instance competes with it: `per cpu` is what it accepted in a
second of its API process' own processor time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.support.house import KEY, House

__all__ = ["main"]

SLOW_DISK = (
    *("strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null"),
    *("-e", "trace=fdatasync,pwrite64"),
    *("-e", "inject=pwrite64:delay_enter=2000", "-e", "inject=fdatasync:delay_enter=20000"),
)


def _offer(house: House, rate: float, seconds: float) -> dict[str, Any]:
    api = house.children("api")[0]
    before = cpu_seconds(api)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench.open_loop", house.host, str(house.port), KEY),
            *("--rate", str(round(rate)), "--seconds", str(seconds), "--warm", "4"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    found["good_per_cpu_s"] = found["all_good"] / (cpu_seconds(api) - before)
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of one process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _measure(name: str, prefix: tuple[str, ...], plan: list[float], seconds: float) -> list[Any]:
    """`plan`: the first rates are offered as they are, to find the maximum; what follows `0` are
    multiples of it."""
    rows: list[dict[str, Any]] = []
    best = 0.0
    multiples = False
    for value in plan:
        if not value:
            multiples = True
            continue
        rate = value * best if multiples else value
        # A new instance each: mail that the last one still delivers would take from its disk.
        with (
            tempfile.TemporaryDirectory() as folder,
            House(Path(folder) / "d", prefix=prefix, processes=1) as house,
        ):
            row = _offer(house, rate, seconds)
        row |= {"instance": name, "times": value if multiples else None}
        best = max(best, row["goodput"])
        row["of_maximum"] = row["goodput"] / best
        rows.append(row)
        _show(row)
    return rows


def _show(row: dict[str, Any]) -> None:
    print(
        f"{row['instance']:10} {row['rate']:8.0f} {row['goodput']:8.0f} {row['of_maximum']:8.0%}"
        f" {row['good_per_cpu_s']:8.0f} {row['p50_ms']:8.0f} {row['p99_ms']:8.0f}"
        f" {row.get('503', 0):8} {row.get('late', 0):6} {row.get('no_connection', 0):6}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("instances", nargs="*", default=["slow disk", "processor"])
    options = parser.parse_args()
    print(
        f"{'instance':10} {'offered':>8} {'good':>8} {'of max':>8} {'per cpu':>8}"
        f" {'p50 ms':>8} {'p99 ms':>8} {'503':>8} {'late':>6} {'no con':>6}"
    )
    rows = []
    if "slow disk" in options.instances:
        rows += _measure("slow disk", SLOW_DISK, [100, 150, 200, 0, 3, 20], options.seconds)
    if "processor" in options.instances:
        plan = [1000.0, 1500, 2000, 2500, 0, 2, 3]
        rows += _measure("processor", (), plan, options.seconds)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
