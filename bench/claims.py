"""Claims on PostgreSQL: `python -m bench.claims [--rows 50000,1000000,10000000] [--apart 40000]`

`--rows`: is a claim as quick with many queued as with few? Fills a database with so many queued
recipients over 1,000 destinations, then claims a hundred at a time and settles them, round by
round; the times of a claim and of its settling, in ms.

`--apart`: two processes empty a queue of so many, first on this host, then each in a network
namespace of its own, on links of their own: do two hosts take each other's rows, and what do they
lose by it? Needs root. In turn, three times each.

A PostgreSQL of its own, with its flushes; nothing leaves this machine.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from everpost import ids
from everpost.clock import SystemClock
from everpost.store.checksums import checksum
from everpost.store.postgres.store import PostgresStore
from tests.conformance.making import claims, delivered
from tests.support.postgres import Postgres

_SEALED = bytes(300)
_DESTINATIONS = 1_000
_LIMIT = 100
_LEASE_MS = 600_000
_WARM_UP, _ROUNDS = 20, 300
_NETWORK = "10.231.25{number}"
_SERVER = {"listen_addresses": "*", "shared_buffers": "1GB", "max_wal_size": "8GB"}

_FILL = """
CREATE TEMPORARY TABLE fresh AS
  SELECT decode(lpad(to_hex({at}), 12, '0') || '7' || lpad(to_hex(i), 19, '0'), 'hex') AS id,
    'd' || i % {destinations} || '.test' AS place, {at}::bigint - {rows} + i AS due
  FROM generate_series(1, {rows}) AS i;
INSERT INTO contents (id, project, key_id, sealed, checksum)
  SELECT id, 1, 1, '\\x{sealed}', '\\x{checksum}' FROM fresh;
INSERT INTO messages (
    id, project, stream, content, message_id, sender, subject, lists, tags, metadata, in_doubt,
    expires_at, dialect, durability, sandbox, size, return_token
  )
  SELECT id, 1, 'transactional', id, '<m@bench.test>', 'a@bench.test', '', '{{}}', '[]', '{{}}',
    'resend', {at} + 432000000, 'native', 'committed', 0, 300, '\\x00' FROM fresh;
INSERT INTO recipients (
    message, n, project, address, destination, kind, state, priority, route, not_before, due,
    expires_at
  )
  SELECT id, 1, 1, 'r@' || place, place, 'to', 'queued', 0, '1/transactional/' || place, due, 1,
    {at} + 432000000 FROM fresh;
INSERT INTO tallies (project, state, shard, n)
  VALUES (1, 'accepted', 0, {rows}), (1, 'queued', 0, {rows});
