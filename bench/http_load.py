"""A load of HTTP posts over keep-alive connections, in a process of its own.

    python -m bench.http_load HOST PORT KEY --messages N --connections 64 [--batch 100] [--rate R]

Closed loop (each connection posts again when it was answered), or with --rate an open loop:
latency then counts from the intended start. Prints one JSON object.
"""

import argparse
import asyncio
import json
import time
from typing import cast

import uvloop

HTML = "<html><body><h1>Hello</h1>" + "<p>A paragraph of ordinary text, as mail has it.</p>" * 18
TEXT = "Hello\n\n" + "A paragraph of ordinary text, as mail has it.\n" * 18


def body(first: int, batch: int, size: int, destinations: int) -> bytes:
    """About 2 KB of text and html a message; `size` more bytes as an attachment."""
    messages = []
    for n in range(first, first + batch):
        message: dict[str, object] = {
            "from": "Bench <bench@example.test>",
            "to": f"user{n}@dest{n % destinations}.test",
            "subject": f"Benchmark message {n}",
            "html": HTML + "</body></html>",
            "text": TEXT,
        }
        if size:
            message["attachments"] = [{"filename": "a.bin", "content": "QUJD" * (size // 4)}]
        messages.append(message)
    return json.dumps(messages if batch > 1 else messages[0]).encode()


class Load:
    """What all connections share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.next = 0
        self.answered = 0
        self.latencies: list[float] = []
        self.errors: dict[str, int] = {}
        self.started = 0.0
        self.done = asyncio.Event()
        self.idle: asyncio.Queue[Connection] = asyncio.Queue()

    def request(self) -> bytes | None:
        """The next request, or None when all are out."""
        if self.next >= self.options.messages:
            return None
        batch = min(self.options.batch, self.options.messages - self.next)
        data = body(self.next, batch, self.options.attachment, self.options.destinations)
        self.next += batch
        path = "/emails/batch" if batch > 1 else "/emails"
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self.options.host}\r\n"
            f"Authorization: Bearer {self.options.key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        return head.encode() + data

    def finished(self, began: float, status: bytes) -> None:
        self.latencies.append(time.perf_counter() - began)
        if status != b"200":
            name = status.decode()
            self.errors[name] = self.errors.get(name, 0) + 1
        self.answered += 1
        if self.answered * self.options.batch >= self.options.messages:
            self.done.set()


class Connection(asyncio.Protocol):
    """One keep-alive connection; answers carry a Content-Length."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.buffer = b""
        self.began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own class is not one
        if self.load.options.rate:
            self.load.idle.put_nowait(self)
        else:
            self.send(time.perf_counter())

    def send(self, began: float) -> None:
        request = self.load.request()
        if request is not None:
            self.began = began
            self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, sep, rest = self.buffer.partition(b"\r\n\r\n")
        if not sep:
            return
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        if len(rest) < length:
            return
        self.buffer = rest[length:]
        self.load.finished(self.began, head[9:12])
        if self.load.options.rate:
            self.load.idle.put_nowait(self)
        else:
            self.send(time.perf_counter())


async def pace(load: Load) -> None:
    """Start requests at their intended times, whatever the server does."""
    step = load.options.batch / load.options.rate
    due = time.perf_counter()
    while load.next < load.options.messages:
        now = time.perf_counter()
        if now < due:
            await asyncio.sleep(due - now)
        (await load.idle.get()).send(due)
        due += step


async def run(options: argparse.Namespace) -> dict[str, object]:
    load = Load(options)
    loop = asyncio.get_running_loop()
    load.started = time.perf_counter()
    wall = time.time()
    connections = [
        await loop.create_connection(lambda: Connection(load), options.host, options.port)
        for _ in range(options.connections)
    ]
    if options.rate:
        await pace(load)
    async with asyncio.timeout(300):
        await load.done.wait()
    seconds = time.perf_counter() - load.started
    for transport, _ in connections:
        transport.close()
    ordered = sorted(load.latencies)
    return {
        "messages": options.messages,
        "started_at": wall,
        "seconds": seconds,
        "accepted_per_s": options.messages / seconds,
        "p50_ms": 1000 * ordered[len(ordered) // 2],
        "p99_ms": 1000 * ordered[min(len(ordered) * 99 // 100, len(ordered) - 1)],
        "max_ms": 1000 * ordered[-1],
        "errors": load.errors,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("key")
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--attachment", type=int, default=0)
    parser.add_argument("--destinations", type=int, default=1)
    print(json.dumps(uvloop.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
