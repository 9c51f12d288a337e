"""Does a long queue slow a start, and a black hole the others? `python -m bench.black_hole`

Fills a data directory with N recipients of one destination whose server never answers RCPT, starts
`everpost serve` on it, and measures

  ready      from the start of the process to "ready"
  status, metrics, health   one request each, the median of several
  other      from before POST to arrival at the far end, of single posts to another destination at a
             steady rate, one relay for both: p50 and p99

for N = 0 (the baseline), 10 thousand, 100 thousand and, only the start, 1 million. `--rcpt-s` is
how long a session waits for the answer that never comes: the default outlasts the run, so the hole
keeps all the sessions that it may; with 1 its mail is deferred and claimed again all the time.
"""

import argparse
import asyncio
import http.client
import json
import os
import platform
import re
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from bench.http_load import HTML, TEXT
from bench.steady import post_steadily
from everpost import telemetry
from tests.support.filling import filling, queue
from tests.support.house import House
from tests.support.sink import Sink

SIZES = (0, 10_000, 100_000, 1_000_000)
_MOST_WITH_LOAD = 100_000
_HOLE = "hole.test"
_ASKED = 9


async def _fill(data: Path, rows: int, progress: Progress) -> None:
    """Queue mail for the hole while no service runs."""
    task = progress.add_task(f"filling {rows:,}", total=rows)
    async with filling(data) as node:
        await queue(
            node, rows, _HOLE, text=TEXT, html=HTML, written=lambda n: progress.advance(task, n)
        )


def _asked_ms(house: House, path: str) -> float:
    found = re.search(rb"http://(\S+)/metrics", house.said)
    assert found is not None
    where = found[1].decode() if path == "/metrics" else f"{house.host}:{house.port}"
    took = []
    for _ in range(_ASKED):
        began = time.perf_counter()
        connection = http.client.HTTPConnection(where, timeout=30)
        connection.request("GET", path, headers={"Authorization": f"Bearer {house.key}"})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status}")
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


def _run(rows: int, options: argparse.Namespace, progress: Progress) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="bench-hole-", dir=options.folder) as name:
        folder = Path(name)
        sink = Sink(folder, f"rcpt silent domain={_HOLE}")
        settings = {
            "EVERPOST_DELIVERY_RCPT_S": f"{options.rcpt_s:g}",
            "EVERPOST_NODE_DRAIN_S": "1",
        }
        house = House(folder / "d", settings=settings)
        house.start()
        house.relay(sink.url, tls="none")
        house.domain(signing="unsigned")
        house.stop()
        if rows:
            asyncio.run(_fill(house.data, rows, progress))
        began = time.perf_counter()
        house.start()
        found = {"ready_s": time.perf_counter() - began}
        try:
            for path in ("/status", "/metrics", "/health/ready"):
                found[f"{path.split('/')[1]}_ms"] = _asked_ms(house, path)
            posted: dict[str, float] = {}
            if rows <= _MOST_WITH_LOAD:
                time.sleep(2)  # the hole has what it may have
                posted = post_steadily(house, rate=options.rate, seconds=options.seconds)
                time.sleep(2)
        finally:
            house.stop()
        arrived = sink.close()
    if posted:
        took = sorted((arrived[id_] - due) * 1000 for id_, due in posted.items() if id_ in arrived)
        found["missing"] = len(posted) - len(took)
        found["p50_ms"], found["p99_ms"] = took[len(took) // 2], took[int(len(took) * 0.99)]
    return found


def _table(found: Mapping[int, list[dict[str, float]]]) -> str:
    names = list(next(iter(found.values()))[0])
    lines = [f"{'queued':>10}" + "".join(f"{name:>12}" for name in names)]
    for rows, runs in found.items():
        cells = "".join(
            f"{statistics.median(run[name] for run in runs):>12.2f}" if name in runs[0] else ""
            for name in names
        )
        lines.append(f"{rows:>10,}{cells}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rcpt-s", type=float, default=300.0)
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: temporary)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    telemetry.set_log(None)
    found: dict[int, list[dict[str, float]]] = {rows: [] for rows in options.sizes}
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("measuring", total=options.rounds * len(options.sizes))
        for _ in range(options.rounds):
            for rows in options.sizes:
                found[rows].append(_run(rows, options, progress))
                progress.advance(task)
    print(
        f"CPython {platform.python_version()}, {os.cpu_count()} cores; {options.rate:g} posts a "
        f"second to another destination; RCPT is waited for {options.rcpt_s:g} s"
    )
    print(_table(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
