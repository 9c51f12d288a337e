"""What doctor says of a database that nodes share, of the cluster's secret, and of peers."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from everpost.cli.doctor import database
from everpost.cli.doctor.facts import ClusterFacts, DatabaseFacts, PeerFacts, SecretFacts
from everpost.cli.doctor.finding import Finding, Verdict
from everpost.cli.doctor.judge_cluster import judge_cluster
from everpost.clock import SystemClock
from everpost.config import load
from everpost.store.interface import StoreError
from everpost.store.postgres.connection import Address
from everpost.store.postgres.glance import glance
from tests.support.mail_hosts import free_port
from tests.support.postgres import Postgres, serving_postgres

OK, WARN, FAIL = Verdict.OK, Verdict.WARN, Verdict.FAIL
SOUND = DatabaseFacts(
    version="15.7", number=150_007, assurance="replicated", standbys=1, skew_ms=-3
)
SECRET = SecretFacts(listening=True, path="/etc/secret", length=48)


def _findings(database: DatabaseFacts = SOUND, secret: SecretFacts = SECRET) -> dict[str, Finding]:
    peers = (PeerFacts("two", "http://two:1"),)
    return {f.check: f for f in judge_cluster(ClusterFacts(database, secret, peers))}


def test_a_sound_cluster_has_nothing_to_do() -> None:
    found = _findings()
    assert {finding.verdict for finding in found.values()} == {OK}
    assert list(found) == ["postgresql", "durability", "database clock", "cluster secret", "peer"]
    assert found["durability"].says == "replicated, 1 standbys are connected"


@pytest.mark.parametrize(
    ("change", "check", "verdict"),
    [
        ({"error": "connection refused"}, "postgresql", FAIL),
        ({"number": 140_011, "version": "14.11"}, "postgresql", FAIL),
        ({"problems": ("fsync is off",)}, "durability", FAIL),
        ({"skew_ms": 1_001}, "database clock", WARN),
        ({"skew_ms": -7_200_000}, "database clock", WARN),
    ],
    ids=str,
)
def test_databases(change: dict[str, Any], check: str, verdict: Verdict) -> None:
    finding = _findings(database=replace(SOUND, **change))[check]
    assert finding.verdict is verdict
    assert finding.advice


@pytest.mark.parametrize(
    ("secret", "verdict"),
    [
        (SecretFacts(listening=False), OK),
        (SecretFacts(listening=True), WARN),
        (replace(SECRET, error="No such file or directory"), FAIL),
        (replace(SECRET, open_to_others=True), FAIL),
        (replace(SECRET, owned=False), FAIL),
        (replace(SECRET, length=31), FAIL),
        (replace(SECRET, length=32), OK),
    ],
    ids=str,
)
def test_secrets(secret: SecretFacts, verdict: Verdict) -> None:
    finding = _findings(secret=secret)["cluster secret"]
    assert finding.verdict is verdict
    assert bool(finding.advice) is (verdict is not OK)


def test_a_peer_that_cannot_be_reached() -> None:
    port = free_port()
    nodes = (("one", ""), ("two", f"http://127.0.0.1:{port}"), ("self", "http://127.0.0.1:9"))
    (peer,) = asyncio.run(database.peers(nodes, but="self"))
    assert (peer.name, bool(peer.error)) == ("two", True)
    (finding,) = [
        f for f in judge_cluster(ClusterFacts(SOUND, SECRET, (peer,))) if f.check == "peer"
    ]
    assert finding.verdict is WARN


def test_a_secret_file_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("x" * 40 + "\n")
    path.chmod(0o644)
    settings = load(None, {"EVERPOST_CLUSTER_SECRET_FILE": str(path)}, {})
    assert database.secret(settings) == SecretFacts(
        listening=False, path=str(path), open_to_others=True, owned=True, length=40
    )
    path.unlink()
    assert database.secret(settings).error


# --- a real server --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with serving_postgres(settings={"fsync": "off"}) as running:
        yield running


def test_a_database_without_a_store_on_a_server_that_flushes_nothing(server: Postgres) -> None:
    address = Address(server.url("postgres"), deadline_s=5.0)
    seen = glance(address, standbys=1, wall_ms=SystemClock().now)
    assert seen.number >= 150_000
    assert (seen.database, seen.schema, seen.nodes) == ("postgres", "", ())
    assert seen.writable
    assert any("fsync is off" in problem for problem in seen.problems)
    assert any("postgres.standbys is 1" in problem for problem in seen.problems)
    assert abs(seen.skew_ms) < 60_000
    assert seen.size > 1_000_000


def test_a_database_that_is_not_there(server: Postgres) -> None:
    for url in (server.url("nowhere"), f"postgresql://everpost@127.0.0.1:{free_port()}/x"):
        with pytest.raises(StoreError):
            glance(Address(url, deadline_s=5.0), standbys=1, wall_ms=SystemClock().now)


def test_what_is_shown_of_an_address_holds_no_password() -> None:
    shown = str(Address("postgresql://me:geheim@db.test:5433/mail", deadline_s=1.0))
    assert shown == "host=db.test port=5433 dbname=mail user=me"
