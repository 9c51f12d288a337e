"""A slow, lossy link between two networks of its own: mail from one, a mail server in the other.

    python -m tests.support.slow_link '{"delay_ms": 100, "loss": 0.03, "messages": 40, …}'

This process makes two network namespaces (as root, or below `unshare --user --map-root-user`),
joins them by a pair of TAP devices that it forwards frames between, late or never, starts a server
at one end and a carrier at the other, and prints what became of it as JSON: see `Link` for what it
is told, `Result` for what it says. All of it ends with it.
"""

import asyncio
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import msgspec

from everpost.delivery import Timeouts
from everpost.delivery.shaping import START
from everpost.model.outcome import Delivered
from tests.support.carrying import Names, carrier, carry, direct, render
from tests.support.tiny_smtp import ScriptedServer, serve

__all__ = ["Link", "Result"]

NEAR, FAR, PORT = "10.9.0.1", "10.9.0.2", 2525
_NEW_NETWORK = 0x40000000
_TUNSETIFF, _TAP_WITHOUT_INFO = 0x400454CA, 0x1002
_SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x8914, 0x8916, 0x891C
_UP_RUNNING = 0x41
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Link(msgspec.Struct, frozen=True):
    """The link: `delay_ms` each way, `loss` of frames (0 to 1), `rate_kbit` each way (0: no limit),
    dead after so many octets of the sender (0: never); and what is sent over it: so many messages
    of so many octets to so many recipients, with a deadline for each block, all at once."""

    delay_ms: float = 0.0
    loss: float = 0.0
    rate_kbit: float = 0.0
    dies_after: int = 0
    messages: int = 1
    size: int = 500
    recipients: int = 1
    block_s: float = 180.0


class Result(msgspec.Struct, frozen=True):
    """What came of it. `round_trips`: how often the talk changed sides, by two, over all sessions;
    `dropped`: frames; `body_s`: the longest time that the blocks of one message took."""

    delivered: int
    reasons: list[str]
    sessions: int
    taken: int
    peak: int
    body_s: float
    round_trips: int
    dropped: int


# --- the link -------------------------------------------------------------------------------------


def _namespace(device: str, address: str) -> int:
    """Go into a new network, with this device in it: what is written to the device's other side,
    the descriptor returned, arrives there."""
    if _libc.unshare(_NEW_NETWORK):
        raise OSError(ctypes.get_errno(), "unshare: this needs root")
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _TAP_WITHOUT_INFO))
    with socket.socket() as any_:
        name = device.encode()
        for request, value in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, "255.255.255.0")):
            sockaddr = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(value))
            fcntl.ioctl(any_, request, struct.pack("16s16s", name, sockaddr))
        for up in (name, b"lo"):
            fcntl.ioctl(any_, _SIOCSIFFLAGS, struct.pack("16sH22x", up, _UP_RUNNING))
    # Small send buffers: what the kernel holds back must not pass for progress.
    with open("/proc/sys/net/ipv4/tcp_wmem", "w", encoding="ascii") as limits:
        limits.write("4096 16384 65536")
    return tap


def _start(role: str, link: Link) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.slow_link", role, _text(link)],
        stdout=subprocess.PIPE,
    )


def _text(link: Link) -> str:
    return msgspec.json.encode(link).decode()


