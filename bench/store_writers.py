"""How should several processes write to one SQLite database? `python -m bench.store_writers`

Compares, for 1 to 3 processes with 1 or 32 callers each that accept 2 KB messages durably:

  lock       a file lock taken before BEGIN IMMEDIATE: what the store does
  busy       SQLite's own busy handler, no lock
  socket     one store process; the others reach it over a Unix socket

Prints accepts per second in all, the latency of one accept (p50, p99, longest) and fairness: the
process that got least, as a share of an equal part.
"""

import argparse
import asyncio
import multiprocessing
import os
import platform
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import apsw
import msgspec

from everpost import telemetry
from everpost.clock import SystemClock
from everpost.ids import IdMaker
from everpost.model.message import NewMessage, NewRecipient, Priority
from everpost.model.states import InDoubtPolicy
from everpost.store.sqlite import SqliteStore, connection
from everpost.store.sqlite import store as engine

Result = tuple[int, Sequence[float]]
Accept = Callable[[NewMessage], Awaitable[object]]

WAYS = ("lock", "busy", "socket")
_LENGTH = 4
_clock = SystemClock()
_ids = IdMaker(_clock.now)
_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(NewMessage).decode


class _NoLock:
    """In place of the write lock: nothing, SQLite sorts it out."""

    def __init__(self, _: Path) -> None: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...
    def close(self) -> None: ...


def _message(sealed: bytes) -> NewMessage:
    now = _clock.now()
    return NewMessage(
        id=_ids(),
        project=1,
        stream="transactional",
        priority=Priority.TRANSACTIONAL,
        sealed=sealed,
        key_id=1,
        size=len(sealed),
        message_id="x@sender.test",
        sender="Sender <sender@sender.test>",
        subject="A subject",
        to=("someone@receiver.test",),
        recipients=(NewRecipient("someone@receiver.test", "receiver.test"),),
        not_before=now,
        expires_at=now + 432_000_000,
        in_doubt=InDoubtPolicy.RESEND,
        return_token=b"12345678",
    )


def _use_busy_handler() -> None:
    """Make this process's stores rely on SQLite's busy handler alone."""
    opened = connection.connect

    def patient(*args: Any, **options: Any) -> apsw.Connection:
        db = opened(*args, **options)
        db.set_busy_timeout(10_000)
        return db

    vars(engine).update(WriteLock=_NoLock, connect=patient)


async def _load(accept: Accept, callers: int, seconds: float) -> Result:
    """Accept with so many concurrent callers for so long; the number and the latencies."""
    sealed = secrets.token_bytes(2048)
    latencies: list[float] = []
    until = time.perf_counter() + seconds

    async def caller() -> None:
        while (began := time.perf_counter()) < until:
            await accept(_message(sealed))
            latencies.append(time.perf_counter() - began)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return len(latencies), latencies


async def _own_store(path: Path, callers: int, seconds: float, ready: Barrier) -> Result:
    store = SqliteStore(path, clock=_clock)
    await store.open()
    await asyncio.to_thread(ready.wait)
    try:
        return await _load(lambda m: store.accept(1, [m]), callers, seconds)
    finally:
        await store.close()


async def _over_socket(path: Path, callers: int, seconds: float, ready: Barrier) -> Result:
    await asyncio.to_thread(ready.wait)
    reader, writer = await asyncio.open_unix_connection(str(path.with_suffix(".sock")))
    waiting: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()

    async def answers() -> None:
        while await reader.read(1):  # one byte an accept, in order
            (await waiting.get()).set_result(None)

    async def accept(message: NewMessage) -> None:
        body = _encode(message)
        future = asyncio.get_running_loop().create_future()
        waiting.put_nowait(future)
        writer.write(len(body).to_bytes(_LENGTH, "big") + body)
        await future

    task = asyncio.create_task(answers())
    try:
        return await _load(accept, callers, seconds)
    finally:
        task.cancel()
        writer.close()


async def _serve(path: Path, ready: Barrier, done: Any) -> None:
    """The one store process of the `socket` way."""
    store = SqliteStore(path, clock=_clock)
    await store.open()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        order: asyncio.Queue[asyncio.Task[Any]] = asyncio.Queue()

        async def answer() -> None:
            while True:
                await (await order.get())
                writer.write(b".")

        answering = asyncio.create_task(answer())
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(_LENGTH), "big")
                message = _decode(await reader.readexactly(size))
                order.put_nowait(asyncio.create_task(store.accept(1, [message])))
        except asyncio.IncompleteReadError:
            pass
        finally:
            answering.cancel()
            writer.close()

    server = await asyncio.start_unix_server(client, str(path.with_suffix(".sock")))
    await asyncio.to_thread(ready.wait)
    await asyncio.to_thread(done.wait)
    server.close()
    await store.close()


def _worker(
    way: str, path: Path, *, callers: int, seconds: float, ready: Barrier, out: "Queue[Result]"
) -> None:
    telemetry.set_log(None)
    if way == "busy":
        _use_busy_handler()
    role = _over_socket if way == "socket" else _own_store
    out.put(asyncio.run(role(path, callers, seconds, ready)))


def _server(path: Path, ready: Barrier, done: Any) -> None:
    telemetry.set_log(None)
    asyncio.run(_serve(path, ready, done))


def _measure(way: str, folder: Path, processes: int, callers: int, seconds: float) -> str:
    context = multiprocessing.get_context("spawn")
    path = folder / f"{way}-{processes}-{callers}.db"
    serving = way == "socket"
    ready = context.Barrier(processes + serving)
    done = context.Event()
    out: Queue[Result] = context.Queue()
    jobs = [
        context.Process(
            target=_worker,
            args=(way, path),
            kwargs={"callers": callers, "seconds": seconds, "ready": ready, "out": out},
        )
        for _ in range(processes)
    ]
    if serving:
        jobs.append(context.Process(target=_server, args=(path, ready, done)))
    for job in jobs:
        job.start()
    results = [out.get(timeout=seconds + 60) for _ in range(processes)]
    done.set()
    for job in jobs:
        job.join()
    total = sum(n for n, _ in results)
    latencies = sorted(value for _, values in results for value in values)
    p50, p99 = (latencies[int(len(latencies) * q)] * 1000 for q in (0.5, 0.99))
    fairness = min(n for n, _ in results) * processes / total
    return (
        f"{way:8} {processes:9} {callers:7} {total / seconds:10.0f} {p50:8.2f} {p99:8.2f} "
        f"{latencies[-1] * 1000:8.1f} {fairness:8.0%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: temporary)")
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=WAYS)
    options = parser.parse_args()
    print(
        f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores,"
    )
    print(f"SQLite {apsw.sqlite_lib_version()}, WAL, synchronous=FULL; 2 KB messages")
    print("way      processes callers  accepts/s   p50 ms   p99 ms   max ms fairness")
    with tempfile.TemporaryDirectory(prefix="everpost-bench-", dir=options.folder) as name:
        for callers in (1, 32):
            for processes in (1, 2, 3):
                for way in options.ways:
                    print(_measure(way, Path(name), processes, callers, options.seconds))


if __name__ == "__main__":
    main()
