"""A mail server that counts: connections open at once, and when each message came."""

import heapq
import re
import selectors
import socket
import threading
import time
from itertools import count

__all__ = ["CountingSink"]

_MESSAGE_ID = re.compile(rb"(?im)^message-id:\s*<([^>]+)>")


class _Session:
    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.unread = b""
        self.in_data = False
        self.messages = 0


class CountingSink:
    """Takes everything; answers a message `pause_s` after its final dot, so that sessions overlap.

    One thread reads all sockets, and looks for ended connections before it counts a new one: a
    connection that was closed before another was opened never counts beside it.

    `most_open`: connections at once; `arrived`: (monotonic second, Message-ID) of each message;
    `most_messages`: of one connection; `opened`: connections in all; `grew`: how many were open,
    and how many messages had come before, each time that there were more than ever.
    """

    def __init__(self, *, pause_s: float = 0.0, port: int = 0) -> None:
        self.most_open = 0
        self.grew: list[tuple[int, int]] = []
        self.opened = 0
        self.most_messages = 0
        self.arrived: list[tuple[float, str]] = []
        self._pause_s = pause_s
        self._listener = socket.create_server(("127.0.0.1", port), backlog=256)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._ended, self._end = socket.socketpair()
        self._sessions: dict[socket.socket, _Session] = {}
        self._later: list[tuple[float, int, _Session]] = []
        self._number = count()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._ended, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    def __enter__(self) -> "CountingSink":
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()
        self._thread.join(timeout=10)
        for connection in (*self._sessions, self._listener, self._ended):
            connection.close()
        self._selector.close()

    def message_ids(self) -> list[str]:
        return [message_id for _, message_id in tuple(self.arrived)]

    def most_within(self, seconds: float) -> int:
        """Most messages that came in any so many seconds."""
        times = [at for at, _ in self.arrived]
        return max((sum(at <= t < at + seconds for t in times) for at in times), default=0)

    # -- its thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            timeout = max(self._later[0][0] - time.monotonic(), 0) if self._later else None
            ready = {key.fileobj for key, _ in self._selector.select(timeout)}
            if self._ended in ready:
                return
            for connection in [c for c in self._sessions if c in ready]:
                self._read(self._sessions[connection])
            if self._listener in ready:
                self._accept()
            while self._later and self._later[0][0] <= time.monotonic():
                self._say(heapq.heappop(self._later)[2], b"250 2.0.0 taken")

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        for session in tuple(self._sessions.values()):
            self._read(session)  # its end may have come since
        session = _Session(connection)
        self._sessions[connection] = session
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ)
        self.opened += 1
        if len(self._sessions) > self.most_open:
            self.most_open = len(self._sessions)
            self.grew.append((self.most_open, len(self.arrived)))
        self._say(session, b"220 counting.test ESMTP")

    def _read(self, session: _Session) -> None:
        try:
            chunk = session.connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._close(session)
            return
        session.unread += chunk
        while session.connection in self._sessions and self._step(session):
            pass

    def _step(self, session: _Session) -> bool:
        """One command, or one message's data; whether there was a whole one."""
        end = b"\r\n.\r\n" if session.in_data else b"\r\n"
        found, mark, rest = session.unread.partition(end)
        if not mark:
            return False
        session.unread = rest
        if session.in_data:
            session.in_data = False
            session.messages += 1
            self.most_messages = max(self.most_messages, session.messages)
            message_id = _MESSAGE_ID.search(found)
            self.arrived.append((time.monotonic(), message_id[1].decode() if message_id else ""))
            due = time.monotonic() + self._pause_s
            heapq.heappush(self._later, (due, next(self._number), session))
            return True
        verb = found[:4].upper()
        if verb == b"QUIT":
            self._say(session, b"221 2.0.0 bye")
            self._close(session)
        elif verb == b"DATA":
            session.in_data = True
            self._say(session, b"354 go on")
        elif verb == b"EHLO":
            self._say(session, b"250-counting.test\r\n250 PIPELINING")
        else:
            self._say(session, b"250 2.0.0 ok")
        return True

    def _say(self, session: _Session, line: bytes) -> None:
        try:
            session.connection.sendall(line + b"\r\n")
        except OSError:
            self._close(session)

    def _close(self, session: _Session) -> None:
        if self._sessions.pop(session.connection, None) is not None:
            self._selector.unregister(session.connection)
            session.connection.close()