class _Forwarder:
    """Frames between two devices."""

    def __init__(self, one: int, two: int, link: Link) -> None:
        self._pair = {one: two, two: one}
        self._link = link
        self._random = random.Random(71)
        self._late: list[tuple[float, int, int, bytes]] = []
        self._free = {one: 0.0, two: 0.0}
        self._number = 0
        self._spoke: dict[int, int] = {}
        self._turns: Counter[int] = Counter()
        self._near = one
        self._octets = 0
        self.dropped = 0

    @property
    def round_trips(self) -> int:
        return sum(self._turns.values()) // 2

    def step(self) -> None:
        """Pass on what is due, take in what comes, for a moment at most."""
        now = time.monotonic()
        while self._late and self._late[0][0] <= now:
            _, _, out, frame = heapq.heappop(self._late)
            os.write(out, frame)
        wait = min(0.05, max(0.0, self._late[0][0] - now)) if self._late else 0.05
        for source in select.select(list(self._pair), [], [], wait)[0]:
            for _ in range(64):
                try:
                    frame = os.read(source, 65536)
                except BlockingIOError:
                    break
                self._take(source, frame)

    def _take(self, source: int, frame: bytes) -> None:
        self._count(source, frame)
        self._octets += len(frame) if source == self._near else 0
        dead = 0 < self._link.dies_after < self._octets
        if dead or self._random.random() < self._link.loss:
            self.dropped += 1
            return
        at = time.monotonic()
        if self._link.rate_kbit:
            sent = len(frame) * 8 / (self._link.rate_kbit * 1000)
            at = self._free[source] = max(at, self._free[source]) + sent
        self._number += 1
        due = at + self._link.delay_ms / 1000
        heapq.heappush(self._late, (due, self._number, self._pair[source], frame))

    def _count(self, source: int, frame: bytes) -> None:
        """Whether the talk of a connection changes sides with this frame (IPv4, TCP, with data)."""
        if len(frame) < 54 or frame[12:14] != b"\x08\x00" or frame[23] != socket.IPPROTO_TCP:
            return
        ip = (frame[14] & 15) * 4
        tcp = 14 + ip
        if int.from_bytes(frame[16:18], "big") <= ip + (frame[tcp + 12] >> 4) * 4:
            return
        at = tcp if source == self._near else tcp + 2
        port = int.from_bytes(frame[at : at + 2], "big")
        if self._spoke.get(port) != source:
            self._spoke[port] = source
            self._turns[port] += 1


def main(link: Link) -> Result:
    two = _namespace("far", FAR)
    far = _start("far", link)
    assert far.stdout is not None
    far.stdout.readline()  # it listens
    one = _namespace("near", NEAR)
    near = _start("near", link)
    forwarder = _Forwarder(one, two, link)
    while near.poll() is None:
        forwarder.step()
    assert near.stdout is not None
    sent = json.loads(near.stdout.read())
    far.send_signal(signal.SIGTERM)
    got = json.loads(far.stdout.read())
    far.wait()
    return Result(**sent, **got, round_trips=forwarder.round_trips, dropped=forwarder.dropped)


# --- its ends -------------------------------------------------------------------------------------


async def _far() -> dict[str, Any]:
    server, stop = ScriptedServer(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with serve(server, FAR, PORT):
        sys.stdout.write("listening\n")
        sys.stdout.flush()
        await stop.wait()
    return {"sessions": server.connections, "taken": len(server.mail), "peak": server.peak}


async def _near(link: Link) -> dict[str, Any]:
    names = Names({("far.test", "MX"): ["10 mx.far.test."], ("mx.far.test", "A"): [FAR]})
    timeouts = Timeouts(connect=15.0, greet=30.0, block=link.block_s)
    made = carrier(direct(PORT), resolver=names, mx_timeouts=timeouts)
    line = b"x" * 76 + b"\r\n"
    content = b"Subject: slow\r\n\r\n" + line * (link.size // len(line) + 1)
    to = [f"u{n}@far.test" for n in range(link.recipients)]

    async def one() -> Any:
        return await carry(made, *to, destination="far.test", rendering=render(content))

    # The first finds the site and opens sessions for what follows.
    reports = [await one()] if link.messages > START else []
    reports += await asyncio.gather(*(one() for _ in range(link.messages - len(reports))))
    await made.close(deadline=5)
    good = [r for r in reports if all(isinstance(o, Delivered) for o in r.outcomes)]
    return {
        "delivered": len(good),
        "reasons": sorted({str(r.outcomes[0]) for r in reports if r not in good}),
        "body_s": max(r.record.timings.get("body", 0.0) for r in reports) / 1000,
    }


if __name__ == "__main__":
    *_role, _told = sys.argv[1:]
    _link = msgspec.json.decode(_told, type=Link)
    if _role:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _said = json.dumps(asyncio.run(_far() if _role == ["far"] else _near(_link)))
    else:
        _said = msgspec.json.encode(main(_link)).decode()
    sys.stdout.write(f"{_said}\n")
