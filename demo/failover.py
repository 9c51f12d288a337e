"""`make demo-failover`: three relays on this machine, mail sent at a steady rate; one is killed,
one becomes slow, one refuses every MAIL, and each comes back. A live table while it lasts, then
figures.

    python -m demo.failover [--rate 100] [--calm 10] [--trouble 8] [--back 60] [--json]

Nobody tells Everpost what happens. Exits with 1 when a figure misses its bar.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import re
import shutil
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from rich.console import Console
from rich.live import Live
from rich.table import Table

from demo.figures import Arrived, Figures, Trouble, Window, judge, p99, shares
from demo.relay import Said
from everpost.net.keepalive import KeepAlive, connect

__all__ = ["main"]

KEY = "ep_demo0demo0_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
WEIGHTS = {"alpha": 3, "beta": 2, "gamma": 1}
READY_S = 60.0
LOOK_S = 0.2
SETTLE_S = 15.0
"""From four fifths of a share to all of it: the rest of the slow start."""
FEW = 2
"""Messages a second that a relay may get at most, and be left: a look now and then."""


class Relay:
    """A relay's process, which can be killed and started again on the same port."""

    def __init__(self, name: str, arrived: list[Arrived]) -> None:
        self.name = name
        self.port = 0
        self.id = ""
        self.mood = "well"
        self.circuit = "?"
        self._arrived = arrived
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "demo.relay", str(self.port)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(READY_S):
            first = await self._process.stdout.readline()
        self.port = msgspec.json.decode(first, type=Said).port
        self.mood = "well"
        self._reader = asyncio.create_task(self._read(self._process.stdout))

    async def _read(self, lines: asyncio.StreamReader) -> None:
        while line := await lines.readline():
            said = msgspec.json.decode(line, type=Said)
            self._arrived.append(Arrived(self.name, said.mark, said.at))

    def be(self, mood: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{mood}\n".encode())
        self.mood = mood

    async def kill(self) -> None:
        """As a crash does: no goodbye."""
        assert self._process is not None
        self._process.kill()
        self.mood = "killed"
        await self._process.wait()
        if self._reader is not None:
            await self._reader  # what it had said already

    async def end(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


class House:
    """`everpost serve`, with its defaults, in a folder of its own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="everpost-demo-"))
        self.port = 0
        self._process: asyncio.subprocess.Process | None = None
        self._drain: asyncio.Task[bytes] | None = None

    async def start(self) -> None:
        with (self.folder / "log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "everpost", "serve", "--data", str(self.folder / "d")),
                *("--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=_environment(),
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(READY_S):
            while line := await self._process.stdout.readline():
                if found := re.search(rb"ready at http://[0-9.]+:(\d+)", line):
                    self.port = int(found[1])
                    break
        if not self.port:
            raise RuntimeError(f"everpost serve did not start: {self.folder / 'log'}")
        self._drain = asyncio.create_task(self._process.stdout.read())

    async def end(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(60):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def _environment() -> dict[str, str]:
    import os

    kept = {k: v for k, v in os.environ.items() if not k.startswith("EVERPOST_")}
    return {**kept, "EVERPOST_FIRST_API_KEY": KEY, "EVERPOST_NODE_HOSTNAME": "demo.test"}


class Api:
    """Requests over kept connections, one answer each."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: deque[KeepAlive] = deque()
        self._out: dict[KeepAlive, asyncio.Future[tuple[int, bytes]]] = {}

    async def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """Status and body. Raises OSError."""
        data = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        connection = await self._connection()
        answer = asyncio.get_running_loop().create_future()
        self._out[connection] = answer
        connection.send(head.encode() + data)
        async with asyncio.timeout(30):
            status, text = await answer
        return int(status), bytes(text)

    async def must(self, method: str, path: str, body: object = None) -> Any:
        status, text = await self.ask(method, path, body)
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {text.decode(errors='replace')}")
        return json.loads(text)

    async def _connection(self) -> KeepAlive:
        while self._idle:
            connection = self._idle.popleft()
            if connection.usable:
                return connection
        return await connect(
            lambda: KeepAlive(self._answered, self._lost), ["127.0.0.1"], self._port, within=5.0
        )

    def _answered(self, connection: KeepAlive, status: int, body: bytes, _: str | None) -> None:
        answer = self._out.pop(connection)
        if connection.usable:
            self._idle.append(connection)
        if not answer.done():
            answer.set_result((status, body))

    def _lost(self, connection: KeepAlive, why: str) -> None:
        answer = self._out.pop(connection, None)
        if answer is not None and not answer.done():
            answer.set_exception(ConnectionError(why))


class Demo:
    """One run."""

    def __init__(self, options: argparse.Namespace, console: Console) -> None:
        self.options = options
        self.console = console
        self.arrived: list[Arrived] = []
        self.relays = {name: Relay(name, self.arrived) for name in WEIGHTS}
        self.house = House()
        self.sent: dict[str, float] = {}
        self.refused = 0
        self.windows: list[Window] = []
        self.troubles: list[Trouble] = []
        self.now_playing = "starting"
        self._opened: dict[str, float] = {}
        self._posts: set[asyncio.Task[None]] = set()

    async def run(self) -> Figures:
        try:
            for relay in self.relays.values():
                await relay.start()
            await self.house.start()
            self.api = Api(self.house.port)
            await self._set_up()
            sending = asyncio.create_task(self._send())
            watching = asyncio.create_task(self._watch())
            try:
                await self._play()
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
                await self._drain()
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
            return self._figures()
        finally:
            await self.house.end()
            for relay in self.relays.values():
                await relay.end()

    async def _set_up(self) -> None:
        for name, relay in self.relays.items():
            body = {
                "url": f"smtp://127.0.0.1:{relay.port}", "name": name, "tls": "none",
                "weight": WEIGHTS[name],
            }  # fmt: skip
            relay.id = (await self.api.must("POST", "/relays", body))["id"]
        domain = {"name": "example.test", "trust": True, "signing": "unsigned"}
        await self.api.must("POST", "/domains", domain)

    # -- what happens ------------------------------------------------------------------------------

    async def _play(self) -> None:
        calm = self.options.calm
        self.now_playing = "all is well"
        await asyncio.sleep(2.0)  # connections are made
        start = time.monotonic()
        await asyncio.sleep(calm)
        self.windows.append(Window("before", start, time.monotonic()))
        for name, what in (("beta", "killed"), ("gamma", "slow"), ("alpha", "refusing")):
            await self._trouble(self.relays[name], what)
        self.now_playing = "all is well again, shares grow to their weights"
        await asyncio.sleep(SETTLE_S)
        self.now_playing = "all is well again"
        start = time.monotonic()
        await asyncio.sleep(calm)
        self.windows.append(Window("after", start, time.monotonic()))

    async def _trouble(self, relay: Relay, what: str) -> None:
        self.now_playing = f"{relay.name} is {what}"
        self._opened.pop(relay.name, None)
        start = time.monotonic()
        if what == "killed":
            await relay.kill()
        else:
            relay.be("slow 1" if what == "slow" else what)
        await asyncio.sleep(self.options.trouble)
        end = time.monotonic()
        self.windows.append(Window(f"{relay.name} {what}", start, end))
        left = self._left(relay, what, start, end)
        self.now_playing = f"{relay.name} is back"
        if what == "killed":
            await relay.start()
        else:
            relay.be("well")
        back = time.monotonic()
        seen = await self._until_full(relay.name, back)
        self.troubles.append(Trouble(relay.name, what, left, *seen))

    def _left(self, relay: Relay, what: str, start: float, end: float) -> float | None:
        """Seconds until its circuit opened; a slow one may also be left by getting next to nothing.
        (That a dead one takes nothing says nothing.)"""
        found = []
        if relay.name in self._opened:
            found.append(self._opened[relay.name] - start)
        if what == "slow":
            times = [a.at - start for a in self.arrived if a.relay == relay.name and a.at >= start]
            for at in (0.0, *times):
                if at + 1 <= end - start and sum(at < t <= at + 1 for t in times) < FEW:
                    found.append(at)
                    break
        return max(min(found), 0.0) if found else None

    async def _until_full(self, name: str, back: float) -> tuple[float | None, float | None]:
        """Wait until it has its share again, or for as long as it may take: when it got its first
        mail, and when its share."""
        share = WEIGHTS[name] / sum(WEIGHTS.values())
        first: float | None = None
        while (now := time.monotonic()) < back + self.options.back:
            await asyncio.sleep(LOOK_S)
            since = max(back, now - 2.0)
            recent = [a for a in self.arrived[-2000:] if a.at >= since]
            if first is None:
                first = next(
                    (a.at - back for a in self.arrived if a.relay == name and a.at > back), None
                )
            if now - back >= 2.0 and recent:
                part = sum(a.relay == name for a in recent) / len(recent)
                if part >= 0.8 * share:
                    return first, now - back
        return first, None

    # -- mail --------------------------------------------------------------------------------------

    async def _send(self) -> None:
        step = 1 / self.options.rate
        due = time.monotonic()
        for number in itertools.count():
            now = time.monotonic()
            if now < due:
                await asyncio.sleep(due - now)
            task = asyncio.create_task(self._post(str(number)))
            self._posts.add(task)
            task.add_done_callback(self._posts.discard)
            due += step

    async def _post(self, mark: str) -> None:
        at = time.monotonic()
        body = {
            "from": "Demo <demo@example.test>", "to": f"user{mark}@dest{int(mark) % 20}.test",
            "subject": f"Message {mark}", "text": "Steady as she goes.\n",
            "headers": {"X-Loadtest-Id": mark},
        }  # fmt: skip
        status, _ = await self.api.ask("POST", "/emails", body)
        if status == 200:
            self.sent[mark] = at
        else:
            self.refused += 1

    async def _drain(self) -> None:
        """What was accepted must arrive: in doubt is tried again after a minute."""
        self.now_playing = "waiting for what is under way"
        await asyncio.gather(*self._posts, return_exceptions=True)
        deadline = time.monotonic() + self.options.drain
        while time.monotonic() < deadline:
            if len({a.mark for a in self.arrived} & self.sent.keys()) == len(self.sent):
                break
            await asyncio.sleep(LOOK_S)
        await asyncio.sleep(1.0)  # a duplicate would come now

    # -- what is seen ------------------------------------------------------------------------------

    async def _watch(self) -> None:
        with Live(console=self.console, refresh_per_second=5, transient=True) as live:
            while True:
                with contextlib.suppress(OSError, TimeoutError, RuntimeError):
                    self._see(await self.api.must("GET", "/relays/status"))
                live.update(self._table())
                await asyncio.sleep(LOOK_S)

    def _see(self, answer: Any) -> None:
        by_name = {one["name"]: one for one in answer["data"]}
        for relay in self.relays.values():
            relay.circuit = str(by_name[relay.name]["circuit"] or "?")
            if relay.circuit == "open":
                self._opened.setdefault(relay.name, time.monotonic())

    def _table(self) -> Table:
        now = time.monotonic()
        recent = [a for a in self.arrived[-3000:] if a.at >= now - 3]
        counts = Counter(a.relay for a in recent)
        totals = Counter(a.relay for a in self.arrived)
        first = _first(self.arrived)
        window = Window("now", now - 4, now - 1)
        table = Table(title=f"{self.now_playing}", title_justify="left")
        for column in ("relay", "weight", "is", "circuit", "a second", "share", "taken"):
            table.add_column(column, justify="left" if column in {"relay", "is"} else "right")
        for name, relay in self.relays.items():
            part = counts[name] / len(recent) if recent else 0.0
            table.add_row(
                name, str(WEIGHTS[name]), relay.mood, relay.circuit, f"{counts[name] / 3:.0f}",
                f"{part:.0%}", str(totals[name]),
            )  # fmt: skip
        wait = p99(self.sent, first, window)
        table.caption = (
            f"accepted {len(self.sent)}, arrived {len(first)}, "
            f"p99 of the last seconds {wait * 1000:.0f} ms"
        )
        return table

    def _figures(self) -> Figures:
        first = _first(self.arrived)
        copies = Counter(a.mark for a in self.arrived)
        total = sum(WEIGHTS.values())
        by_name = {window.name: window for window in self.windows}
        names = list(WEIGHTS)
        figures = Figures(
            sent=len(self.sent),
            lost=sum(mark not in copies for mark in self.sent),
            duplicates=sum(n - 1 for n in copies.values()),
            weight={name: weight / total for name, weight in WEIGHTS.items()},
            share_before=shares(self.arrived, names, by_name["before"]),
            share_after=shares(self.arrived, names, by_name["after"]),
            p99={window.name: p99(self.sent, first, window) for window in self.windows},
            troubles=tuple(self.troubles),
        )
        return msgspec.structs.replace(figures, missed=tuple(judge(figures)))


def _first(arrived: Sequence[Arrived]) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for one in arrived:
        found.setdefault(one.mark, one.at)
    return found


def _show(figures: Figures, console: Console) -> None:
    console.print(
        f"accepted {figures.sent:,}, lost {figures.lost}, duplicates {figures.duplicates}"
    )
    table = Table(title="Share of the mail", title_justify="left")
    for column in ("relay", "weight", "before", "after"):
        table.add_column(column, justify="right")
    for name, weight in figures.weight.items():
        before, after = figures.share_before[name], figures.share_after[name]
        table.add_row(name, f"{weight:.1%}", f"{before:.1%}", f"{after:.1%}")
    console.print(table)
    table = Table(title="Troubles, in seconds", title_justify="left")
    for column in ("relay", "to eject", "to return", "to full share", "p99 meanwhile, ms"):
        table.add_column(column, justify="right")
    for one in figures.troubles:
        times = (one.to_eject, one.to_return, one.to_full_share)
        shown = ("never" if t is None else f"{t:.1f}" for t in times)
        name = f"{one.relay} {one.what}"
        table.add_row(name, *shown, f"{figures.p99[name] * 1000:.0f}")
    console.print(table)
    before, after = figures.p99["before"] * 1000, figures.p99["after"] * 1000
    console.print(f"p99 from POST to arrival: before {before:.0f} ms, after {after:.0f} ms")
    for miss in figures.missed:
        console.print(f"missed: {miss}")
    if not figures.missed:
        console.print("Every bar is held.")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.failover", description=__doc__)
    parser.add_argument("--rate", type=float, default=100.0, help="messages a second")
    parser.add_argument("--calm", type=float, default=10.0, help="seconds before and after")
    parser.add_argument("--trouble", type=float, default=8.0, help="seconds of each trouble")
    parser.add_argument("--back", type=float, default=60.0, help="seconds a return may take")
    parser.add_argument("--drain", type=float, default=90.0, help="seconds to wait at the end")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    options = parser.parse_args()
    console = Console(stderr=options.json)
    figures = uvloop.run(Demo(options, console).run())
    if options.json:
        sys.stdout.write(json.dumps(msgspec.to_builtins(figures)) + "\n")
    else:
        _show(figures, console)
    return 1 if figures.missed else 0


if __name__ == "__main__":
    sys.exit(main())
