"""Somebody else's statements in the database: they cancel, lock and take all connections."""

import threading
import time
from contextlib import ExitStack, suppress
from typing import Any

import psycopg

from tests.chaos.playing import rest
from tests.cluster.cluster import Cluster
from tests.cluster.configuration import DATABASE

__all__ = ["cancel", "deadlock", "exhaust"]

_CANCEL = """
SELECT pg_cancel_backend(pid) FROM pg_stat_activity
WHERE usename = %s AND state = 'active' AND pid <> pg_backend_pid()
"""
_TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE usename = %s AND application_name <> 'testbed'
"""
_ROWS = 8
_MOST = 300
_LOOKS_S = 0.01


def cancel(cluster: Cluster, seconds: float) -> int:
    """Each statement of the subject's that is running, again and again; how many there were."""
    until = time.monotonic() + seconds
    count = 0
    while time.monotonic() < until:
        with suppress(psycopg.Error), cluster.connected() as connection:
            while time.monotonic() < until:
                count += len(connection.execute(_CANCEL, (DATABASE,)).fetchall())
                rest(_LOOKS_S)
        rest(_LOOKS_S)
    return count


def deadlock(cluster: Cluster, table: str, seconds: float) -> int:
    """Two that lock rows of the subject's, one at a time, each in an order of its own; how many
    deadlocks they met."""
    until = time.monotonic() + seconds
    met = [0, 0]

    def lock(number: int) -> None:
        while time.monotonic() < until:
            with suppress(psycopg.Error):
                met[number] += _lock_some(cluster, table, until, up=number == 0)
            rest(_LOOKS_S)

    threads = [threading.Thread(target=lock, args=(n,), daemon=True) for n in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 30)
    return sum(met)


def _lock_some(cluster: Cluster, table: str, until: float, *, up: bool) -> int:
    """On one connection, for as long as it lives; deadlocks that were seen."""
    newest = f"SELECT ctid FROM {table} ORDER BY ctid DESC LIMIT {_ROWS}"
    chosen = f"SELECT ctid FROM ({newest}) AS c ORDER BY ctid {'ASC' if up else 'DESC'}"
    met = 0
    with cluster.connected(database=DATABASE) as connection:
        while time.monotonic() < until:
            try:
                with connection.transaction(force_rollback=True):
                    for (place,) in connection.execute(chosen.encode()).fetchall():
                        locked = f"SELECT 1 FROM {table} WHERE ctid = %s FOR UPDATE"
                        connection.execute(locked.encode(), (place,))
                        rest(_LOOKS_S)
            except psycopg.errors.DeadlockDetected:
                met += 1
    return met


def exhaust(cluster: Cluster, seconds: float) -> int:
    """The subject's connections are ended, and all that the server has for anybody are taken; how
    many."""
    until = time.monotonic() + seconds
    held: list[Any] = []
    with ExitStack() as stack:
        while time.monotonic() < until:
            with suppress(psycopg.Error):
                while len(held) < _MOST:
                    held.append(stack.enter_context(cluster.connected(user=DATABASE)))
            rest(0.1)
            with suppress(psycopg.Error):
                cluster.sql(_TERMINATE, (DATABASE,))
    return len(held)
