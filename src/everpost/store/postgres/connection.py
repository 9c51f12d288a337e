"""Connections without any state of their own, so that a pool in transaction mode may stand between;
and what PostgreSQL's errors mean to the store's callers."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import psycopg
from psycopg import pq, waiting
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict

from everpost import telemetry
from everpost.store.interface import StoreCorrupt, StoreError, StoreUnavailable
from everpost.store.postgres.arrays import register
from everpost.store.queries import load

__all__ = [
    "LIFETIME_S",
    "SQL",
    "Address",
    "Db",
    "StoreInDoubt",
    "as_store_error",
    "is_gone",
    "is_passing",
    "is_storage_fault",
]

SQL: Mapping[str, bytes] = {
    name: query.encode() for name, query in load(Path(__file__).parent / "sql").items()
}
"""The engine's named queries, as psycopg wants them."""

LIFETIME_S: Final = 20.0
"""Below the shortest time in which a failover makes another primary (Patroni's least `ttl`): a
session with the one that was left does not outlast it (RELIABILITY finding 6)."""

_CONNECT_S: Final = 3
_KEEPALIVES: Final[Mapping[str, Any]] = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}

_PASSING = ("40001", "40P01", "57014", "55P03")
"""Serialization failure, deadlock, cancelled by somebody, a lock not had: the same again may do."""

_STORAGE = ("08", "25", "53", "57", "58")
"""SQLSTATE classes (PostgreSQL's appendix A) that are nobody's fault in particular: connection,
read-only transaction, resources, shutdown, the system around it."""

_DAMAGE = "XX"


class StoreInDoubt(StoreUnavailable):
    """Whether it was written is not known: the answer to COMMIT did not come, or came with a
    warning. The same call again with the same ids writes nothing twice."""


class Db(psycopg.Connection[tuple[Any, ...]]):
    """One connection. It never asks the server to cancel anything: a cancelled COMMIT would answer
    as if a standby had it. A statement without an answer for `deadline_s` costs the connection.

    `warnings` gathers what the server warned of; `rows` is a cursor whose answers come in binary.
    After `until` (monotonic seconds) it is old: its server may be one that others have left.
    """

    deadline_s: float
    until: float
    warnings: list[str]
    rows: "psycopg.Cursor[tuple[Any, ...]]"

    def prepare_for(self, deadline_s: float, *, until: float) -> Self:
        """Once, after it was opened."""
        self.deadline_s = deadline_s
        self.until = until
        self.warnings = []
        self.prepare_threshold = None
        self.add_notice_handler(self._noticed)
        register(self)  # before a cursor takes over what there is
        self.rows = self.cursor(binary=True)
        return self

    def _noticed(self, said: psycopg.errors.Diagnostic) -> None:
        if said.severity_nonlocalized not in ("NOTICE", "INFO", "LOG", "DEBUG"):
            self.warnings.append(said.message_primary or "no message")

    def wait(self, gen: PQGen[Any], interval: float = 1.0, timeout: float | None = None) -> Any:
        limit = self.deadline_s if timeout is None else timeout
        try:
            return waiting.wait(gen, self.pgconn.socket, interval=interval, timeout=limit)
        except BaseException:
            if self.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
                self.pgconn.finish()
            raise

    @property
    def lost(self) -> bool:
        """Nothing can be asked of it any more."""
        return self.pgconn.status != pq.ConnStatus.OK

    @property
    def old(self) -> bool:
        return time.monotonic() > self.until


class Address:
    """Where the primary is, and how to get in. `url` is libpq's, several hosts allowed. A
    connection is kept for `lifetime_s`."""

    __slots__ = ("_deadline_s", "_lifetime_s", "_parameters", "_password_file")

    def __init__(
        self,
        url: str,
        *,
        password_file: Path | None = None,
        deadline_s: float,
        lifetime_s: float = LIFETIME_S,
    ) -> None:
        """Raises StoreError for text that is no address."""
        try:
            given = conninfo_to_dict(url)
        except psycopg.Error:  # its words may repeat the address, password and all
            raise StoreError(
                "postgres.url cannot be read: it is neither postgresql://… nor key=value text that"
                " libpq understands"
            ) from None
        defaults = {
            "connect_timeout": max(1, min(_CONNECT_S, int(deadline_s))),
            "tcp_user_timeout": int(deadline_s * 1000),
            "application_name": "everpost",
            **_KEEPALIVES,
        }
        several = "," in str(given.get("host") or "") + str(given.get("hostaddr") or "")
        if several:  # one host is asked what it is by us, in every transaction
            defaults["target_session_attrs"] = "read-write"
        self._parameters: dict[str, Any] = {**defaults, **given}
        self._password_file = password_file
        self._deadline_s = deadline_s
        self._lifetime_s = lifetime_s

    def __str__(self) -> str:
        """For people: without what is secret."""
        shown = {name: self._parameters.get(name) for name in ("host", "port", "dbname", "user")}
        return " ".join(f"{name}={value}" for name, value in shown.items() if value)

    def connect(self) -> Db:
        """Raises StoreError when the password's file cannot be read, psycopg.Error."""
        parameters = self._parameters
        if self._password_file is not None:
            try:
                text = self._password_file.read_text(encoding="utf-8")
            except OSError as error:
                raise StoreUnavailable(f"postgres.password_file: {error}") from error
            parameters = {**parameters, "password": text.partition("\n")[0].strip()}
        db = Db.connect("", autocommit=True, **parameters)
        return db.prepare_for(self._deadline_s, until=time.monotonic() + self._lifetime_s)


def is_gone(error: BaseException, db: Db | None) -> bool:
    """Whether the connection went with this error."""
    return db is None or db.lost or isinstance(error, psycopg.InterfaceError)


def is_passing(error: BaseException) -> bool:
    """Whether the same transaction may well succeed when it is run again at once."""
    return isinstance(error, psycopg.Error) and error.sqlstate in _PASSING


def is_storage_fault(error: BaseException) -> bool:
    """Faults of the store as a whole: no operation of a batch is to blame."""
    if not isinstance(error, psycopg.Error):
        return isinstance(error, StoreInDoubt)
    if error.sqlstate is None:  # libpq's own: no connection, or none any more
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate[:2] in _STORAGE or error.sqlstate in _PASSING


def as_store_error(error: BaseException) -> BaseException:
    """What a caller is told: PostgreSQL's errors as the store's, everything else as it is."""
    if not isinstance(error, psycopg.Error):
        return error
    said = str(error).strip() or "no message"
    words = f"{type(error).__name__}: {said.splitlines()[0]}"
    if is_storage_fault(error):
        told: StoreError = StoreUnavailable(words)
    elif (error.sqlstate or "").startswith(_DAMAGE):
        telemetry.alarm("store_corrupt").raise_(error=said)
        told = StoreCorrupt(
            f"the database is damaged ({words}): stop the service, keep all files of the "
            "database, and fail over to a standby or restore a backup"
        )
    else:
        told = StoreError(words)
    told.__cause__ = error
    return told
