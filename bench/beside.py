"""Mail that is urgent beside mail that is much: what each costs the other (I17).

A real `everpost serve` and the house's sink, one relay for both. First single posts at a steady
rate with nothing else to do (idle); then a queue of many is filled while no service runs, and moves
alone for a while (its lone rate), then beside the same posts.

  beside-broadcast   transactional mail beside a broadcast of the same project
  beside-flood       one project beside the flood of another, both transactional

Latency is from when a post was due to its arrival at the far end.
"""

import asyncio
import tempfile
import time
from pathlib import Path

from bench.figures import Figures, Work
from bench.http_load import HTML, TEXT
from bench.processes import measure
from bench.steady import post_steadily
from everpost.assembly.keys import DEFAULT_PROJECT
from everpost.model.message import Priority
from tests.support.filling import add_project, filling, queue
from tests.support.house import House
from tests.support.sink import Sink

__all__ = ["RATE", "beside_broadcast", "beside_flood"]

RATE = 20.0
"""Posts a second."""

_FLOODER = 2
_WARM_UP_S = 1.5


def beside_broadcast(work: Work) -> Figures:
    return _run(work, DEFAULT_PROJECT, Priority.BROADCAST)


def beside_flood(work: Work) -> Figures:
    return _run(work, _FLOODER, Priority.TRANSACTIONAL)


def _run(work: Work, project: int, priority: Priority) -> Figures:
    seconds = min(max(work.messages / 10_000, 3.0), 10.0)
    with tempfile.TemporaryDirectory(prefix="bench-beside-") as name:
        folder = Path(name)
        sink = Sink(folder)
        house = House(folder / "d", settings={"EVERPOST_NODE_DRAIN_S": "1"})
        try:
            house.start()
            house.relay(sink.url, tls="none")
            house.domain(signing="unsigned")
            post_steadily(house, rate=RATE, seconds=1.0)
            idle = post_steadily(house, rate=RATE, seconds=seconds)
            time.sleep(1)  # the last of them are delivered
            house.stop()
            asyncio.run(_fill(house.data, work.messages, project, priority))
            house.start()
            with measure([house.pid]) as usage:
                time.sleep(_WARM_UP_S)
                alone = time.monotonic()
                time.sleep(seconds / 2)
                began = time.monotonic()
                beside = post_steadily(house, rate=RATE, seconds=seconds)
                ended = time.monotonic()
                time.sleep(1)
        finally:
            house.stop()
            arrived = sink.close()
    many = sorted(at for id_, at in arrived.items() if "." in id_)
    ended = min(ended, many[-1])
    if ended - began < seconds / 2:
        raise RuntimeError(f"the queue was empty after {ended - alone:.1f} s: give --messages")
    idle_ms, beside_ms = _latencies(idle, arrived), _latencies(beside, arrived)
    moved = sum(1 for at in many if at >= alone)
    return Figures(
        messages=work.messages,
        accepted_per_s=RATE,
        delivered_per_s=sum(1 for at in many if began <= at <= ended) / (ended - began),
        cpu_s_per_1000=usage.cpu_s / moved * 1000,
        peak_mb=usage.peak_mb,
        generator_cpu_s_per_1000=0.0,
        sink_cpu_s_per_1000=0.0,
        p50_ms=_part(beside_ms, 0.5),
        p99_ms=_part(beside_ms, 0.99),
        idle_p99_ms=_part(idle_ms, 0.99),
        lone_per_s=sum(1 for at in many if alone <= at < began) / (began - alone),
    )


def _latencies(posted: dict[str, float], arrived: dict[str, float]) -> list[float]:
    """In ms, sorted. RuntimeError when one has not arrived: that would be the worst of all."""
    missing = [id_ for id_ in posted if id_ not in arrived]
    if missing:
        raise RuntimeError(f"{len(missing)} of {len(posted)} posts did not arrive within a second")
    return sorted((arrived[id_] - due) * 1000 for id_, due in posted.items())


def _part(ordered: list[float], part: float) -> float:
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)]


async def _fill(data: Path, rows: int, project: int, priority: Priority) -> None:
    """Queue the many while no service runs."""
    async with filling(data) as node:
        if project != DEFAULT_PROJECT:
            await add_project(node, project)
        destinations = [f"d{n}.test" for n in range(10)]
        await queue(
            node, rows, *destinations, project=project, priority=priority, text=TEXT, html=HTML
        )
