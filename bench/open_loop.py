"""Emails offered at a rate, whatever the server does: each is tried once, at its time.

    python -m bench.open_loop HOST PORT KEY --rate 2000 --seconds 8 [--connections 1000]

An answer counts as good when it is a 200 within the client's patience. A client that finds no free
connection opens one, up to so many; past that it gives up at once (`no_connection`). The first
`--warm` seconds are offered and not counted. Prints one JSON object.
"""

import argparse
import asyncio
import json
import time
from collections import Counter, deque
from typing import Any

import uvloop

from bench.http_load import template

__all__ = ["Clients", "main"]


class Clients:
    """All clients of one run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.free: deque[_Connection] = deque()
        self.open = 0
        self.counts: Counter[str] = Counter()
        self.latencies: list[float] = []
        self.tasks: set[asyncio.Future[None]] = set()
        self.waiting = 0
        self.all_good = 0
        numbers = (0, 0, 0, 0) if options.attachment else (0, 0, 0)
        data = template(options.attachment) % numbers
        head = (
            f"POST /emails HTTP/1.1\r\nHost: {options.host}\r\n"
            f"Authorization: Bearer {options.key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        self.request = head.encode() + data
        self.counts_from = 0.0
        self.counts_to = 0.0

    def offer(self, due: float) -> None:
        """One email."""
        counted = self.counts_from <= due < self.counts_to
        self.counts["offered"] += counted
        while self.free:
            connection = self.free.popleft()  # the longest idle: all stay in use
            if not connection.transport.is_closing():
                connection.send(due, counted=counted)
                return
        if self.open < self.options.connections:
            self.open += 1
            task = asyncio.ensure_future(self._connect(due, counted=counted))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        else:
            self.counts["no_connection"] += counted

    async def _connect(self, due: float, *, counted: bool) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: _Connection(self), self.options.host, self.options.port
            )
        except OSError:
            self.open -= 1
            self.counts["no_connection"] += counted
            return
        connection.send(due, counted=counted)

    async def run(self) -> None:
        options = self.options
        start = time.perf_counter()
        self.counts_from = start + options.warm
        end = self.counts_to = self.counts_from + options.seconds
        step = 1 / options.rate
        due = start
        while due < end:
            now = time.perf_counter()
            while due <= now and due < end:
                self.offer(due)
                due += step
            await asyncio.sleep(0.001)
        for _ in range(int(options.patience / 0.01)):
            if self.waiting:
                await asyncio.sleep(0.01)

    def result(self) -> dict[str, Any]:
        ordered = sorted(self.latencies) or [0.0]
        return {
            "rate": self.options.rate,
            "goodput": self.counts["good"] / self.options.seconds,
            "p50_ms": 1000 * ordered[len(ordered) // 2],
            "p99_ms": 1000 * ordered[min(len(ordered) * 99 // 100, len(ordered) - 1)],
            "all_good": self.all_good,
            **self.counts,
        }


class _Connection(asyncio.Protocol):
    """One connection; answers carry a Content-Length."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._due = 0.0
        self._counted = self._busy = False
        self._buffer = b""
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def send(self, due: float, *, counted: bool) -> None:
        self._due, self._counted, self._busy = due, counted, True
        self._clients.waiting += 1
        self.transport.write(self._clients.request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._buffer.endswith(b"}"):  # every answer of these is one JSON object
            return
        status, self._buffer = self._buffer[9:12].decode(), b""
        took = time.perf_counter() - self._due
        clients = self._clients
        clients.waiting -= 1
        self._busy = False
        clients.free.append(self)
        clients.all_good += status == "200" and took <= clients.options.patience
        if not self._counted:
            return
        if status != "200":
            clients.counts[status] += 1
        elif took <= clients.options.patience:
            clients.counts["good"] += 1
            clients.latencies.append(took)
        else:
            clients.counts["late"] += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._clients.open -= 1
        if self._busy:
            self._clients.waiting -= 1
            self._clients.counts["lost"] += self._counted


async def _run(options: argparse.Namespace) -> dict[str, Any]:
    clients = Clients(options)
    await clients.run()
    return clients.result()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("key")
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--warm", type=float, default=2.0)
    parser.add_argument("--patience", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--attachment", type=int, default=0)
    print(json.dumps(uvloop.run(_run(parser.parse_args()))))


if __name__ == "__main__":
    main()
