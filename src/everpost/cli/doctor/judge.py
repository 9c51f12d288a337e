"""What the facts mean: pure, a finding a check, with advice where something is to be done."""

from collections.abc import Iterator

from everpost.cli.doctor.facts import (
    ClockFacts,
    DiskFacts,
    Egress,
    Facts,
    NameFacts,
    ProgramFacts,
    ResolverFacts,
)
from everpost.cli.doctor.finding import Finding, Verdict
from everpost.cli.doctor.judge_cluster import judge_cluster
from everpost.cli.show import bytes_text

__all__ = ["Finding", "Verdict", "judge"]

PYTHON = (3, 11)
SQLITE = (3, 51, 3)
"""Older ones, from 3.7.0 on, may corrupt a WAL database when two connections write and checkpoint
at once."""

FILES_LEAST = 256
FILES_GOOD = 4096
SYNCS_IMPLAUSIBLE = 20_000
"""fdatasyncs a second that no disk reaches which waits for its medium."""
SYNCS_SLOW = 50
CLOCK_ERROR_S = 1.0
INODES = 10_000

MEMORY = frozenset({"tmpfs", "ramfs"})
REMOTE = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "glusterfs"}
)
LAYERED = frozenset({"overlay", "aufs"})


def judge(facts: Facts) -> list[Finding]:
    """Every finding, in the order of the report."""
    return [
        *_program(facts.program),
        *_disk(facts.disk, facts.need_bytes),
        _clock(facts.clock),
        *(judge_cluster(facts.cluster) if facts.cluster else []),
        *([_resolver(facts.resolver)] if facts.resolver else []),
        *(_name(facts.name) if facts.name else []),
        *(_egress(facts.egress, online=_online(facts)) if facts.egress is not None else []),
    ]


