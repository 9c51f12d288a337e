"""What each fact means: a row a misfortune."""

from dataclasses import replace
from typing import Any

import pytest

from everpost.cli.doctor.facts import (
    ClockFacts,
    DiskFacts,
    Egress,
    Facts,
    NameFacts,
    ProgramFacts,
    ResolverFacts,
)
from everpost.cli.doctor.judge import SQLITE, Finding, Verdict, judge

OK, WARN, FAIL = Verdict.OK, Verdict.WARN, Verdict.FAIL
GIB = 1 << 30
GOOD = Facts(
    program=ProgramFacts((3, 11, 7), "CPython", (3, 54, 1), 20_000),
    disk=DiskFacts(
        data="/srv/e",
        exists=True,
        measured="/srv/e",
        writable=True,
        owned=True,
        mode=0o700,
        file_system="ext4",
        read_only=False,
        free_bytes=10 * GIB,
        free_inodes=1_000_000,
        syncs_per_s=900.0,
    ),
    clock=ClockFacts(True, 0.01),
    resolver=ResolverFacts(answered=True, authenticated=True),
    name=NameFacts("mx.a.test", ("192.0.2.1",), (), {"192.0.2.1": ("MX.a.test.",)}),
    egress=(Egress("relay.test", 25, banner="220 hi"),),
    need_bytes=256 << 20,
)


def _finding(facts: Facts, check: str) -> Finding:
    found = [finding for finding in judge(facts) if finding.check == check]
    assert len(found) == 1
    return found[0]


def test_a_good_machine_has_nothing_to_do() -> None:
    findings = judge(GOOD)
    assert {finding.verdict for finding in findings} == {OK}
    assert not any(finding.advice for finding in findings)
    assert [finding.check for finding in findings] == [
        "python", "sqlite", "open files", "data directory", "file system", "fsync", "free space",
        "clock", "resolver", "host name", "way out",
    ]  # fmt: skip


def test_the_store_and_the_doctor_agree_on_sqlite() -> None:
    from everpost.store.sqlite.connection import OLDEST_SQLITE

    assert SQLITE == OLDEST_SQLITE


@pytest.mark.parametrize(
    ("change", "check", "verdict"),
    [
        ({"python": (3, 10, 9)}, "python", FAIL),
        ({"implementation": "PyPy"}, "python", FAIL),
        ({"sqlite": (3, 51, 2)}, "sqlite", FAIL),
        ({"sqlite": (3, 51, 3)}, "sqlite", OK),
        ({"files": 64}, "open files", FAIL),
        ({"files": 1024}, "open files", WARN),
    ],
)
def test_programs(change: dict[str, Any], check: str, verdict: Verdict) -> None:
    finding = _finding(replace(GOOD, program=replace(GOOD.program, **change)), check)
    assert (finding.verdict, bool(finding.advice)) == (verdict, verdict is not OK)


@pytest.mark.parametrize(
    ("change", "check", "verdict", "says"),
    [
        ({"exists": False}, "data directory", OK, "does not exist yet"),
        ({"exists": False, "writable": False}, "data directory", FAIL, "may not be written"),
        ({"writable": False}, "data directory", FAIL, "may not be written"),
        ({"mode": 0o750}, "data directory", WARN, "0750"),
        ({"owned": False}, "data directory", WARN, "another user"),
        ({"file_system": None}, "file system", WARN, "not found out"),
        ({"read_only": True}, "file system", FAIL, "read-only"),
        ({"file_system": "tmpfs"}, "file system", FAIL, "memory"),
        ({"file_system": "nfs4"}, "file system", FAIL, "network"),
        ({"file_system": "overlay"}, "file system", WARN, "container"),
        ({"syncs_per_s": None}, "fsync", WARN, "could not"),
        ({"syncs_per_s": 60_000.0}, "fsync", WARN, "faster than a disk"),
        ({"syncs_per_s": 60_000.0, "file_system": "tmpfs"}, "fsync", WARN, "of memory"),
        ({"syncs_per_s": 20.0}, "fsync", WARN, "50 ms"),
        ({"syncs_per_s": 0.0}, "fsync", WARN, "waits"),
        ({"free_bytes": 100 << 20}, "free space", FAIL, "new mail is refused"),
        ({"free_bytes": 900 << 20}, "free space", WARN, "too little"),
        ({"free_inodes": 12}, "free space", WARN, "12 inodes"),
        ({"free_inodes": None}, "free space", OK, "10.0 GiB"),
    ],
)
def test_disks(change: dict[str, Any], check: str, verdict: Verdict, says: str) -> None:
    finding = _finding(replace(GOOD, disk=replace(GOOD.disk, **change)), check)
    assert finding.verdict is verdict
    assert says in finding.says


