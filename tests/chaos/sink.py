"""A mail server in a process of its own: takes much mail, misbehaves when told, keeps a journal.

`python -m tests.chaos.sink NAME JOURNAL HOST` listens on a port of HOST, says which on its output,
and then obeys one line of input at a time: the name of a behaviour. It ends with its input. Each
line of the journal is a message whose data came whole, whatever it was answered.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

__all__ = ["BEHAVIOURS", "REFUSED", "Sink", "Taken"]

BEHAVIOURS = ("ok", "swallow", "refuse_421", "refuse_451", "reset_in_data", "slow_dot", "down")
"""`swallow`: the message is kept, and the connection is closed without a reply. `refuse_421` greets
with 421 and answers each MAIL with it; `refuse_451` answers each MAIL with 451. `reset_in_data`: a
TCP reset while the data comes, nothing is kept. `slow_dot`: kept at once, and answered after
`SLOW_DOT_S`. `down`: nobody listens, and what was connected is cut off."""

SLOW_DOT_S = 7.0
REFUSED = "refused-"
"""A recipient whose local part begins with this is answered 550."""

_ADDRESS = re.compile(rb"<([^>]*)>")
_MESSAGE_ID = re.compile(rb"(?im)^message-id:\s*<([^>]+)>")
_END = b"\r\n.\r\n"
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Taken:
    """A message that came whole. `at`: monotonic seconds, as in the history; `body`: SHA-256 in hex
    of what follows the header; `answer`: what was said to it, empty for nothing."""

    sink: str
    at: float
    sender: str
    recipients: tuple[str, ...]
    message_id: str
    body: str
    answer: str


class Sink:
    """`with Sink(folder, "a") as sink: house.relay(sink.url, …); sink.behave("swallow")`."""

    def __init__(self, folder: Path, name: str = "sink", *, host: str = "127.0.0.1") -> None:
        self.name = name
        self.host = host
        self.journal = folder / f"{name}.jsonl"
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.sink", name, str(self.journal), host],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
        )
        self.port = int(self._said())

    @property
    def url(self) -> str:
        return f"smtp://{self.host}:{self.port}"

    def __enter__(self) -> "Sink":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def behave(self, name: str) -> None:
        """One of `BEHAVIOURS`, from now on; it has begun when this returns. Any thread may call."""
        assert name in BEHAVIOURS, name
        with self._lock:
            assert self._process.stdin is not None
            self._process.stdin.write(f"{name}\n")
            self._process.stdin.flush()
            said = self._said()
        assert said == name, said

    def close(self) -> None:
        """End it; its journal is whole then, or `ended` says that it is not."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        self._process.wait(timeout=30)
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def ended(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def taken(self) -> list[Taken]:
        """What its journal holds; whole after `close`."""
        found = []
        for line in self.journal.read_text(encoding="utf-8").splitlines():
            fields = json.loads(line)
            fields["recipients"] = tuple(fields["recipients"])
            found.append(Taken(**fields))
        return found

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


# -- the process -----------------------------------------------------------------------------------


class _Server:
    """Its sessions, its listener and how it behaves."""

    def __init__(self, name: str, journal: TextIO, host: str) -> None:
        self.name = name
        self._host = host
        self.behaviour = "ok"
        self.sessions: set[_Session] = set()
        self.journal = journal
        self._listener: asyncio.Server | None = None
        self._port = 0

    async def listen(self) -> int:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: _Session(self), self._host, self._port, backlog=512, reuse_address=True
        )
        self._port = int(self._listener.sockets[0].getsockname()[1])
        return self._port

    async def behave(self, name: str) -> None:
        self.behaviour = name
        if name == "down" and self._listener is not None:
            self._listener.close()
            self._listener = None
            for session in tuple(self.sessions):
                session.cut_off()
        elif name != "down" and self._listener is None:
            await self.listen()

    def keep(self, session: "_Session", data: bytes, answer: str) -> None:
        head, _, body = data.partition(b"\r\n\r\n")
        found = _MESSAGE_ID.search(head)
        line = {
            "sink": self.name,
            "at": round(time.monotonic(), 6),
            "sender": session.sender,
            "recipients": session.recipients,
            "message_id": found[1].decode() if found else "",
            "body": hashlib.sha256(body).hexdigest(),
            "answer": answer,
        }
        self.journal.write(json.dumps(line) + "\n")


