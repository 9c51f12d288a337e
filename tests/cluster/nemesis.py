"""The faults of a cluster, and which of them may meet. Rows are those of RELIABILITY.md §4.2."""

from collections.abc import Sequence

from tests.chaos import nemesis
from tests.chaos.nemesis import Fault, Kind, kind
from tests.cluster.configuration import LEASE_S, TTL_S

__all__ = ["FAULTS", "KINDS", "OF_DATABASE", "ROWS", "schedule"]

_GONE = (TTL_S + 3.0, TTL_S + 8.0)
"""Longer than Patroni's lease: another host becomes the primary meanwhile."""

# db: PostgreSQL's three servers, Patroni and etcd; node: Everpost's processes; sql: statements of a
# stranger; link: packets between hosts; calls: the tracer; lb: a balancer; sinks: the far end.
# What holds different things may meet: mixes of two or three are F91.
KINDS: dict[str, Kind] = {
    "pgkill": kind(1, (0.5, 0.5), 10.0, "db"),
    "hostkill": kind(1, _GONE, 12.0, "db node"),
    "powercut": kind(1, _GONE, 12.0, "db node calls"),
    "powercutall": kind(1, (3.0, 3.0), 18.0, "db node calls sql link lb"),
    "partition": kind(2, _GONE, 12.0, "db link"),
    "partition_oneway": kind(2, _GONE, 12.0, "db link"),
    "isolate": kind(1, _GONE, 12.0, "db link node"),
    "freeze": kind(2, (25.0, 37.0), 14.0, "db node calls"),
    "freezedb": kind(1, _GONE, 12.0, "db calls"),
    "syncstandbykill": kind(1, (5.0, 10.0), 8.0, "db node"),
    "standbysgone": kind(1, (6.0, 10.0), 10.0, "db"),
    "etcdleaderkill": kind(1, (3.0, 6.0), 6.0, "db"),
    "etcdmajority": kind(1, (6.0, 12.0), 8.0, "db"),
    "patronikill": kind(1, _GONE, 12.0, "db"),
    "switchover": kind(1, (0.5, 0.5), 6.0, "db"),
    "commitcut": kind(2, (3.0, 6.0), 4.0, "sql"),
    "cancel": kind(2, (3.0, 8.0), 4.0, "sql"),
    "deadlock": kind(2, (4.0, 8.0), 4.0, "sql"),
    "exhausted": kind(1, (3.0, 6.0), 5.0, "sql"),
    "replication_slow": kind(2, (5.0, 10.0), 4.0, "link"),
    "replication_lossy": kind(1, (5.0, 10.0), 4.0, "link"),
    "slow_fsync": kind(2, (4.0, 8.0), 5.0, "calls"),
    "node_kill": kind(2, (0.5, 0.5), 3.0, "node"),
    "node_pause": kind(2, (LEASE_S + 1, LEASE_S + 3), 4.0, "node"),
    "leader_pause": kind(2, (LEASE_S + 1, LEASE_S + 3), 4.0, "node"),
    "node_restart": kind(1, (1.0, 1.0), 5.0, "node"),
    "lbkill": kind(2, (3.0, 8.0), 4.0, "lb"),
    "sink_swallow": kind(1, (1.0, 2.0), 2.0, "sinks"),
    "sink_down": kind(1, (2.0, 5.0), 2.0, "sinks"),
}

FAULTS = tuple(KINDS)
OF_DATABASE = tuple(name for name, each in KINDS.items() if not each.holds <= {"node", "sinks"})
"""Those that mean something where there is no Everpost."""

ROWS = {
    "F20": ("pgkill",),
    "F21": ("hostkill",),
    "F22": ("powercut", "powercutall"),
    "F23": ("partition", "partition_oneway", "isolate"),
    "F24": ("freeze", "freezedb"),
    "F25": ("syncstandbykill",),
    "F26": ("standbysgone",),
    "F27": ("etcdleaderkill", "etcdmajority"),
    "F28": ("patronikill",),
    "F29": ("commitcut",),
    "F30": ("cancel",),
    "F31": ("deadlock",),
    "F32": ("exhausted",),
    "F34": ("replication_slow", "replication_lossy"),
    "F35": ("node_pause", "node_kill"),
    "F41": ("node_restart",),
    "F42": ("slow_fsync",),
    "F89": ("leader_pause",),
    "F90": ("lbkill",),
}
"""F33 is a whole run through PgBouncer; F91 is what a schedule of several kinds has of itself."""


def schedule(seed: int, seconds: float, *, faults: Sequence[str] = FAULTS) -> list[Fault]:
    """As `tests.chaos.nemesis.schedule`. The seed chooses among what a run has time for."""
    return nemesis.schedule(seed, seconds, faults=faults, kinds=KINDS)
