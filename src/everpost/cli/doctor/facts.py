"""What the probes of `everpost doctor` found, before anyone has judged it. None: not found out."""

from dataclasses import dataclass

__all__ = [
    "ClockFacts",
    "DiskFacts",
    "Egress",
    "Facts",
    "NameFacts",
    "ProgramFacts",
    "ResolverFacts",
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