def _version(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


def _program(facts: ProgramFacts) -> Iterator[Finding]:
    said = f"{facts.implementation} {_version(facts.python)}"
    if facts.python < PYTHON or facts.implementation != "CPython":
        yield Finding("python", Verdict.FAIL, said, "Everpost needs CPython 3.11 or later.")
    else:
        yield Finding("python", Verdict.OK, said)
    if facts.sqlite < SQLITE:
        yield Finding(
            "sqlite",
            Verdict.FAIL,
            _version(facts.sqlite),
            f"Versions before {_version(SQLITE)} may corrupt the store: install a later apsw.",
        )
    else:
        yield Finding("sqlite", Verdict.OK, _version(facts.sqlite))
    if facts.files < FILES_LEAST:
        verdict = Verdict.FAIL
    else:
        verdict = Verdict.WARN if facts.files < FILES_GOOD else Verdict.OK
    yield Finding(
        "open files",
        verdict,
        f"{facts.files} a process",
        ""
        if verdict is Verdict.OK
        else f"Raise the limit to {FILES_GOOD} (LimitNOFILE, ulimit -n).",
    )


def _disk(facts: DiskFacts, need_bytes: int) -> Iterator[Finding]:
    yield _directory(facts)
    yield _file_system(facts)
    yield _syncs(facts)
    yield _space(facts, need_bytes)


def _directory(facts: DiskFacts) -> Finding:
    check = "data directory"
    if not facts.exists:
        if facts.writable:
            return Finding(
                check, Verdict.OK, f"{facts.data} does not exist yet; `everpost serve` makes it"
            )
        return Finding(
            check,
            Verdict.FAIL,
            f"{facts.data} does not exist, and {facts.measured} may not be written",
            "Make it, owned by the user that runs Everpost.",
        )
    if not facts.writable:
        return Finding(
            check,
            Verdict.FAIL,
            f"{facts.data} may not be written",
            "Run this as the user that runs Everpost, or give it the directory (chown).",
        )
    if not facts.owned or facts.mode & 0o077:
        return Finding(
            check,
            Verdict.WARN,
            f"{facts.data} is open to others (mode {facts.mode:04o})"
            if facts.owned
            else f"{facts.data} belongs to another user",
            f"It holds keys and mail: chown it to the user that runs Everpost, chmod 700 "
            f"{facts.data}.",
        )
    return Finding(check, Verdict.OK, f"{facts.data}, mode {facts.mode:04o}")


def _file_system(facts: DiskFacts) -> Finding:
    check, kind = "file system", facts.file_system
    if kind is None:
        return Finding(check, Verdict.WARN, "not found out", "See /proc/self/mountinfo.")
    if facts.read_only:
        return Finding(check, Verdict.FAIL, f"{kind}, mounted read-only", "Remount it rw.")
    if kind in MEMORY:
        return Finding(
            check,
            Verdict.FAIL,
            f"{kind} lies in memory: accepted mail is lost when the machine stops",
            "Put the data directory on a disk.",
        )
    if kind in REMOTE:
        return Finding(
            check,
            Verdict.FAIL,
            f"{kind} is a network file system: the store's write-ahead log does not work there",
            "Put the data directory on a disk of this machine.",
        )
    if kind in LAYERED:
        return Finding(
            check,
            Verdict.WARN,
            f"{kind} is a container's own layer: accepted mail is lost with the container",
            "Mount a volume at the data directory.",
        )
    return Finding(check, Verdict.OK, kind)


def _syncs(facts: DiskFacts) -> Finding:
    check, rate = "fsync", facts.syncs_per_s
    if rate is None:
        return Finding(check, Verdict.WARN, "could not be measured")
    said = f"{rate:,.0f} a second"
    if facts.file_system in MEMORY:
        return Finding(check, Verdict.WARN, f"{said}, of memory: says nothing of a disk")
    if rate > SYNCS_IMPLAUSIBLE:
        return Finding(
            check,
            Verdict.WARN,
            f"{said} is faster than a disk that waits for its medium",
            "The disk, its controller or the virtual machine may lie: find out what a power cut "
            "costs (write cache without battery, cache=unsafe, eatmydata, nobarrier).",
        )
    if rate < SYNCS_SLOW:
        return Finding(
            check,
            Verdict.WARN,
            f"{said}: an accept waits {1000 / max(rate, 0.001):,.0f} ms for the disk",
            "Use a faster disk for the data directory.",
        )
    return Finding(check, Verdict.OK, said)


def _space(facts: DiskFacts, need_bytes: int) -> Finding:
    check, free = "free space", bytes_text(facts.free_bytes)
    if facts.free_bytes < need_bytes:
        return Finding(
            check,
            Verdict.FAIL,
            f"{free}: new mail is refused below {bytes_text(need_bytes)}",
            "Free space, or lower limits.free_bytes.",
        )
    if facts.free_inodes is not None and facts.free_inodes < INODES:
        return Finding(
            check, Verdict.WARN, f"{free}, but only {facts.free_inodes} inodes", "Remove files."
        )
    if facts.free_bytes < 4 * need_bytes:
        return Finding(check, Verdict.WARN, f"{free}: soon too little", "Plan for more.")
    return Finding(check, Verdict.OK, free)


def _clock(facts: ClockFacts) -> Finding:
    check = "clock"
    if facts.synchronised is None:
        return Finding(check, Verdict.WARN, "the kernel does not tell whether it is synchronised")
    if not facts.synchronised:
        return Finding(
            check,
            Verdict.WARN,
            "is not synchronised",
            "Run an NTP client (chrony, systemd-timesyncd): schedules, expiry and signatures "
            "depend on it.",
        )
    if facts.error_s is not None and facts.error_s > CLOCK_ERROR_S:
        return Finding(
            check,
            Verdict.WARN,
            f"may be wrong by {facts.error_s:.1f} s",
            "Look at the NTP client's sources.",
        )
    error = "" if facts.error_s is None else f", at most {facts.error_s * 1000:.0f} ms off"
    return Finding(check, Verdict.OK, f"synchronised{error}")


def _resolver(facts: ResolverFacts) -> Finding:
    check = "resolver"
    if not facts.answered:
        return Finding(
            check,
            Verdict.WARN,
            f"of no use: {facts.reason}",
            "Without DNS no domain is verified and no mail goes directly to its destination. "
            "See /etc/resolv.conf.",
        )
    if not facts.authenticated:
        return Finding(
            check,
            Verdict.WARN,
            "answers, but does not say that DNSSEC held",
            "Run a validating resolver on this machine (unbound, knot-resolver), and put "
            "`options trust-ad` into /etc/resolv.conf.",
        )
    return Finding(check, Verdict.OK, "answers and validates DNSSEC")


def _name(facts: NameFacts) -> Iterator[Finding]:
    check, name = "host name", facts.hostname
    if facts.unknown:
        yield Finding(check, Verdict.WARN, f"{name}: not looked up: {facts.unknown}")
        return
    if "." not in name.rstrip("."):
        yield Finding(
            check,
            Verdict.FAIL if facts.sources else Verdict.WARN,
            f"{name} is no full name",
            "Set node.hostname to a name that resolves to this machine's public address.",
        )
        return
    if not facts.addresses:
        yield Finding(
            check,
            Verdict.WARN,
            f"{name} has no address in the DNS",
            "Give it an A or AAAA record of the address that mail leaves from, or set "
            "node.hostname. Relays rarely mind; destinations do.",
        )
        return
    for address in facts.sources or facts.addresses:
        yield _address(facts, address)


def _address(facts: NameFacts, address: str) -> Finding:
    check, name = "host name", facts.hostname
    if address not in facts.addresses:
        return Finding(
            check,
            Verdict.WARN,
            f"mail leaves from {address}, which is no address of {name}",
            f"Add {address} to {name}'s records, or set node.hostname.",
        )
    pointers = facts.pointers.get(address, ())
    wanted = name.lower().rstrip(".")
    if wanted not in {pointer.lower().rstrip(".") for pointer in pointers}:
        shown = ", ".join(pointers) or "nothing"
        return Finding(
            check,
            Verdict.WARN,
            f"{address} points back to {shown}, not to {name}",
            f"Ask the owner of the address (provider) for a PTR record {address} -> {name}.",
        )
    return Finding(check, Verdict.OK, f"{name} and {address} name each other")


def _online(facts: Facts) -> bool:
    """Whether there is any sign of a network: without one, closed ports say nothing."""
    answered = facts.resolver is not None and facts.resolver.answered
    return answered or any(not one.error for one in facts.egress or ())


def _egress(found: tuple[Egress, ...], *, online: bool) -> Iterator[Finding]:
    check = "way out"
    if not found:
        yield Finding(
            check,
            Verdict.WARN,
            "not tried: there is no smart host and no --probe-host",
            "Name a mail server or domain of yours with --probe-host to see whether port 25 is "
            "open; direct delivery (a relay of kind mx) needs it.",
        )
    for one in found:
        where = f"{one.host} port {one.port}"
        if not one.error:
            yield Finding(check, Verdict.OK, f"{where} answers: {one.banner}")
        elif not online:
            yield Finding(
                check, Verdict.WARN, f"{where}: {one.error}", "There seems to be no network here."
            )
        else:
            yield Finding(
                check,
                Verdict.FAIL,
                f"{where}: {one.error}",
                "Many providers close port 25: ask yours to open it, or use a relay on port 587."
                if one.port == 25
                else "Is the relay up, and is a firewall in the way?",
            )
