"""Wake-ups between hosts: NOTIFY and LISTEN, on one direct connection of a process.

A notice says only "look now". It may be lost, doubled or late, and none of them is sent within a
transaction that writes mail, since that would serialise the commits; whoever waits also polls.
"""

import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg

from everpost import telemetry
from everpost.store.interface import StoreError
from everpost.store.postgres.connection import LIFETIME_S

__all__ = ["Notices"]

_CHANNEL = "everpost_dispatch"
_LISTEN = f"LISTEN {_CHANNEL}"
_NOTIFY = "SELECT pg_notify(%s, %s)"
_ALIVE = "SELECT 1"
_DEBOUNCE_S = 0.05
_PING_S = 10.0
_RETRY_S = (0.5, 5.0)
_FAREWELL_S = 2.0

Connect = Callable[[], "psycopg.Connection[Any]"]


class Notices:
    """A thread with a connection that it makes again whenever it breaks, and after `LIFETIME_S`: a
    server that others have left answers, but nobody is heard there.

    `connect` makes one with autocommit, not through a pool of transactions. `origin` is this
    process's name: its own notices are not told to it. `heard` is called in the thread; None: it
    does not listen. It is called after each connect, too, for what was said meanwhile.
    """

    def __init__(
        self, connect: Connect, *, origin: str, heard: Callable[[], None] | None = None
    ) -> None:
        self._connect = connect
        self._origin = origin
        self._heard = heard
        self._wanted = threading.Event()
        self._closed = False
        self._broken = False
        self._sent_at = float("-inf")
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def tell(self) -> None:
        """Notify the others, soon: what is told at about the same time is told once. Never blocks,
        from whichever thread."""
        if not self._wanted.is_set():
            self._wanted.set()
            self._poke()

    def close(self) -> None:
        """A thread that a dead server holds up ends with the process."""
        self._closed = True
        self._poke()
        self._thread.join(_FAREWELL_S)
        if not self._thread.is_alive():
            os.close(self._read)
            os.close(self._write)

    def _poke(self) -> None:
        with suppress(BlockingIOError):
            os.write(self._write, b"!")

    # --- in the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        pause = _RETRY_S[0]
        while not self._closed:
            try:
                with self._connect() as db:
                    self._begin(db)
                    pause = _RETRY_S[0]
                    self._serve(db)
            except (psycopg.Error, StoreError, OSError) as error:
                if not self._broken:
                    telemetry.event("notices.broken", error=str(error).strip())
                self._broken = True
                self._pass(pause)
                pause = min(pause * 2, _RETRY_S[1])

    def _begin(self, db: "psycopg.Connection[Any]") -> None:
        if self._heard is not None:
            db.add_notify_handler(lambda notice: self._take(notice.payload))
            db.execute(_LISTEN)
            self._heard()
        if self._broken:
            self._broken = False
            telemetry.event("notices.whole")

    def _serve(self, db: "psycopg.Connection[Any]") -> None:
        asked_at = time.monotonic()
        until = asked_at + LIFETIME_S
        while not self._closed and asked_at < until:
            now = time.monotonic()
            due = asked_at + _PING_S
            if self._wanted.is_set():
                due = min(due, self._sent_at + _DEBOUNCE_S)
            server = db.pgconn.socket
            ready, _, _ = select.select([server, self._read], [], [], max(due - now, 0.0))
            if self._read in ready:
                self._drain()
            if server in ready:
                self._receive(db)
            now = time.monotonic()
            if self._wanted.is_set() and now >= self._sent_at + _DEBOUNCE_S:
                asked_at = now
                self._notify(db)
            elif now >= asked_at + _PING_S:
                asked_at = now
                db.execute(_ALIVE)

        if self._wanted.is_set():  # what this process hands back at its end, too
            self._notify(db)

    def _notify(self, db: "psycopg.Connection[Any]") -> None:
        # Cleared before it is sent: what comes meanwhile is told again.
        self._wanted.clear()
        self._sent_at = time.monotonic()
        db.execute(_NOTIFY, (_CHANNEL, self._origin))

    def _receive(self, db: "psycopg.Connection[Any]") -> None:
        db.pgconn.consume_input()  # raises where the server has ended it
        while (notice := db.pgconn.notifies()) is not None:
            self._take(notice.extra.decode("utf-8", "replace"))

    def _take(self, origin: str) -> None:
        if self._heard is not None and origin != self._origin:
            self._heard()

    def _pass(self, seconds: float) -> None:
        """Wait, unless it is time to end."""
        until = time.monotonic() + seconds
        while not self._closed and (left := until - time.monotonic()) > 0:
            select.select([self._read], [], [], left)
            self._drain()

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._read, 64):
                pass
