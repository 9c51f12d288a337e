"""One frozen section per room. Every field says what it is, its unit and its range.

The help text, unit and range of a field are its metadata: `load` checks by it, `describe` writes
the sample file and the reference page from it. Names and defaults are what users build on: a field
is renamed or removed only with a release note.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from everpost.config.clustered import ClusterSettings, PostgresSettings
from everpost.config.forms import (
    is_host_or_empty,
    is_listen,
    is_listen_or_off,
    is_site,
    is_url_or_empty,
)
from everpost.config.outward import (
    CanarySettings,
    DeliverySettings,
    DispatchSettings,
    DnsSettings,
)
from everpost.config.setting import KIB, MIB, setting
from everpost.model.message import Durability

__all__ = [
    "CanarySettings",
    "ClusterSettings",
    "DeliverySettings",
    "DispatchSettings",
    "DnsSettings",
    "Http",
    "IntakeSettings",
    "Limits",
    "LogSettings",
    "Node",
    "PostgresSettings",
    "Settings",
    "StoreSettings",
    "VerifySettings",
]


@dataclass(frozen=True, slots=True)
class Node:
    """This machine: where its data lies, what it calls itself, how many processes it runs."""

    data: Path = setting(  # noqa: RUF009  makes a field
        Path("./data"),
        "Directory of everything this node keeps: store, keys, sockets, dot logs. "
        "A relative path counts from the working directory.",
        form="a directory",
    )
    site: str = setting(
        "default",
        "Name of the site (data centre, zone) this node stands in. Of no effect on one machine.",
        form="lower-case letters, digits and hyphens, at most 32",
        check=is_site,
    )
    hostname: str = setting(
        "",
        "Name given to other mail servers in EHLO. Empty: the machine's own full name. "
        "It should resolve to the sending address, and that address back to it.",
        form="a host name, or empty",
        check=is_host_or_empty,
    )
    processes: int = setting(0, "Dispatch processes. 0: one a processor core.", low=0, high=256)
    drain_s: float = setting(
        30.0,
        "After SIGTERM, how long work in hand may take to finish before it is handed back.",
        unit="seconds",
        low=0,
        high=3600,
    )
    hung_s: float = setting(
        15.0,
        "A process that gives no sign of life for so long is killed and replaced; what it had in "
        "hand is taken over. 0: never (to look at one with a debugger).",
        unit="seconds",
        low=0,
        high=3600,
    )
    start_s: float = setting(
        120.0,
        "A process that is not ready so long after its start is killed and started again.",
        unit="seconds",
        low=1,
        high=3600,
    )
    clock_settle_s: float = setting(
        600.0,
        "How long the wall clock must stand where a step of more than 1.5 seconds has put it, "
        "before schedules, lifetimes and records follow. 0: they follow at once.",
        unit="seconds",
        low=0,
        high=86_400,
    )
    public_url: str = setting(
        "",
        "Address under which users reach the API, for links in answers and mail. "
        "Empty: derived from `http.listen`.",
        form="http://… or https://… without query, or empty",
        check=is_url_or_empty,
    )

    @property
    def dispatchers(self) -> int:
        """Dispatch processes, when all have started."""
        return self.processes or os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Http:
    """The HTTP listeners."""

    listen: str = setting(
        "127.0.0.1:8080",
        "Where the API listens. Port 0 picks a free one.",
        form="HOST:PORT, an IPv6 address in brackets",
        check=is_listen,
    )
    admin_listen: str = setting(
        "127.0.0.1:8081",
        "Where metrics and health details are served. Empty: nowhere. Anyone who reaches it may "
        "read it, so keep it off the public network.",
        form="HOST:PORT, or empty",
        check=is_listen_or_off,
    )
    body_bytes: int = setting(
        55 * MIB,
        "Largest request body; more answers 413. Base64 makes a message a third larger.",
        unit="bytes",
        low=KIB,
        high=1024 * MIB,
    )
    head_bytes: int = setting(
        32 * KIB,
        "Largest header section of a request, and what its body may hold beside data (trailers, "
        "chunk extensions); more answers 431.",
        unit="bytes",
        low=KIB,
        high=MIB,
    )
    headers: int = setting(
        100, "Most header fields of a request; more answers 431.", low=10, high=10_000
    )
    head_s: float = setting(
        15.0,
        "A request's headers must have arrived within this time, else 408.",
        unit="seconds",
        low=0.1,
        high=3600,
    )
    request_s: float = setting(
        60.0,
        "A request's headers and body must have arrived within this time, else 408.",
        unit="seconds",
        low=1,
        high=3600,
    )
    min_rate: int = setting(
        500,
        "A request's body must arrive at this rate, on average, else 408. 0: at any rate, within "
        "`http.request_s`.",
        unit="bytes a second",
        low=0,
        high=MIB,
    )
    min_rate_s: float = setting(
        10.0,
        "For so long the rate is not looked at, so that a short stop is no offence.",
        unit="seconds",
        low=0.1,
        high=3600,
    )
    write_s: float = setting(
        60.0,
        "How long a client may leave an answer unread before it is cut off.",
        unit="seconds",
        low=0.1,
        high=3600,
    )
    keep_alive_s: float = setting(
        75.0,
        "How long an idle connection is kept. Keep it above your load balancer's own time.",
        unit="seconds",
        low=1,
        high=3600,
    )
    linger_s: float = setting(
        0.0,
        "After SIGTERM, how long this node says that it is not ready while it still takes and "
        "answers requests, so that a load balancer has left it before its listener closes. More "
        "than the balancer's check interval times the failures that it wants to see. 0: no "
        "balancer is there.",
        unit="seconds",
        low=0,
        high=600,
    )
    shutdown_s: float = setting(
        10.0,
        "After that, how long requests in hand may take to be answered.",
        unit="seconds",
        low=0,
        high=3600,
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """Where one API process refuses more work (503 with Retry-After) rather than fall over."""

    connections: int = setting(
        2000,
        "Open HTTP connections of one listener. Fewer where the process may open fewer files "
        "(`LimitNOFILE`): some are kept for the store.",
        low=10,
        high=1_000_000,
    )
    requests: int = setting(
        512,
        "Emails being worked on at once in one API process, and as many other requests. When "
        "accepts are slow (`limits.delay_s`) it takes fewer emails.",
        low=1,
        high=100_000,
    )
    delay_s: float = setting(
        2.0,
        "While even the quickest accept takes longer than this, fewer emails are taken in hand "
        "and more are refused, so that those that are taken are answered in time. Less than half "
        "of your clients' patience.",
        unit="seconds",
        low=0.01,
        high=60,
    )
    body_bytes: int = setting(
        256 * MIB,
        "Bodies of all requests in one API process, together; the process needs up to four "
        "times as much memory for them. Must hold the largest single body (`http.body_bytes`).",
        unit="bytes",
        low=MIB,
        high=64 * 1024 * MIB,
    )
    free_bytes: int = setting(
        256 * MIB,
        "Below this much free space in the data directory's file system, new mail is refused and "
        "readiness fails, while what was accepted is still delivered. A quarter more must be free "
        "before mail is taken again. 0: never.",
        unit="bytes",
        low=0,
    )


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """The embedded store."""

    durability: Durability = setting(  # noqa: RUF009  makes a field
        Durability.COMMITTED,
        "What an answer of success means. committed: the message is on disk. relaxed: a power "
        "cut may lose the last seconds of accepted mail, and every answer says so.",
    )
    checkpoint_s: float = setting(
        1.0,
        "Upkeep's round: how often lost claims are looked for and the write-ahead log is copied "
        "back into the database file.",
        unit="seconds",
        low=0.05,
        high=10,
    )
    wal_bytes: int = setting(
        64 * MIB,
        "Size above which the write-ahead log is cut back once it has been copied.",
        unit="bytes",
        low=MIB,
        high=16 * 1024 * MIB,
    )


@dataclass(frozen=True, slots=True)
class VerifySettings:
    """The patrol: what `everpost verify` checks, all the time and a little at a time."""

    rate: float = setting(
        200.0,
        "Messages checked a second, a tenth of it while the machine is busy. 200 take about half "
        "a percent of a core, and go through a million in an hour and a half. 0: never.",
        unit="messages a second",
        low=0,
        high=100_000,
    )
    every_s: float = setting(
        300.0,
        "A pass through the store begins no sooner after the one before began.",
        unit="seconds",
        low=0.1,
        high=30 * 86_400,
    )


@dataclass(frozen=True, slots=True)
class IntakeSettings:
    """What is accepted."""

    recipients_per_field: int = setting(
        50, "Most addresses in each of to, cc and bcc.", low=1, high=10_000
    )
    message_bytes: int = setting(
        40 * MIB,
        "Largest message, attachments counted as base64.",
        unit="bytes",
        low=KIB,
        high=1024 * MIB,
    )
    schedule_days: float = setting(
        30.0, "How far ahead `scheduled_at` may lie.", unit="days", low=0, high=3650
    )
    idempotency_hours: float = setting(
        24.0, "How long an idempotency key is remembered.", unit="hours", low=1, high=168
    )
    part_bytes: int = setting(
        64 * KIB,
        "Attachments of at least this size are stored once per project and day, shared by the "
        "messages that carry them.",
        unit="bytes",
        low=KIB,
        high=64 * MIB,
    )


@dataclass(frozen=True, slots=True)
class LogSettings:
    """The log: events with fields, one JSON object a line."""

    file: str = setting(
        "",
        "File to append to; made anew within a second when it has been renamed or removed (as "
        "logrotate does), its directory is not. Empty: standard error.",
        form="a path, or empty",
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that `assembly` builds a node from."""

    node: Node = field(default_factory=Node)
    http: Http = field(default_factory=Http)
    limits: Limits = field(default_factory=Limits)
    store: StoreSettings = field(default_factory=StoreSettings)
    postgres: PostgresSettings = field(default_factory=PostgresSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    verify: VerifySettings = field(default_factory=VerifySettings)
    intake: IntakeSettings = field(default_factory=IntakeSettings)
    dispatch: DispatchSettings = field(default_factory=DispatchSettings)
    delivery: DeliverySettings = field(default_factory=DeliverySettings)
    dns: DnsSettings = field(default_factory=DnsSettings)
    canary: CanarySettings = field(default_factory=CanarySettings)
    log: LogSettings = field(default_factory=LogSettings)
