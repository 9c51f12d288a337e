"""What the probes of `everpost doctor` found, before anyone has judged it. None: not found out."""

from dataclasses import dataclass

__all__ = [
    "ClockFacts",
    "ClusterFacts",
    "DatabaseFacts",
    "DiskFacts",
    "Egress",
    "Facts",
    "NameFacts",
    "PeerFacts",
    "ProgramFacts",
    "ResolverFacts",
    "SecretFacts",
]


@dataclass(frozen=True, slots=True)
class ProgramFacts:
    """Versions as tuples of numbers; `files` is the soft limit of open files."""

    python: tuple[int, ...]
    implementation: str
    sqlite: tuple[int, ...]
    files: int


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """The data directory and what it lies on. `measured` is where the disk was measured: the
    directory itself, or the nearest that exists. `syncs_per_s`: fdatasync calls, each after 4 KiB
    appended. `mode`: permission bits of the directory."""

    data: str
    exists: bool
    measured: str
    writable: bool
    owned: bool
    mode: int
    file_system: str | None
    read_only: bool
    free_bytes: int
    free_inodes: int | None
    syncs_per_s: float | None


@dataclass(frozen=True, slots=True)
class ClockFacts:
    """What the kernel says of its clock. `error_s`: the most it may be wrong by, in seconds."""

    synchronised: bool | None
    error_s: float | None


@dataclass(frozen=True, slots=True)
class ResolverFacts:
    """An answer to a question for the root's own records. `authenticated`: the AD bit was set."""

    answered: bool
    authenticated: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class NameFacts:
    """The EHLO name, the addresses it has and, for each of those and of `sources`, the names that
    it has in turn. `sources` are the public addresses that mail leaves from, where known. `unknown`
    says what could not be looked up."""

    hostname: str
    addresses: tuple[str, ...]
    sources: tuple[str, ...]
    pointers: dict[str, tuple[str, ...]]
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class Egress:
    """One attempt to reach a mail server. `banner` is its greeting, `error` why there was none."""

    host: str
    port: int
    banner: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """The database that nodes share. `error`: why it could not be looked at. `number`: its version
    as PostgreSQL counts (150007); `problems`: why nothing may be accepted there; `skew_ms`: this
    machine's wall clock less its own. `nodes`: (name, peers' address)."""

    version: str = ""
    number: int = 0
    problems: tuple[str, ...] = ()
    assurance: str = ""
    standbys: int | None = None
    skew_ms: int = 0
    nodes: tuple[tuple[str, str], ...] = ()
    relays: tuple[tuple[str, int, str], ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class SecretFacts:
    """The cluster's secret. `listening`: this node takes copies from peers."""

    listening: bool
    path: str = ""
    open_to_others: bool = False
    owned: bool = True
    length: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """Another node, where it says that its peers reach it."""

    name: str
    address: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """`peers` None where the network was not to be asked."""

    database: DatabaseFacts
    secret: SecretFacts
    peers: tuple[PeerFacts, ...] | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    program: ProgramFacts
    disk: DiskFacts
    clock: ClockFacts
    resolver: ResolverFacts | None
    name: NameFacts | None
    egress: tuple[Egress, ...] | None
    """None where the network was not to be asked."""
    need_bytes: int
    """Free space below which the server refuses new mail (`limits.free_bytes`)."""
    cluster: ClusterFacts | None = None
    """None: the store is embedded."""
