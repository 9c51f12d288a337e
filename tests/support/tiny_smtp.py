"""Two small SMTP far ends for tests: a fast sink that takes everything, and one that plays a script
of misfortunes. Neither parses more than it must."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "Close",
    "Endless",
    "Misfortune",
    "Reset",
    "ScriptedServer",
    "Silence",
    "Sink",
    "StartTls",
    "serve",
]

EXTENSIONS = ("PIPELINING", "SIZE 35882577", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8")


class Sink(asyncio.Protocol):
    """Accepts every message. `messages` counts them; `keep`, if given, collects their bytes."""

    messages = 0

    def __init__(self, keep: list[bytes] | None = None) -> None:
        self._buffer = b""
        self._in_data = False
        self._keep = keep
        lines = [f"250-{e}" for e in ("sink.test", *EXTENSIONS[:-1])] + [f"250 {EXTENSIONS[-1]}"]
        self._hello = "\r\n".join(lines).encode() + b"\r\n"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._transport.write(b"220 sink.test ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        out = []
        while buffer:
            if self._in_data:
                end = 0 if buffer.startswith(b".\r\n") else buffer.find(b"\r\n.\r\n") + 2
                if end == 1:
                    break
                if self._keep is not None:
                    self._keep.append(buffer[:end])
                buffer = buffer[end + 3 :]
                self._in_data = False
                Sink.messages += 1
                out.append(b"250 2.0.0 Ok: queued as %X\r\n" % Sink.messages)
                continue
            end = buffer.find(b"\r\n")
            if end < 0:
                break
            verb = buffer[:4].upper()
            buffer = buffer[end + 2 :]
            if verb == b"MAIL":
                out.append(b"250 2.1.0 Ok\r\n")
            elif verb == b"RCPT":
                out.append(b"250 2.1.5 Ok\r\n")
            elif verb == b"DATA":
                out.append(b"354 End data with <CR><LF>.<CR><LF>\r\n")
                self._in_data = True
            elif verb == b"EHLO":
                out.append(self._hello)
            elif verb == b"QUIT":
                out.append(b"221 2.0.0 Bye\r\n")
                self._transport.write(b"".join(out))
                self._transport.close()
                return
            else:
                out.append(b"250 2.0.0 Ok\r\n")
        self._buffer = buffer
        if out:
            self._transport.write(b"".join(out))


class Misfortune:
    """What a scripted server does instead of answering."""


class Close(Misfortune):
    """Hangs up (FIN)."""


class Reset(Misfortune):
    """Resets the connection (RST)."""


class Silence(Misfortune):
    """Says nothing, keeps the connection."""


@dataclass
class Endless(Misfortune):
    """Says this again and again, until the other side hangs up."""

    words: bytes


@dataclass
class StartTls(Misfortune):
    """Answers, then speaks TLS; without a context does `instead` when the handshake begins."""

    context: ssl.SSLContext | None
    reply: bytes = b"220 2.0.0 Go\r\n"
    instead: "bytes | Misfortune" = b""


@dataclass
class ScriptedServer:
    """Answers by verb: `BANNER`, `EHLO`, `MAIL`, `RCPT`, `DATA`, `BODY` (the first bytes after a
    354), `DOT`, `QUIT`, …; a list is used up one by one, its last for good. `log` holds the
    commands of all connections, `mail` the messages, `connections` counts, `peak` is how many there
    were at once. `split` writes every answer byte by byte. `by_peer` holds scripts for clients of
    certain addresses, `peers` the address of each that connected."""

    script: Mapping[str, Any] = field(default_factory=dict)
    extensions: Sequence[str] = EXTENSIONS
    split: bool = False
    log: list[str] = field(default_factory=list)
    mail: list[bytes] = field(default_factory=list)
    by_peer: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    peers: list[str] = field(default_factory=list)
    connections: int = 0
    ended: int = 0
    peak: int = 0
    port: int = 0
    used: dict[str, int] = field(default_factory=dict)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    silent: asyncio.Event = field(default_factory=asyncio.Event)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    tls: ssl.SSLContext | None = None

    def answer(self, verb: str, peer: str = "") -> bytes | Misfortune:
        own = self.by_peer.get(peer, {})
        entry = own.get(verb, self.script.get(verb))
        if entry is None:
            return self._default(verb)
        if isinstance(entry, list | tuple):
            key = f"{peer} {verb}" if verb in own else verb
            at = self.used.get(key, 0)
            self.used[key] = at + 1
            entry = entry[min(at, len(entry) - 1)]
        assert isinstance(entry, bytes | Misfortune)
        return entry

    def _default(self, verb: str) -> bytes:
        match verb:
            case "BANNER":
                return b"220 far.test ESMTP\r\n"
            case "EHLO":
                lines = ["far.test", *self.extensions]
                marks = ["-"] * (len(lines) - 1) + [" "]
                return "".join(f"250{m}{x}\r\n" for m, x in zip(marks, lines, strict=True)).encode()
            case "DATA":
                return b"354 go on\r\n"
            case "QUIT":
                return b"221 2.0.0 bye\r\n"
            case "BODY" | "BDAT":  # answered by DOT, once the content is there
                return b""
            case _:
                return b"250 2.0.0 fine\r\n"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.peak = max(self.peak, self.connections - self.ended)
        self.writers.append(writer)
        peer = str(writer.get_extra_info("peername")[0])
        self.peers.append(peer)
        try:
            if await self._act(writer, self.answer("BANNER", peer)):
                await self._converse(reader, writer, peer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            self.ended += 1
            self.reached.set()
            writer.close()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str
    ) -> None:
        while line := await reader.readline():
            verb = line[:4].decode("latin-1").upper()
            verb = "STARTTLS" if verb == "STAR" else verb.strip()
            self.log.append(line.decode("utf-8", "replace").rstrip("\r\n"))
            action = self.answer(verb, peer)
            if isinstance(action, StartTls):
                writer.write(action.reply)
                if action.context is not None:
                    await writer.start_tls(action.context)
                    continue
                await reader.read(1)
                if not await self._act(writer, action.instead):
                    return
                await reader.read()
                return
            if not await self._act(writer, action):
                return
            if verb == "QUIT":
                return
            if verb == "BDAT":
                size = int(line.split()[1])
                self.mail.append(await reader.readexactly(size))
                if not await self._act(writer, self.answer("DOT", peer)):
                    return
            go = verb == "DATA" and isinstance(action, bytes) and action.startswith(b"354")
            if go and not await self._content(reader, writer, peer):
                return

    async def _content(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str
    ) -> bool:
        lines: list[bytes] = []
        while (line := await reader.readline()) != b".\r\n":
            if not line:
                return False
            if not lines and not await self._act(writer, self.answer("BODY", peer)):
                return False
            lines.append(line[1:] if line.startswith(b".") else line)
        self.mail.append(b"".join(lines))
        return await self._act(writer, self.answer("DOT", peer))

    async def _act(self, writer: asyncio.StreamWriter, action: bytes | Misfortune) -> bool:
        """Carry out one action; whether the conversation goes on."""
        match action:
            case Close():
                return False
            case Reset():
                # A socket that lingers for no time is reset when it is closed.
                sock = writer.get_extra_info("socket")
                sock.setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")
                writer.transport.abort()
                return False
            case Silence():
                self.reached.set()
                self.silent.set()
            case Endless(words):
                while not writer.is_closing():
                    writer.write(words)
                    await writer.drain()
                return False
            case bytes() if self.split:
                for i in range(len(action)):
                    writer.write(action[i : i + 1])
                    await asyncio.sleep(0)
            case bytes():
                writer.write(action)
            case _:
                raise TypeError(action)
        return True


@asynccontextmanager
async def serve(
    server: ScriptedServer, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[ScriptedServer]:
    """The server on a loopback port; everything is closed at the end."""
    listener = await asyncio.start_server(server.handle, host, port, ssl=server.tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for writer in server.writers:
            writer.transport.abort()
