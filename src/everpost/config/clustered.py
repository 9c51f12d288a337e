"""Sections for many nodes: the database they share, and how they find one another."""

from dataclasses import dataclass

from everpost.config.forms import is_listen_or_off, is_name_or_empty, is_url_or_empty
from everpost.config.setting import setting

__all__ = ["ClusterSettings", "PostgresSettings"]


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """The store of many nodes."""

    url: str = setting(
        "",
        "Where the PostgreSQL primary is reached: a libpq URL or key=value text, several hosts "
        "allowed; through HAProxy or PgBouncer as you like. Empty: the embedded store.",
        form="postgresql://…, key=value text, or empty",
    )
    listen_url: str = setting(
        "",
        "The same without a pool between, for LISTEN. Empty: `postgres.url`.",
        form="postgresql://…, key=value text, or empty",
    )
    password_file: str = setting(
        "",
        "File whose first line is the password, read at each connect. Empty: the one in the "
        "address, or libpq's own ways.",
        form="a path, or empty",
    )
    standbys: int = setting(
        1,
        "Synchronous standbys without which nothing is accepted as `replicated`. 0: a single "
        "server, whose answers say `committed`.",
        low=0,
        high=16,
    )
    readers: int = setting(2, "Connections of a process for reading.", low=1, high=64)
    deadline_s: float = setting(
        10.0,
        "A statement that has had no answer for so long is given up: its connection is shut, "
        "and what was being written is looked for and written again.",
        unit="seconds",
        low=1,
        high=300,
    )
    keep_days: int = setting(
        0,
        "Messages older than this are dropped with all that belongs to them, a day at a time, once "
        "nothing of that day is on its way and its events are published. 0: kept for ever.",
        unit="days",
        low=0,
        high=36_500,
    )


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """Nodes that share a PostgreSQL store."""

    name: str = setting(
        "",
        "What this node is called among the others; no two may share a name. Empty: the "
        "machine's host name.",
        form="letters, digits, dots, hyphens, at most 64, or empty",
        check=is_name_or_empty,
    )
    listen: str = setting(
        "",
        "Where peers reach this node, to leave copies of what they accept while no database "
        "answers. Empty: nowhere, and it leaves no copies either.",
        form="HOST:PORT, or empty",
        check=is_listen_or_off,
    )
    address: str = setting(
        "",
        "The URL under which the others reach `cluster.listen`. Empty: made from it.",
        form="http://… or https://…, or empty",
        check=is_url_or_empty,
    )
    secret_file: str = setting(
        "",
        "File with the secret that all nodes share (32 characters or more, mode 0600). Without "
        "one, peers are neither asked nor answered.",
        form="a path, or empty",
    )
    heartbeat_s: float = setting(
        2.0,
        "How often a node writes that it lives; at least three times in `cluster.gone_s`.",
        unit="seconds",
        low=0.1,
        high=60,
    )
    gone_s: float = setting(
        10.0,
        "A node that has not written it for so long counts as gone: others take over its claims, "
        "when their term has ended.",
        unit="seconds",
        low=1,
        high=3600,
    )
    lease_s: float = setting(
        60.0,
        "How long a claim of a node holds without being renewed, in the place of "
        "`dispatch.lease_s`, which is for one machine: so long mail that a dead node had in hand "
        "waits. Longer than the database may take to fail over, since claims cannot be renewed "
        "meanwhile.",
        unit="seconds",
        low=10,
        high=3600,
    )
    patience_s: float = setting(
        0.75,
        "How long an accept waits for the database before the message goes into this node's "
        "journal.",
        unit="seconds",
        low=0.05,
        high=30,
    )
    peer_s: float = setting(
        0.15,
        "How long an answer then waits for a peer to have a copy.",
        unit="seconds",
        low=0,
        high=10,
    )
    journal_bytes: int = setting(
        1024 * 1024 * 1024,
        "What the journal may hold, copies of peers' entries included; beyond it, mail is refused "
        "while no database answers. `limits.free_bytes` holds for it, too.",
        unit="bytes",
        low=1024 * 1024,
        high=1 << 50,
    )
