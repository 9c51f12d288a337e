"""Wake-ups between hosts, on a real PostgreSQL."""

import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from everpost.store.postgres.connection import Address, Db
from everpost.store.postgres.notices import Notices
from tests.support.postgres import Postgres, serving_postgres
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with serving_postgres() as running:
        yield running


class Node:
    """One process: what it heard is counted."""

    def __init__(self, server: Postgres, name: str) -> None:
        self.heard = threading.Semaphore(0)
        self.notices = Notices(
            Address(server.url("postgres"), deadline_s=5.0).connect,
            origin=name,
            heard=self.heard.release,
        )

    def __enter__(self) -> "Node":
        self.notices.start()
        self.hears()  # it listens now
        return self

    def __exit__(self, *_: object) -> None:
        self.notices.close()

    def hears(self, *, within: float = 20.0) -> None:
        assert self.heard.acquire(timeout=within)

    def heard_nothing(self) -> bool:
        return not self.heard.acquire(blocking=False)


def _sessions(server: Postgres) -> list[int]:
    rows = server.execute(
        "postgres", "SELECT pid FROM pg_stat_activity WHERE query LIKE '%everpost_dispatch%'"
        " AND pid <> pg_backend_pid()",
    )  # fmt: skip
    return [pid for (pid,) in rows]


def test_another_process_hears_and_the_one_that_told_does_not(server: Postgres) -> None:
    with (
        Node(server, "one/1") as one,
        Node(server, "two/2") as two,
        Node(server, "three/3") as three,
    ):
        one.notices.tell()
        two.hears()
        three.hears()
        two.notices.tell()
        one.hears()
        assert one.heard_nothing()
        assert two.heard_nothing()


def test_what_is_told_at_about_the_same_time_is_told_once(server: Postgres) -> None:
    with Node(server, "one/1") as one, Node(server, "two/2") as two:
        for _ in range(1_000):
            one.notices.tell()
        two.hears()
        one.notices.tell()
        two.hears()
        # At most: the first, one for those that came meanwhile, and the last.
        assert sum(two.heard.acquire(blocking=False) for _ in range(1_000)) <= 1


def test_the_connection_is_ended_by_the_server(server: Postgres) -> None:
    """A failover, a restart, an operator: it listens again, and looks for what it missed."""
    with Node(server, "one/1") as one, Node(server, "two/2") as two:
        for pid in _sessions(server):
            server.execute("postgres", "SELECT pg_terminate_backend(%(pid)s)", {"pid": pid})
        two.hears()
        one.hears()
        one.notices.tell()
        two.hears()


def test_the_server_is_down_when_something_is_told(server: Postgres) -> None:
    with Node(server, "one/1") as one, Node(server, "two/2") as two:
        server.stop()
        one.notices.tell()
        server.start()
        two.hears()
        one.hears()
        one.notices.tell()
        two.hears()


def test_a_process_that_only_tells_does_not_listen(server: Postgres) -> None:
    told = Notices(
        Address(server.url("postgres"), deadline_s=5.0).connect, origin="one/1", heard=None
    )
    told.start()
    with Node(server, "two/2") as two:
        told.tell()
        two.hears()
    told.close()
    with psycopg.connect(server.url("postgres")) as db:
        wait_until(lambda: not _sessions(server), seconds=10, what="the connections to be closed")
        assert db.execute("SELECT pg_listening_channels()").fetchall() == []


def test_a_server_that_hangs_holds_up_no_end(server: Postgres) -> None:
    """Nor does it hold up whoever tells."""
    node = Node(server, "one/1").__enter__()
    server.pause()
    try:
        node.notices.tell()
        node.notices.close()
    finally:
        server.resume()


def test_a_password_file_that_is_being_replaced_ends_no_listening(
    server: Postgres, tmp_path: Path
) -> None:
    """For a moment there is none; the thread tries again, and hears what comes then."""
    password = tmp_path / "password"
    address = Address(server.url("postgres"), deadline_s=5.0, password_file=password)
    heard, tried = threading.Semaphore(0), threading.Semaphore(0)

    def connect() -> Db:
        tried.release()
        return address.connect()

    notices = Notices(connect, origin="one/1", heard=heard.release)
    notices.start()
    try:
        assert tried.acquire(timeout=20)
        password.write_text("it trusts everybody\n")
        assert heard.acquire(timeout=20)
    finally:
        notices.close()