class _Session(asyncio.Protocol):
    """RFC 5321's commands, one or many at once (RFC 2920)."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._unread = b""
        self._in_data = False
        self._waits = False
        self._refuses = False
        self.sender = ""
        self.recipients: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.sessions.add(self)
        if self._server.behaviour == "refuse_421":
            self._say("421 4.3.2 closing down")
            transport.close()
        else:
            self._say(f"220 {self._server.name}.sink.test ESMTP")

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.sessions.discard(self)

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while not self._waits and not self._transport.is_closing() and self._step():
            pass

    def cut_off(self) -> None:
        """A reset, so that the other side knows at once."""
        given: socket.socket | None = self._transport.get_extra_info("socket")
        if given is not None:
            with contextlib.suppress(OSError):
                given.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _say(self, line: str) -> None:
        self._transport.write(line.encode() + b"\r\n")

    def _step(self) -> bool:
        """One command, or one message's data; whether there was a whole one."""
        if self._in_data:
            return self._data()
        line, mark, rest = self._unread.partition(b"\r\n")
        if not mark:
            return False
        self._unread = rest
        self._command(line[:4].upper(), line)
        return True

    def _command(self, verb: bytes, line: bytes) -> None:
        if verb == b"EHLO":
            self._say(f"250-{self._server.name}.sink.test\r\n250-PIPELINING\r\n250 8BITMIME")
        elif verb == b"MAIL":
            self.recipients = []
            self.sender = _address(line)
            refused = {"refuse_421": "421 4.3.2 closing down", "refuse_451": "451 4.3.0 not now"}
            self._refuses = self._server.behaviour in refused
            self._say(refused.get(self._server.behaviour, "250 2.1.0 ok"))
            if self._server.behaviour == "refuse_421":
                self._transport.close()
        elif verb == b"RCPT":
            self._recipient(_address(line))
        elif verb == b"DATA":
            self._in_data = bool(self.recipients)
            self._say("354 go on" if self.recipients else "554 5.5.1 no valid recipients")
        elif verb == b"QUIT":
            self._say("221 2.0.0 bye")
            self._transport.close()
        else:
            self._say("250 2.0.0 ok")

    def _recipient(self, address: str) -> None:
        if address.startswith(REFUSED):
            self._say("550 5.1.1 no such user")
            return
        if self._refuses:  # it was said to MAIL; the behaviour may have changed since
            self._say("503 5.5.1 no transaction")
            return
        self.recipients.append(address)
        self._say("250 2.1.5 ok")

    def _data(self) -> bool:
        if self._server.behaviour == "reset_in_data" and self._unread:
            self.cut_off()
            return False
        wire, mark, rest = self._unread.partition(_END)
        if not mark:
            return False
        self._unread = rest
        self._in_data = False
        data = (wire + b"\r\n").replace(b"\r\n..", b"\r\n.")
        if self._server.behaviour == "swallow":
            self._server.keep(self, data, "")
            self.cut_off()
            return False
        self._server.keep(self, data, "250")
        if self._server.behaviour == "slow_dot":
            self._waits = True
            asyncio.get_running_loop().call_later(SLOW_DOT_S, self._answer)
        else:
            self._say("250 2.0.0 taken")
        return True

    def _answer(self) -> None:
        self._waits = False
        if not self._transport.is_closing():
            self._say("250 2.0.0 taken")
            self.data_received(b"")


def _address(line: bytes) -> str:
    found = _ADDRESS.search(line)
    return found[1].decode() if found else ""


async def _serve(name: str, journal: TextIO, host: str) -> None:
    server = _Server(name, journal, host)
    _report(str(await server.listen()))
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        word = line.decode().strip()
        await server.behave(word)
        _report(word)


def _report(word: str) -> None:
    os.write(1, word.encode() + b"\n")


def main(words: Iterable[str]) -> None:
    name, path, host = words
    with open(path, "w", encoding="utf-8") as journal:
        asyncio.run(_serve(name, journal, host))


if __name__ == "__main__":
    main(sys.argv[1:])