@pytest.mark.parametrize(
    ("clock", "verdict", "says"),
    [
        (ClockFacts(None, None), WARN, "does not tell"),
        (ClockFacts(False, 16.0), WARN, "not synchronised"),
        (ClockFacts(True, 3.5), WARN, "3.5 s"),
        (ClockFacts(True, None), OK, "synchronised"),
    ],
)
def test_clocks(clock: ClockFacts, verdict: Verdict, says: str) -> None:
    finding = _finding(replace(GOOD, clock=clock), "clock")
    assert (finding.verdict, says in finding.says) == (verdict, True)


@pytest.mark.parametrize(
    ("resolver", "says"),
    [
        (ResolverFacts(False, False, "no answer within 5 s"), "no answer within 5 s"),
        (ResolverFacts(True, False), "does not say that DNSSEC held"),
    ],
)
def test_resolvers(resolver: ResolverFacts, says: str) -> None:
    finding = _finding(replace(GOOD, resolver=resolver), "resolver")
    assert (finding.verdict, says in finding.says) == (WARN, True)


@pytest.mark.parametrize(
    ("change", "verdict", "says"),
    [
        ({"unknown": "SERVFAIL"}, WARN, "not looked up: SERVFAIL"),
        ({"hostname": "vm"}, WARN, "no full name"),
        ({"hostname": "vm", "sources": ("192.0.2.9",)}, FAIL, "no full name"),
        ({"addresses": ()}, WARN, "no address"),
        ({"sources": ("192.0.2.9",)}, WARN, "mail leaves from 192.0.2.9"),
        ({"pointers": {}}, WARN, "points back to nothing"),
        ({"pointers": {"192.0.2.1": ("a.provider.test.",)}}, WARN, "a.provider.test"),
        ({"sources": ("192.0.2.1",)}, OK, "name each other"),
    ],
)
def test_names(change: dict[str, Any], verdict: Verdict, says: str) -> None:
    assert GOOD.name is not None
    finding = _finding(replace(GOOD, name=replace(GOOD.name, **change)), "host name")
    assert finding.verdict is verdict
    assert says in finding.says


def test_every_address_of_a_name_is_looked_at() -> None:
    assert GOOD.name is not None
    name = replace(GOOD.name, addresses=("192.0.2.1", "2001:db8::1"))
    verdicts = [f.verdict for f in judge(replace(GOOD, name=name)) if f.check == "host name"]
    assert verdicts == [OK, WARN]


def test_a_closed_port_25_fails_where_there_is_a_network_and_warns_where_there_is_none() -> None:
    closed = (Egress("mx.test", 25, error="no connection within 5 s"),)
    finding = _finding(replace(GOOD, egress=closed), "way out")
    assert finding.verdict is FAIL
    assert "port 587" in finding.advice
    relay = replace(GOOD, egress=(replace(closed[0], port=587),))
    assert "firewall" in _finding(relay, "way out").advice
    silent = ResolverFacts(answered=False, authenticated=False, reason="x")
    finding = _finding(replace(GOOD, egress=closed, resolver=silent), "way out")
    assert (finding.verdict, "no network" in finding.advice) == (WARN, True)
    mixed = replace(GOOD, resolver=None, egress=(*closed, *(GOOD.egress or ())))
    assert [f.verdict for f in judge(mixed) if f.check == "way out"] == [FAIL, OK]


def test_nothing_to_connect_to_is_said_and_offline_is_silent() -> None:
    assert _finding(replace(GOOD, egress=()), "way out").verdict is WARN
    offline = {f.check for f in judge(replace(GOOD, resolver=None, name=None, egress=None))}
    assert not offline & {"resolver", "host name", "way out"}
