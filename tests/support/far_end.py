"""A mail server that the test conducts: it stops where it is told to, until it is told to go on."""

import re
import socket
import threading
import time
from collections.abc import Mapping
from typing import BinaryIO

__all__ = ["FarEnd", "Received"]

_ADDRESS = re.compile(rb"<([^>]*)>")


class Received:
    """One message that was taken with 250. `wire` is its data as it came, with dots stuffed, and
    `peer` the port that it came from, where that is known; `at` is when, in monotonic seconds."""

    def __init__(
        self,
        sender: str,
        recipients: list[str],
        data: bytes,
        wire: bytes | None = None,
        *,
        peer: int = 0,
    ) -> None:
        self.at = time.monotonic()
        self.peer = peer
        self.sender = sender
        self.recipients = recipients
        self.data = data
        self.wire = wire

    @property
    def message_id(self) -> str:
        found = re.search(rb"(?im)^message-id:\s*<([^>]+)>", self.data)
        assert found is not None
        return found[1].decode()


class FarEnd:
    """Gates: `banner`, `rcpt`, `data` (before 354), `body` (after 354, before reading on) and
    `dot` (everything read, before the answer). At a closed gate it sets `reached[gate]` and waits
    until `open(gate)`. `refuse` maps a recipient's local part to the reply that it gets.

    What arrived complete is in `complete` (whether answered or not), what was answered 250 and
    read by the other side as far as TCP can tell is in `taken`.
    """

    def __init__(
        self,
        *,
        closed: tuple[str, ...] = (),
        refuse: Mapping[str, str] | None = None,
        extensions: tuple[str, ...] = ("PIPELINING",),
    ) -> None:
        lines = ("far.end.test", *extensions)
        self.hello = "".join(
            f"250{' ' if line is lines[-1] else '-'}{line}\r\n" for line in lines
        ).encode()
        self._gates = {
            name: threading.Event() for name in ("banner", "rcpt", "data", "body", "dot")
        }
        self.reached = {name: threading.Event() for name in self._gates}
        for name, gate in self._gates.items():
            if name not in closed:
                gate.set()
        self._refuse = dict(refuse or {})
        self.complete: list[Received] = []
        self.taken: list[Received] = []
        self._arrived = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._ended = False
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    def __enter__(self) -> "FarEnd":
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        for name in self._gates:
            self.open(name)
        # A plain close would leave accept() asleep.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in tuple(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._thread.join(timeout=10)

    @property
    def sessions(self) -> int:
        """Connections that are open now."""
        return len(self._open)

    def open(self, gate: str) -> None:
        self._gates[gate].set()

    def close(self, gate: str) -> None:
        self.reached[gate].clear()
        self._gates[gate].clear()

    def wait_reached(self, gate: str, seconds: float = 20) -> None:
        assert self.reached[gate].wait(seconds), f"nobody came to the gate {gate}"

    def wait_taken(self, count: int, seconds: float = 30) -> list[Received]:
        with self._arrived:
            arrived = self._arrived.wait_for(lambda: len(self.taken) >= count, seconds)
        assert arrived, f"{len(self.taken)} of {count} messages came"
        return self.taken

    # -- its side of the conversation --------------------------------------------------------------

    def _accept(self) -> None:
        while not self._ended:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as reader:
                peer: int = connection.getpeername()[1]
                self._pass("banner")
                connection.sendall(b"220 far.end.test ESMTP\r\n")
                sender, recipients = "", list[str]()
                while line := reader.readline(4096):
                    verb = line[:4].upper()
                    if verb == b"EHLO":
                        connection.sendall(self.hello)
                    elif verb == b"MAIL":
                        sender, recipients = _address(line), []
                        connection.sendall(b"250 2.1.0 ok\r\n")
                    elif verb == b"RCPT":
                        self._pass("rcpt")
                        connection.sendall(self._recipient(_address(line), recipients))
                    elif verb == b"DATA":
                        self._pass("data")
                        if not recipients:
                            connection.sendall(b"554 5.5.1 no valid recipients\r\n")
                            continue
                        connection.sendall(b"354 go on\r\n")
                        self._pass("body")
                        wire = _read_data(reader)
                        if wire is None:
                            return
                        data = b"".join(line.removeprefix(b".") for line in wire)
                        message = Received(sender, recipients, data, b"".join(wire), peer=peer)
                        self.complete.append(message)
                        self._pass("dot")
                        connection.sendall(b"250 2.0.0 taken\r\n")
                        with self._arrived:
                            self.taken.append(message)
                            self._arrived.notify_all()
                    elif verb == b"QUIT":
                        connection.sendall(b"221 2.0.0 bye\r\n")
                        return
                    else:
                        connection.sendall(b"250 2.0.0 ok\r\n")
        except OSError:
            pass  # the other side was killed: that is what these tests are about
        finally:
            self._open.discard(connection)

    def _pass(self, gate: str) -> None:
        if not self._gates[gate].is_set():
            self.reached[gate].set()
            self._gates[gate].wait(60)

    def _recipient(self, address: str, recipients: list[str]) -> bytes:
        refusal = self._refuse.get(address.partition("@")[0])
        if refusal is not None:
            return refusal.encode() + b"\r\n"
        recipients.append(address)
        return b"250 2.1.5 ok\r\n"


def _address(line: bytes) -> str:
    found = _ADDRESS.search(line)
    assert found is not None, line
    return found[1].decode()


def _read_data(reader: BinaryIO) -> list[bytes] | None:
    lines: list[bytes] = []
    while line := reader.readline():
        if line == b".\r\n":
            return lines
        lines.append(line)
    return None
