"""A load of HTTP posts over keep-alive connections, in a process of its own.

    python -m bench.http_load HOST PORT KEY --messages N --connections 64 [--batch 100] [--rate R]

Closed loop (each connection posts again when it was answered), or with --rate an open loop:
latency then counts from the intended start. Prints one JSON object, its own CPU in it: the text
of a request is made once, and only the numbers in it are written anew for each message.
"""

import argparse
import asyncio
import json
import time
from typing import cast

import uvloop

HTML = "<html><body><h1>Hello</h1>" + "<p>A paragraph of ordinary text, as mail has it.</p>" * 18
TEXT = "Hello\n\n" + "A paragraph of ordinary text, as mail has it.\n" * 18


def template(attachment: int) -> bytes:
    """One message as JSON, about 2 KB of text and html and `attachment` more characters of base64.

    `%d` stands for its number, its destination's number, its number, and with an attachment its
    number once more: each attachment is another one, since equal ones may be stored once.
    """
    message: dict[str, object] = {
        "from": "Bench <bench@example.test>",
        "to": "user%d@dest%d.test",
        "subject": "Benchmark message %d",
        "html": HTML + "</body></html>",
        "text": TEXT,
    }
    if attachment:
        content = "%012d" + "QUJD" * (attachment // 4 - 3)  # digits are base64, too
        message["attachments"] = [{"filename": "a.bin", "content": content}]
    return json.dumps(message).encode()


class Load:
    """What all connections share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.template = template(options.attachment)
        self.next = 0
        self.answered = 0
        self.latencies: list[float] = []
        self.errors: dict[str, int] = {}
        self.done = asyncio.Event()
        self.idle: asyncio.Queue[Connection] = asyncio.Queue()
        path = "/emails/batch" if options.batch > 1 else "/emails"
        self.head = (
            f"POST {path} HTTP/1.1\r\nHost: {options.host}\r\n"
            f"Authorization: Bearer {options.key}\r\nContent-Type: application/json\r\n"
            "Content-Length: "
        ).encode()

    def message(self, n: int) -> bytes:
        numbers = (n, n % self.options.destinations, n)
        return self.template % ((*numbers, n) if self.options.attachment else numbers)

    def request(self) -> bytes | None:
        """The next request, or None when all are out."""
        first = self.next
        count = min(self.options.batch, self.options.messages - first)
        if count <= 0:
            return None
        self.next += count
        data = b",".join([self.message(n) for n in range(first, first + count)])
        if self.options.batch > 1:
            data = b"[%s]" % data
        return b"%s%d\r\n\r\n%s" % (self.head, len(data), data)

    def finished(self, began: float, status: bytes) -> None:
        self.latencies.append(time.perf_counter() - began)
        if status != b"200":
            name = status.decode()
            self.errors[name] = self.errors.get(name, 0) + 1
        self.answered += 1
        if self.answered * self.options.batch >= self.options.messages:
            self.done.set()

    def lost(self) -> None:
        """A connection was closed while requests were still to be answered."""
        if not self.done.is_set():
            self.errors["connection lost"] = self.errors.get("connection lost", 0) + 1
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

    def connection_lost(self, exc: Exception | None) -> None:
        self.load.lost()

    def send(self, began: float) -> None:
        request = self.load.request()
        if request is not None:
            self.began = began
            self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end].lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(self.buffer) < end + 4 + length:
            return
        self.buffer = self.buffer[end + 4 + length :]
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
    began, wall, cpu = time.perf_counter(), time.time(), time.process_time()
    async with asyncio.timeout(options.timeout):
        connections = [
            await loop.create_connection(lambda: Connection(load), options.host, options.port)
            for _ in range(options.connections)
        ]
        if options.rate:
            await pace(load)
        await load.done.wait()
    seconds, used = time.perf_counter() - began, time.process_time() - cpu
    for transport, _ in connections:
        transport.close()
    ordered = sorted(load.latencies) or [0.0]
    return {
        "messages": options.messages,
        "started_at": wall,
        "seconds": seconds,
        "cpu_s": used,
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
    parser.add_argument("--timeout", type=float, default=300.0)
    print(json.dumps(uvloop.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
