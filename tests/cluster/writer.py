"""The database alone, without Everpost: idempotent writers, one row a transaction.

What the cluster itself loses, and how long it accepts nothing, is measured by the same history,
gaps and schedule as Everpost is.
"""

import os
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress

import psycopg

from tests.chaos.checker import Verdict
from tests.chaos.history import History
from tests.cluster import configuration
from tests.cluster.cluster import Cluster
from tests.cluster.configuration import DATABASE

__all__ = ["TABLE", "Writer", "judge", "lay_out"]

TABLE = "written"
_TRIES = 2
_NOT_REPLICATED = "synchronous replication"
_DEADLINE_MS = 4000


def lay_out(cluster: Cluster) -> None:
    cluster.sql(
        f"CREATE TABLE {TABLE} (name text PRIMARY KEY, n int NOT NULL DEFAULT 1);"
        f"ALTER TABLE {TABLE} OWNER TO {DATABASE}",
        database=DATABASE,
    )


class Writer(threading.Thread):
    """Goes on until `ended`, `rate` rows a second at most."""

    def __init__(self, cluster: Cluster, history: History, *, number: int, rate: float) -> None:
        super().__init__(daemon=True)
        self._cluster = cluster
        self._history = history
        self._number = number
        self._rate = rate
        self._connection: psycopg.Connection[tuple[object, ...]] | None = None
        self._notices: list[str] = []
        self.ended = threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            with self._cluster.clients.inside():
                self._go_on()
        except Exception as error:  # the run fails of it
            self.error = error
        finally:
            self._let_go()

    def _go_on(self) -> None:
        n = 0
        while not self.ended.wait(1 / self._rate):
            name = f"c{self._number}-{n}.0.0"
            n += 1
            self._history.write("invoke", op="send", key=name, messages=[[name]])
            for again in range(_TRIES):
                if again:
                    self._history.write("invoke", op="send", key=name)
                why = self._write(name)
                if not why:
                    self._history.write("ok", op="send", key=name, ids=[name])
                    break
                self._let_go()
                self._history.write("info", op="send", key=name, why=why)

    def _write(self, name: str) -> str:
        """Empty, or why it is not known to be there and replicated. A commit is never cancelled: at
        the deadline its connection is shut."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._notices.clear()
            deadline = threading.Timer(_DEADLINE_MS / 1000, _shut, (self._connection.fileno(),))
            deadline.daemon = True
            deadline.start()
            try:
                self._connection.execute(
                    f"INSERT INTO {TABLE} AS w (name) VALUES (%s)"
                    " ON CONFLICT (name) DO UPDATE SET n = w.n + 1".encode(),
                    (name,),
                )
                self._connection.commit()
            finally:
                deadline.cancel()
        except psycopg.Error as error:
            return str(error).partition("\n")[0][:120]
        return next((each for each in self._notices if _NOT_REPLICATED in each), "")

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        connection = psycopg.connect(
            configuration.primary_url(self._cluster.layout), connect_timeout=2,
            tcp_user_timeout=_DEADLINE_MS, keepalives_idle=1, keepalives_interval=1,
        )  # fmt: skip
        connection.add_notice_handler(
            lambda given: self._notices.append(given.message_primary or "")
        )
        return connection

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _shut(number: int) -> None:
    """The socket; its number stays taken until its owner closes it."""
    with suppress(OSError), socket.socket(fileno=os.dup(number)) as same:
        same.shutdown(socket.SHUT_RDWR)


def judge(cluster: Cluster, history: History) -> Verdict:
    """Lost and unexpected rows."""
    there = {name for (name,) in cluster.sql(f"SELECT name FROM {TABLE}", database=DATABASE)}
    attempted = {e["key"] for e in history.events if e.get("op") == "send"}
    acknowledged = {e["key"] for e in history.events if e["kind"] == "ok"}
    broken: dict[str, Sequence[str]] = {
        "lost": sorted(acknowledged - there),
        "unexpected": sorted(there - attempted),
    }
    return Verdict(
        broken={k: list(v) for k, v in broken.items() if v},
        operations=len(attempted),
        messages=len(attempted),
        attempted=len(attempted),
        acknowledged=len(acknowledged),
        answered=len(acknowledged),
        delivered=len(there),
        copies=len(there),
        recovered=len((there & attempted) - acknowledged),
    )
