"""Does a long queue make each row dearer? `python -m bench.many_rows`

Fills real stores with 10 thousand to 1 million queued recipients (2 KB of sealed content each,
through the store's own verbs), then claims and settles a hundred at a time and accepts as many
anew, so that the queue keeps its length. Variants:

  lane        all for one destination
  spread      over 10,000 destinations, in no order
  later       nine tenths wait for a later hour; claimed from 100 destinations
  delivered   100 destinations, beside 1 million recipients that were delivered before

The sizes of a variant take turns, cycle by cycle, so that the machine's moods hit all of them.
Each file is read once before, so that the machine's memory holds it where it can; with `--cold` it
is dropped from memory instead, and what is measured is the disk's random reads as well.
Filled stores are kept in `--folder` for the next run (4 GB for a variant's million; a fill takes
about a minute a million).
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import secrets
import shutil
import statistics
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import apsw
import msgspec
from rich.console import Console
from rich.progress import Progress, TaskID

from everpost import telemetry
from everpost.clock import SystemClock
from everpost.ids import IdMaker
from everpost.model.message import NewMessage, NewRecipient, Priority
from everpost.model.outcome import AttemptRecord, Delivered, Reply
from everpost.model.states import InDoubtPolicy, State
from everpost.store.interface import Claimed, Settlement
from everpost.store.sqlite import SqliteStore

VARIANTS: Mapping[str, int] = {"lane": 1, "spread": 10_000, "later": 100, "delivered": 100}
"""By name, how many destinations the due ones are for."""

SIZES = (10_000, 100_000, 1_000_000)
_BEFORE = 1_000_000
_CLAIM = 100
_CONTENT = 2048
_LEASE_MS = 900_000
_HOUR_MS = 3_600_000
_FILL = 1000
_CHECKPOINT_EVERY = 10
_WARM_UP = 10

_clock = SystemClock()
_ids = IdMaker(_clock.now)
_OWNER = _ids()


class Cycle(msgspec.Struct, frozen=True):
    """A claim and its settling: µs a row of CPU and of wall time, and reads of the file a row."""

    cpu: float
    wall: float
    reads: float


def _message(destination: str, not_before: int) -> NewMessage:
    address = f"someone@{destination}"
    return NewMessage(
        id=_ids(),
        project=1,
        stream="transactional",
        priority=Priority.TRANSACTIONAL,
        sealed=secrets.token_bytes(_CONTENT),
        key_id=1,
        size=_CONTENT,
        message_id="x@sender.test",
        sender="Sender <sender@sender.test>",
        subject="A subject",
        to=(address,),
        recipients=(NewRecipient(address, destination),),
        not_before=not_before,
        expires_at=not_before + 120 * _HOUR_MS,
        in_doubt=InDoubtPolicy.RESEND,
        return_token=secrets.token_bytes(8),
    )


def _delivered(taken: Sequence[Claimed]) -> list[Settlement]:
    now = _clock.now()
    outcome = Delivered(reply=Reply(code=250, text="2.0.0 Ok: queued as 4cQ", enhanced="2.0.0"))
    settlements = []
    for each in taken:
        record = AttemptRecord(
            started_at=now,
            ended_at=now,
            relay="one",
            form="7bit",
            body_hash=secrets.token_bytes(33),
        )
        settlements += [
            Settlement(
                message=claim.message,
                n=claim.n,
                term=claim.term,
                target=State.DELIVERED,
                event="delivered",
                data={"via": "relay", "relay": "one", "attempt": 1},
                outcome=outcome,
                attempt=record,
            )
            for claim in each.claims
        ]
    return settlements


class Queue:
    """One filled store."""

    def __init__(self, folder: Path, variant: str, size: int) -> None:
        self.variant = variant
        self.size = size
        self.path = folder / f"{variant}-{size}" / "store.db"
        self._random = random.Random(size)
        self.store = SqliteStore(self.path, clock=_clock)
        self.cycles: list[Cycle] = []
        self.checkpoints: list[float] = []

    def _new(self, n: int, *, fill: bool = False) -> list[NewMessage]:
        now = _clock.now()
        routes = VARIANTS[self.variant]
        waits = fill and self.variant == "later"
        return [
            _message(
                f"d{self._random.randrange(routes)}.test",
                now + _HOUR_MS * 10 + i if waits and self._random.random() < 0.9 else now,
            )
            for i in range(n)
        ]

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        await self.store.open()
        try:
            yield
        finally:
            await self.store.close()

    async def fill(self, rows: int, *, progress: Progress, task: TaskID) -> None:
        for at in range(0, rows, _FILL):
            n = min(_FILL, rows - at)
            await self.store.accept(1, self._new(n, fill=True))
            progress.advance(task, n)
            if at % (_FILL * 10) == 0:
                await self.store.checkpoint()
        await self.store.checkpoint()

    async def deliver_all(self, *, progress: Progress, task: TaskID) -> None:
        while taken := await self.store.claim(_OWNER, limit=_FILL, lease_ms=_LEASE_MS):
            await self.store.settle(_OWNER, _delivered(taken))
            progress.advance(task, len(taken))
            await self.store.checkpoint()

    async def cycle(self, number: int) -> None:
        cpu, wall, reads = time.process_time_ns(), time.perf_counter_ns(), _reads()
        taken = await self.store.claim(_OWNER, limit=_CLAIM, lease_ms=_LEASE_MS)
        settlements = _delivered(taken)
        if not all(await self.store.settle(_OWNER, settlements)):
            raise RuntimeError("a settlement was refused")
        n = len(settlements)
        if number >= _WARM_UP:
            self.cycles.append(
                Cycle(
                    cpu=(time.process_time_ns() - cpu) / n / 1000,
                    wall=(time.perf_counter_ns() - wall) / n / 1000,
                    reads=(_reads() - reads) / n,
                )
            )
        await self.store.accept(1, self._new(n))
        if number % _CHECKPOINT_EVERY == _CHECKPOINT_EVERY - 1:
            cpu = time.process_time_ns()
            await self.store.checkpoint()
            spent = (time.process_time_ns() - cpu) / n / _CHECKPOINT_EVERY / 1000
            if number >= _WARM_UP:
                self.checkpoints.append(spent)

    def figures(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for name in Cycle.__struct_fields__:
            values = sorted(getattr(cycle, name) for cycle in self.cycles)
            found[name] = statistics.median(values)
            found[f"{name}_p99"] = values[int(len(values) * 0.99)]
        found["checkpoint"] = statistics.median(self.checkpoints)
        return found


def _reads() -> int:
    """Reading system calls of this process so far: pages that SQLite's own cache did not have."""
    with open("/proc/self/io", encoding="ascii") as file:
        return int(file.read().split("syscr:")[1].split()[0])


