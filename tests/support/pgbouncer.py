"""PgBouncer in transaction mode before a test's PostgreSQL: each transaction may get another of the
server's sessions, so whatever is left in one (SET, prepared statements, advisory locks) is lost or
meets somebody else."""

import shutil
import subprocess

import psycopg

from tests.support.mail_hosts import free_port
from tests.support.postgres import USER, Postgres, as_postgres
from tests.support.waiting import wait_until

__all__ = ["PgBouncer"]

_CONFIG = """
[databases]
* = host={folder} port={server}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users.txt
pool_mode = transaction
max_client_conn = 400
default_pool_size = {sessions}
min_pool_size = 0
server_round_robin = 1
server_idle_timeout = 5
ignore_startup_parameters = extra_float_digits
log_connections = 0
log_disconnections = 0
logfile = {folder}/pgbouncer.log
"""


class PgBouncer:
    """`with PgBouncer(server) as pool: … pool.url(database)`. `sessions`: of the server, for each
    database; clients take turns with them."""

    def __init__(self, server: Postgres, *, sessions: int = 4) -> None:
        self._server = server
        self._sessions = sessions
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    def url(self, database: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def __enter__(self) -> "PgBouncer":
        folder = self._server.folder
        config = folder / f"pgbouncer-{self.port}.ini"
        config.write_text(
            _CONFIG.format(
                folder=folder, server=self._server.port, port=self.port, sessions=self._sessions
            )
        )
        (folder / "users.txt").write_text(f'"{USER}" ""\n')
        program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin")
        assert program, "pgbouncer is missing: apt-get install pgbouncer"
        self._process = subprocess.Popen(
            as_postgres(program, "-q", str(config)), stdin=subprocess.DEVNULL, cwd="/"
        )
        wait_until(self._answers, seconds=20, what="PgBouncer to answer")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()  # at once, whoever is connected
        self._process.wait()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "PgBouncer ended"
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True
