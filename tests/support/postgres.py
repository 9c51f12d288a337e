"""A real PostgreSQL of the tests' own: made in a moment, stopped, killed, paused and started again.

Debian's programs, run as user `postgres` where the tests are root (PostgreSQL refuses root). It
listens on a Unix socket and on 127.0.0.1, trusts everybody there, and ends with the process that
started it.
"""

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg
from psycopg import sql

from tests.support.mail_hosts import free_port
from tests.support.waiting import wait_until

__all__ = ["USER", "Postgres", "as_postgres", "serving_postgres"]

USER = "everpost"
_PATIENCE_S = 30.0
_SEGMENT = 6
"""The line of postmaster.pid that has the key and the id of its System V segment."""
_NAMED = re.compile(r"(?<!:):([a-z_]+)\b")

_OURS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_permissions": "0777",
    "shared_buffers": "64MB",
    "dynamic_shared_memory_type": "mmap",  # in its own folder, so that nothing is left of it
    "max_connections": "100",
    "max_wal_size": "256MB",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] %d ",
    "timezone": "UTC",
    "autovacuum": "off",  # it would hold up the outbox for moments, in databases of other tests
}


def as_postgres(*command: str) -> list[str]:
    """The command, run as user `postgres` where we are root; it ends when our process does."""
    change = ["--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []
    return ["setpriv", *change, "--pdeathsig", "QUIT", "--", *command]


def _program(name: str) -> str:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    assert found, f"{name} is missing: apt-get install postgresql-15"
    return str(found[-1])


class Postgres:
    """One server, with PostgreSQL's own settings for all that durability needs. `quick`: its files
    are in memory, where there is such a folder, and a flush costs nothing. `settings` come on top
    of everything."""

    def __init__(self, *, quick: bool = True, settings: Mapping[str, str] | None = None) -> None:
        memory = Path("/dev/shm")
        usable = quick and memory.is_dir() and os.access(memory, os.W_OK)
        self.folder = Path(tempfile.mkdtemp(prefix="everpost-pg-", dir=memory if usable else None))
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        self.folder.chmod(0o755)
        self.data = self.folder / "data"
        self.log = self.folder / "postgres.log"
        self.port = free_port()
        self.settings = {**_OURS, **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None

    # -- its life ----------------------------------------------------------------------------------

    def make(self) -> None:
        """A new, empty cluster of databases."""
        command = as_postgres(
            _program("initdb"), "--pgdata", str(self.data), "--username", USER, "--auth", "trust",
            "--encoding", "UTF8", "--locale", "C.UTF-8", "--data-checksums", "--no-sync",
            "--no-instructions",
        )  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Returns when it answers."""
        settings = {
            **self.settings, "port": str(self.port), "unix_socket_directories": str(self.folder),
        }  # fmt: skip
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                as_postgres(_program("postgres"), "-D", str(self.data), *options),
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/",
            )  # fmt: skip
        wait_until(
            self._answers, seconds=_PATIENCE_S, what=lambda: f"PostgreSQL: {self.log.read_text()}"
        )

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """As an operator does: sessions are ended, everything is written (fast shutdown)."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL, to all of its processes."""
        assert self._process is not None
        children = self.children()
        self._process.kill()
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        wait_until(
            lambda: not any(Path(f"/proc/{pid}/cwd").exists() for pid in children),
            seconds=_PATIENCE_S,
            what="PostgreSQL's processes to end",
        )

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """Nothing of it runs: whoever asks gets no answer."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        for pid in (self._process.pid, *self.children()):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(_PATIENCE_S)

    def children(self) -> Sequence[int]:
        """Its background processes and its sessions, by process id."""
        assert self._process is not None
        task = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(pid) for pid in task.read_text().split()]

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def remove(self) -> None:
        """End it, whatever it is doing, and all that it wrote."""
        if self.running:
            self.resume()
            self._end(signal.SIGQUIT)
        self._free_shared_memory()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _free_shared_memory(self) -> None:
        """What a server that was killed has left: the segment by which it is told from another."""
        left = self.data / "postmaster.pid"
        lines = left.read_text().splitlines() if left.exists() else []
        if len(lines) > _SEGMENT and lines[_SEGMENT].split():
            segment = lines[_SEGMENT].split()[-1]
            subprocess.run(["ipcrm", "--shmem-id", segment], capture_output=True, check=False)

    # -- its databases -----------------------------------------------------------------------------

    def url(self, database: str, *, tcp: bool = False) -> str:
        """As libpq takes it: by the Unix socket, or over TCP."""
        host = "127.0.0.1" if tcp else str(self.folder).replace("/", "%2F")
        return f"postgresql://{USER}@{host}:{self.port}/{database}"

    def create(self, database: str, *, template: str = "template0") -> None:
        """A copy of another database that nobody is connected to: some hundredths of a second."""
        self._admin("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy", database, template)

    def drop(self, database: str) -> None:
        """Whoever is connected is thrown out."""
        self._admin("DROP DATABASE IF EXISTS {} WITH (FORCE)", database)

    def _admin(self, statement: LiteralString, *names: str) -> None:
        self._run("postgres", sql.SQL(statement).format(*map(sql.Identifier, names)))

    def execute(
        self, database: str, statement: str, values: Mapping[str, Any] | None = None
    ) -> list[tuple[Any, ...]]:
        """Run SQL behind everybody's back, committed when it returns; its rows, if it has any."""
        return self._run(database, sql.SQL(statement), values)

    def change(self, database: str, statement: str, values: Mapping[str, Any] | None = None) -> int:
        """As `execute`, where `:name` are values; how many rows it changed."""
        asked = _NAMED.sub(r"%(\1)s", statement.replace("%", "%%"))
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            return connection.execute(sql.SQL(asked), dict(values or {})).rowcount

    def _run(
        self, database: str, statement: sql.Composable, values: Mapping[str, Any] | None = None
    ) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            found = connection.execute(cast(sql.Composed, statement), values)
            return [] if found.description is None else found.fetchall()


@contextmanager
def serving_postgres(
    *, quick: bool = True, settings: Mapping[str, str] | None = None
) -> Iterator[Postgres]:
    """A server that runs, and is gone afterwards."""
    server = Postgres(quick=quick, settings=settings)
    try:
        server.make()
        server.start()
        yield server
    finally:
        server.remove()