async def _filled(folder: Path, variant: str, size: int, progress: Progress) -> Queue:
    """The store of this variant and size, filled unless an earlier run left it."""
    queue = Queue(folder, variant, size)
    done = queue.path.with_name("filled")
    if done.exists():
        return queue
    shutil.rmtree(queue.path.parent, ignore_errors=True)
    queue.path.parent.mkdir(parents=True)
    if variant == "delivered":
        shutil.copy(await _history(folder, progress), queue.path)
    task = progress.add_task(f"filling {variant} {size:,}", total=size)
    async with queue.opened():
        await queue.fill(size, progress=progress, task=task)
    done.touch()
    return Queue(folder, variant, size)


async def _history(folder: Path, progress: Progress) -> Path:
    """A store with a million delivered recipients and an empty queue."""
    queue = Queue(folder, "delivered", 0)
    done = queue.path.with_name("filled")
    if not done.exists():
        shutil.rmtree(queue.path.parent, ignore_errors=True)
        queue.path.parent.mkdir(parents=True)
        task = progress.add_task(f"delivering {_BEFORE:,} before", total=2 * _BEFORE)
        async with queue.opened():
            for _ in range(10):
                await queue.fill(_BEFORE // 10, progress=progress, task=task)
                await queue.deliver_all(progress=progress, task=task)
        done.touch()
    return queue.path


def _set_memory(path: Path, *, cold: bool) -> None:
    """Have the system hold the file in memory, or not."""
    with path.open("rb", buffering=0) as file:
        if cold:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return
        while file.read(1 << 20):
            pass


async def _measure(
    variant: str, options: argparse.Namespace, progress: Progress
) -> dict[int, dict[str, float]]:
    cycles: int = options.cycles
    queues = [await _filled(options.folder, variant, size, progress) for size in options.sizes]
    for queue in queues:
        _set_memory(queue.path, cold=options.cold)
    task = progress.add_task(f"measuring {variant}", total=cycles + _WARM_UP)
    async with contextlib.AsyncExitStack() as stack:
        for queue in queues:
            await stack.enter_async_context(queue.opened())
        for number in range(cycles + _WARM_UP):
            for queue in queues:
                await queue.cycle(number)
            progress.advance(task)
    return {queue.size: queue.figures() for queue in queues}


def _table(found: Mapping[str, Mapping[int, Mapping[str, float]]]) -> str:
    lines = [
        f"{'variant':10}{'queued':>10}{'CPU µs/row':>12}{'p99':>8}{'x':>6}"
        f"{'wall µs/row':>13}{'p99':>8}{'x':>6}{'reads/row':>11}{'checkpoint µs/row':>19}{'x':>6}"
    ]
    for variant, by_size in found.items():
        base = by_size[min(by_size)]
        for size, f in by_size.items():
            ratio = {name: f[name] / base[name] for name in ("cpu", "wall", "checkpoint")}
            lines.append(
                f"{variant:10}{size:>10,}{f['cpu']:>12.1f}{f['cpu_p99']:>8.1f}{ratio['cpu']:>6.2f}"
                f"{f['wall']:>13.1f}{f['wall_p99']:>8.1f}{ratio['wall']:>6.2f}{f['reads']:>11.2f}"
                f"{f['checkpoint']:>19.1f}{ratio['checkpoint']:>6.2f}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--cold", action="store_true", help="files not in memory at the start")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/everpost-many-rows"))
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    telemetry.set_log(None)
    found: dict[str, dict[int, dict[str, float]]] = {}
    with Progress(console=Console(stderr=True)) as progress:
        for variant in options.variants:
            found[variant] = asyncio.run(_measure(variant, options, progress))
    print(
        f"CPython {platform.python_version()}, {os.cpu_count()} cores, "
        f"SQLite {apsw.sqlite_lib_version()}; claim {_CLAIM} and settle, {options.cycles} cycles"
    )
    print(_table(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