DROP TABLE fresh;
"""


@contextlib.contextmanager
def _server() -> Iterator[Postgres]:
    server = Postgres(quick=False, settings=_SERVER)
    try:
        server.make()
        with (server.data / "pg_hba.conf").open("a", encoding="utf-8") as rules:
            rules.write("host all all 10.231.0.0/16 trust\n")
        server.start()
        yield server
    finally:
        server.remove()


def _filled(server: Postgres, name: str, rows: int) -> None:
    """A database with so many queued recipients, looked through by vacuum."""
    server.create(name)

    async def make() -> None:
        store = PostgresStore(server.url(name))
        await store.open()
        await store.close()

    asyncio.run(make())
    at = SystemClock().now()
    text = _FILL.format(
        at=at, rows=rows, destinations=_DESTINATIONS, sealed=_SEALED.hex(),
        checksum=checksum(_SEALED).hex(),
    )  # fmt: skip
    # Statements of their own: a temporary table lives as long as the connection.
    subprocess.run(
        ["psql", "--quiet", "--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-d", server.url(name)],
        input=text + "VACUUM ANALYZE;\n", text=True, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


# --- many rows ------------------------------------------------------------------------------------


async def _rounds(url: str) -> tuple[list[float], list[float]]:
    store = PostgresStore(url)
    await store.open()
    owner = ids.IdMaker(SystemClock().now)()
    claiming, settling = [], []
    try:
        for _ in range(_WARM_UP + _ROUNDS):
            began = time.perf_counter()
            taken = claims(await store.claim(owner, limit=_LIMIT, lease_ms=_LEASE_MS))
            claimed = time.perf_counter()
            assert taken, "fewer rows than rounds need"
            assert all(await store.settle(owner, [delivered(claim) for claim in taken]))
            claiming.append((claimed - began) * 1000)
            settling.append((time.perf_counter() - claimed) * 1000)
    finally:
        await store.close()
    return claiming[_WARM_UP:], settling[_WARM_UP:]


def _many_rows(sizes: Sequence[int]) -> list[dict[str, float]]:
    found = []
    with _server() as server:
        for rows in sizes:
            sys.stderr.write(f"filling {rows:,} rows\n")
            _filled(server, f"rows{rows}", rows)
            claiming, settling = asyncio.run(_rounds(server.url(f"rows{rows}")))
            found.append(
                {
                    "rows": rows,
                    "claim_p50_ms": statistics.median(claiming),
                    "claim_p99_ms": statistics.quantiles(claiming, n=100)[98],
                    "settle_p50_ms": statistics.median(settling),
                    "settle_p99_ms": statistics.quantiles(settling, n=100)[98],
                }
            )
            server.drop(f"rows{rows}")
    return found


# --- two hosts ------------------------------------------------------------------------------------


async def _empty(url: str) -> None:
    """As a process of its own: claim and settle until nothing is left; what was claimed, and when
    it began and ended. It begins at a word on standard input."""
    store = PostgresStore(url)
    await store.open()
    owner = ids.IdMaker(SystemClock().now)()
    print("ready", flush=True)
    sys.stdin.readline()
    mine: list[str] = []
    began = time.time()
    while taken := claims(await store.claim(owner, limit=_LIMIT, lease_ms=_LEASE_MS)):
        assert all(await store.settle(owner, [delivered(claim) for claim in taken]))
        mine += [claim.message.hex() for claim in taken]
    ended = time.time()
    await store.close()
    print(json.dumps({"mine": mine, "began": began, "ended": ended}))


@contextlib.contextmanager
def _namespaces() -> Iterator[list[tuple[list[str], str]]]:
    """Two, each with a link to this host: what a command in it begins with, and this host's
    address there."""
    found = []
    with contextlib.ExitStack() as stack:
        for number in (0, 1):
            name, ours = f"bench-{os.getpid()}-{number}", f"bench{number}"
            net = _NETWORK.format(number=number)
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "delete", name)
            _ip("link", "add", ours, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("addr", "add", f"{net}.1/24", "dev", ours)
            _ip("link", "set", ours, "up")
            _ip("-n", name, "addr", "add", f"{net}.2/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            found.append((["ip", "netns", "exec", name], f"{net}.1"))
        yield found


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _together(places: Sequence[tuple[list[str], str]]) -> tuple[float, int, list[int]]:
    """Rows a second of both, rows that both had, and how many each had."""
    running = [
        subprocess.Popen(
            [*prefix, sys.executable, "-m", "bench.claims", "--empty", url],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for prefix, url in places
    ]  # fmt: skip
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [json.loads(process.communicate(timeout=300)[0]) for process in running]
    sets = [set(each["mine"]) for each in told]
    seconds = max(each["ended"] for each in told) - min(each["began"] for each in told)
    return sum(map(len, sets)) / seconds, len(sets[0] & sets[1]), [len(s) for s in sets]


def _apart(rows: int, rounds: int = 3) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    with _server() as server, _namespaces() as hosts:
        for number in range(rounds):
            for kind in ("one host", "two namespaces"):
                name = f"apart{number}{kind[0]}"
                _filled(server, name, rows)
                here = server.url(name, tcp=True)
                places = (
                    [([], here), ([], here)]
                    if kind == "one host"
                    else [(prefix, here.replace("127.0.0.1", there)) for prefix, there in hosts]
                )
                rate, both, each = _together(places)
                found.append({"where": kind, "rows_per_s": rate, "both": both, "each": each})
                sys.stderr.write(f"{kind}: {rate:,.0f} rows/s, {both} twice, {each}\n")
                server.drop(name)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", default="")
    parser.add_argument("--apart", type=int, default=0)
    parser.add_argument("--empty", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.empty:
        asyncio.run(_empty(options.empty))
        return 0
    found: dict[str, object] = {}
    if options.rows:
        found["rows"] = _many_rows([int(rows) for rows in options.rows.split(",")])
    if options.apart:
        found["apart"] = _apart(options.apart)
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
