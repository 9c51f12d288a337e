"""CPU a request of HTTP servers: what the least application costs on each, and what ours costs.

    python -m bench.http_servers [--seconds 3] [--connections 16] [NAME …]

Each server runs in a process of its own on one loop and answers a POST of 2 KB of JSON; a client
process keeps `connections` alive and sends the next request when the answer is there. CPU is the
server process' user and system time. Servers that are not installed are left out.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

BODY = json.dumps(
    {
        "from": "Acme <news@example.com>",
        "to": ["a@good.test"],
        "subject": "Your receipt",
        "text": "Thank you for your order. " * 30,
        "html": "<p>Thank you for your order.</p>" * 36,
        "headers": {"X-Entity-Ref-ID": "123456"},
        "tags": [{"name": "category", "value": "receipt"}],
    }
).encode()
_HEAD = (
    "POST /emails HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\nAccept: application/json\r\n"
    "Authorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n"
    "\r\n"
)
ANSWER = b'{"id":"019ab3c2-0000-7000-8000-000000000000"}'


# --- servers --------------------------------------------------------------------------------------


async def least(scope: Any, receive: Any, send: Any) -> None:
    """Read the body, answer."""
    await receive()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


def uvicorn_httptools(listener: socket.socket) -> None:
    import uvicorn
    import uvloop

    config = uvicorn.Config(
        least, http="httptools", ws="none", lifespan="off", log_config=None, access_log=False,
        server_header=False, proxy_headers=False,
    )  # fmt: skip
    uvloop.run(uvicorn.Server(config).serve([listener]))


def uvicorn_h11(listener: socket.socket) -> None:
    import uvicorn
    import uvloop

    config = uvicorn.Config(
        least, http="h11", ws="none", lifespan="off", log_config=None, access_log=False,
        server_header=False, proxy_headers=False,
    )  # fmt: skip
    uvloop.run(uvicorn.Server(config).serve([listener]))


def our_listener(listener: socket.socket) -> None:
    import uvloop

    from everpost.api import HttpServer

    uvloop.run(HttpServer().serve(least, [listener]))


def starlette(listener: socket.socket) -> None:
    import uvloop
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from everpost.api import HttpServer

    async def endpoint(request: Request) -> Response:
        await request.body()
        return Response(ANSWER, media_type="application/json")

    app: Any = Starlette(routes=[Route("/emails", endpoint, methods=["POST"])])
    uvloop.run(HttpServer().serve(app, [listener]))


def httptools_alone(listener: socket.socket) -> None:
    """The floor: the parser, no ASGI, no task."""
    import httptools
    import uvloop

    answer = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        % len(ANSWER)
        + ANSWER
    )

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            self.parser = httptools.HttpRequestParser(self)
            self.headers: list[tuple[bytes, bytes]] = []
            self.body = b""

        def data_received(self, data: bytes) -> None:
            self.parser.feed_data(data)

        def on_header(self, name: bytes, value: bytes) -> None:
            self.headers.append((name, value))

        def on_body(self, body: bytes) -> None:
            self.body += body

        def on_message_complete(self) -> None:
            self.headers, self.body = [], b""
            self.transport.write(answer)

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Protocol, sock=listener)
        await server.serve_forever()

    uvloop.run(main())


def our_api(listener: socket.socket) -> None:
    """The whole door with the real intake over a store that only remembers nothing."""
    import uvloop

    from everpost.api import HttpServer
    from tests.unit.api.conftest import new_door

    door = new_door()

    async def forget(*_: Any) -> Any:
        from everpost.store.interface import Accepted

        return Accepted()

    door.store.accept = forget  # type: ignore[assignment,method-assign]
    if len(sys.argv) > 3 and sys.argv[3] == "stub":
        _without_intake(door)
    print(door.tokens["full"], flush=True)
    uvloop.run(HttpServer().serve(door.api, [listener]))


def _without_intake(door: Any) -> None:
    from everpost.intake import Draft, Intake

    prepared = door.services.intake.prepare(
        door.services.access.authenticate(door.tokens["full"]),
        Draft(sender="news@example.com", to=("a@good.test",), subject="x", text="y"),
    )

    async def accept(*_: Any, answer: bytes, **__: Any) -> bytes:
        return answer

    intake: Any = Intake
    intake.prepare = lambda *_: prepared
    intake.accept = accept


def our_api_stub(listener: socket.socket) -> None:
    """The door alone: route, key, JSON, answer; intake costs nothing."""
    sys.argv[3:] = ["stub"]
    our_api(listener)


def granian_asgi(listener: socket.socket) -> None:
    _granian(listener, "asgi", "bench.http_servers:least")


def granian_rsgi(listener: socket.socket) -> None:
    _granian(listener, "rsgi", "bench.http_servers:least_rsgi")


async def least_rsgi(scope: Any, protocol: Any) -> None:
    """`least`, in Granian's own interface."""
    await protocol()
    protocol.response_bytes(200, [("content-type", "application/json")], ANSWER)


