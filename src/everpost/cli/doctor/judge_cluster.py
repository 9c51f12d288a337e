"""What the facts about a cluster mean. Pure."""

from collections.abc import Iterator

from everpost.cli.doctor.facts import ClusterFacts, DatabaseFacts, PeerFacts, SecretFacts
from everpost.cli.doctor.finding import Finding, Verdict

__all__ = ["judge_cluster"]

POSTGRES = 150_000
SKEW_MS = 1_000
SECRET = 32


def judge_cluster(facts: ClusterFacts) -> Iterator[Finding]:
    yield from _database(facts.database)
    yield _secret(facts.secret)
    for peer in facts.peers or ():
        yield _peer(peer)


def _database(facts: DatabaseFacts) -> Iterator[Finding]:
    check = "postgresql"
    if facts.error:
        yield Finding(
            check,
            Verdict.FAIL,
            facts.error,
            "See postgres.url and postgres.password_file, pg_hba.conf, and whether a primary "
            "is up.",
        )
        return
    old = facts.number < POSTGRES
    yield Finding(
        check,
        Verdict.FAIL if old else Verdict.OK,
        facts.version,
        "Everpost needs PostgreSQL 15 or later." if old else "",
    )
    if facts.problems:
        yield Finding(
            "durability",
            Verdict.FAIL,
            "; ".join(facts.problems),
            "Nothing is accepted until this is mended; see docs/operate/cluster.md.",
        )
    else:
        copies = "" if not facts.standbys else f", {facts.standbys} standbys are connected"
        yield Finding("durability", Verdict.OK, f"{facts.assurance}{copies}")
    skewed = abs(facts.skew_ms) > SKEW_MS
    yield Finding(
        "database clock",
        Verdict.WARN if skewed else Verdict.OK,
        f"this machine's is {facts.skew_ms / 1000:+.3f} s from it",
        "Run an NTP client on both; Everpost itself goes by the database's." if skewed else "",
    )


def _secret(facts: SecretFacts) -> Finding:
    check = "cluster secret"
    if facts.error:
        return Finding(check, Verdict.FAIL, f"{facts.path}: {facts.error}", "Make it readable.")
    if not facts.path:
        return Finding(
            check,
            Verdict.WARN if facts.listening else Verdict.OK,
            "none: nodes leave each other no copies",
            "Put the same 32 or more random characters into cluster.secret_file of each node."
            if facts.listening
            else "",
        )
    if facts.open_to_others or not facts.owned:
        return Finding(
            check,
            Verdict.FAIL,
            f"{facts.path} is open to others",
            "chown it to the user that runs Everpost, chmod 600 it, and make a new one.",
        )
    if facts.length < SECRET:
        return Finding(
            check,
            Verdict.FAIL,
            f"{facts.path} holds {facts.length} characters",
            f"It takes {SECRET} or more: openssl rand -base64 48",
        )
    return Finding(check, Verdict.OK, facts.path)


def _peer(facts: PeerFacts) -> Finding:
    where = f"{facts.name} at {facts.address}"
    if facts.error:
        return Finding(
            "peer",
            Verdict.WARN,
            f"{where}: {facts.error}",
            "Is the node up, and is a firewall between the nodes?",
        )
    return Finding("peer", Verdict.OK, f"{where} answers")