def _granian(listener: socket.socket, interface: str, target: str) -> None:
    port = listener.getsockname()[1]
    listener.close()  # it cannot serve a socket that is bound already
    os.execvp(
        sys.executable,
        [sys.executable, "-m", "granian", "--interface", interface, "--port", str(port),
         "--no-ws", "--http", "1", "--loop", "uvloop", "--log-level", "error", target],
    )  # fmt: skip


SERVERS: dict[str, tuple[Callable[[socket.socket], None], str]] = {
    "httptools, no ASGI": (httptools_alone, "httptools"),
    "granian RSGI": (granian_rsgi, "granian"),
    "granian ASGI": (granian_asgi, "granian"),
    "uvicorn + httptools": (uvicorn_httptools, "uvicorn"),
    "our listener": (our_listener, "everpost.api"),
    "our listener + Starlette": (starlette, "starlette"),
    "uvicorn + h11": (uvicorn_h11, "uvicorn"),
    "our API, no intake": (our_api_stub, "everpost.api"),
    "our API, real intake": (our_api, "everpost.api"),
}


# --- client ---------------------------------------------------------------------------------------


class _Client(asyncio.Protocol):
    """One connection that always has one request under way."""

    def __init__(self, request: bytes, count: list[int]) -> None:
        self._request = request
        self._count = count

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not data.startswith((b"HTTP/1.1 200", b"{")):
            raise RuntimeError(data[:300])
        if not data.endswith(b"}"):
            return  # the head came alone
        self._count[0] += 1
        self._transport.write(self._request)


async def _load(port: int, key: str, connections: int, seconds: float, pid: int) -> str:
    request = _HEAD.format(key=key, length=len(BODY)).encode() + BODY
    count = [0]
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(lambda: _Client(request, count), "127.0.0.1", port)
    await asyncio.sleep(0.5)  # warm
    before, cpu, started = count[0], _cpu(pid), time.monotonic()
    await asyncio.sleep(seconds)
    done, cpu, took = count[0] - before, _cpu(pid) - cpu, time.monotonic() - started
    return f"{cpu / done * 1e6:6.1f} us CPU a request, {done / took:8.0f} a second"


def _cpu(pid: int) -> float:
    """User and system seconds of a process and its children."""
    pids = [pid]
    total = 0
    while pids:
        one = pids.pop()
        with open(f"/proc/{one}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
        total += int(fields[11]) + int(fields[12])
        with open(f"/proc/{one}/task/{one}/children", "rb") as file:
            pids += map(int, file.read().split())
    return total / os.sysconf("SC_CLK_TCK")


def _measure(name: str, connections: int, seconds: float) -> str:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.set_inheritable(True)
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.http_servers", "--serve", name, str(listener.fileno())],
        pass_fds=[listener.fileno()],
        stdout=subprocess.PIPE,
        text=True,
    )
    listener.close()
    try:
        assert child.stdout is not None
        key = child.stdout.readline().strip() if "API" in name else "key"
        if "granian" in name:
            time.sleep(2)  # until it has bound the port again
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        import uvloop

        return uvloop.run(_load(port, key, connections, seconds, child.pid))
    finally:
        child.terminate()  # granian ends its workers then
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(3)
        child.kill()
        child.wait()


def main() -> None:
    import importlib.util

    if sys.argv[1:2] == ["--serve"]:
        name, fd = sys.argv[2:4]
        del sys.argv[3:]
        SERVERS[name][0](socket.socket(fileno=int(fd)))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("names", nargs="*")
    chosen = parser.parse_args()
    for name in chosen.names or SERVERS:
        try:
            found = importlib.util.find_spec(SERVERS[name][1]) is not None
        except ModuleNotFoundError:
            found = False
        result = "not installed"
        if found:
            result = _measure(name, chosen.connections, chosen.seconds)
        print(f"{name:26} {result}", flush=True)


if __name__ == "__main__":
    main()
