"""How long does checking the books take, and what does it cost the service?

    python -m bench.verify [--quick] [--messages N] [--rate R]

Starts a service, fills its store behind its back with messages that were delivered (2 KB of sealed
content, one recipient, two events, one attempt each; straight SQL, half a minute a million), and
runs `everpost verify` on it: in one process and in two while the service idles, then in two while
it accepts and delivers R messages a second. The last line is the same load without a check. One
more row is the patrol: CPU of judging a message in the slices that upkeep takes.

A million need 6 GB in the temporary folder; it is removed at the end. (`--quick`: 50,000.)
"""

import argparse
import asyncio
import hashlib
import json
import os
import platform
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from bench.everpost import Service, load
from bench.far_end import FarEnd
from bench.processes import measure
from everpost.ids import IdMaker, text
from everpost.ledger import judge
from everpost.store.sqlite import Auditor

BAR_S = 60.0
"""For a million messages, on two cores."""

_FILL = 10_000
_CONTENT = 2048
_LOAD_S = 15
_SLICE = 50

_INSERTS = {
    "contents": ("id", "project", "key_id", "sealed", "checksum"),
    "messages": (
        "id", "project", "stream", "content", "message_id", "sender", "subject", "lists", "tags",
        "metadata", "in_doubt", "expires_at", "dialect", "durability", "sandbox", "size",
        "return_token",
    ),
    "recipients": (
        "message", "n", "project", "address", "destination", "kind", "state", "priority", "route",
        "not_before", "due", "expires_at", "term", "attempts", "settled_at", "via",
    ),
    "events": ("message", "seq", "recipient", "type", "at", "data"),
    "attempts": (
        "message", "n", "attempt", "started_at", "ended_at", "outcome", "detail", "record", "form",
        "body_hash",
    ),
}  # fmt: skip


def _rows(ids: IdMaker, at: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """One delivered message: rows by table, as the service writes them."""
    id_, sealed = ids(), secrets.token_bytes(_CONTENT)
    site = f"d{id_[-1]}.test"
    yield "contents", (id_, 1, 1, sealed, hashlib.blake2b(sealed, digest_size=16).digest())
    yield "messages", (
        id_, 1, "transactional", id_, f"{text(id_)}@bench.test", "Bench <bench@example.test>",
        "A subject", f'{{"to":["user@{site}"],"cc":[],"bcc":[],"reply_to":[]}}', "[]", "{}",
        "resend", at + 432_000_000, "native", "committed", 0, 2 * _CONTENT, secrets.token_bytes(8),
    )  # fmt: skip
    yield "recipients", (
        id_, 1, 1, f"user@{site}", site, "to", "delivered", 0, f"1/transactional/{site}", at, 1,
        at + 432_000_000, 1, 1, at + 9, "relay",
    )  # fmt: skip
    yield "events", (id_, 1, None, "accepted", at, '{"recipients":1}')
    said = {"via": "relay", "relay": "one", "host": "mx.test", "code": 250, "enhanced": "2.0.0",
            "message": "2.0.0 Ok: queued as 4cQ8Z", "attempt": 1}  # fmt: skip
    yield "events", (id_, 2, 1, "delivered", at + 9, json.dumps(said))
    record = {"started_at": at, "ended_at": at + 9, "relay": "one", "timings": {"dot": 3.1}}
    yield "attempts", (
        id_, 1, 1, at, at + 9, "delivered", json.dumps({"type": "delivered", "via": "relay"}),
        json.dumps(record), "7bit", secrets.token_bytes(33),
    )  # fmt: skip


def fill(database: Path, messages: int) -> None:
    """Add so many delivered messages, with their tallies."""
    db = apsw.Connection(str(database))
    db.set_busy_timeout(30_000)
    at = [time.time_ns() // 1_000_000 - messages]
    ids = IdMaker(lambda: at[0])
    done = 0
    while done < messages:
        n = min(_FILL, messages - done)
        tables: dict[str, list[tuple[Any, ...]]] = {table: [] for table in _INSERTS}
        for _ in range(n):
            at[0] += 1
            for table, row in _rows(ids, at[0]):
                tables[table].append(row)
        with db:
            for table, rows in tables.items():
                names = _INSERTS[table]
                marks = ", ".join("?" * len(names))
                db.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", rows)
            for state in ("accepted", "delivered"):
                db.execute(
                    "INSERT INTO tallies (project, state, n) VALUES (1, ?, ?)"
                    " ON CONFLICT DO UPDATE SET n = n + excluded.n",
                    (state, n),
                )
        done += n
        print(f"\rfilling: {done:,}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    db.close()


def _verify(service: Service, processes: int) -> str:
    """Run it; a line of figures. Raises RuntimeError when it finds anything."""
    command = [
        *(sys.executable, "-m", "everpost", "verify", "--json", "--data"),
        *(str(service.folder / "d"), "--processes", str(processes)),
    ]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    with measure([process.pid]) as usage:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)  # with what its own processes used
    process.returncode = os.waitstatus_to_exitcode(status)
    took, cpu = time.monotonic() - began, used.ru_utime + used.ru_stime
    if process.returncode:
        raise RuntimeError(f"verify ended with {process.returncode}: {printed.decode()[:1000]}")
    document = json.loads(printed)
    messages = document["checked"]["messages"]
    return (
        f"{messages:>10,}{took:>9.1f}{messages / took:>12,.0f}{cpu / messages * 1e6:>10.1f}"
        f"{usage.peak_mb:>9.0f}"
    )


def _load(service: Service, rate: float) -> dict[str, Any]:
    messages = round(rate * _LOAD_S)
    return load(service, messages=messages, rate=rate, connections=16, destinations=10)


def _latency(found: dict[str, Any]) -> str:
    errors = f", errors {found['errors']}" if found["errors"] else ""
    return f"accept p50 {found['p50_ms']:.1f} ms, p99 {found['p99_ms']:.1f} ms{errors}"


async def _patrol(database: Path, slices: int) -> float:
    """µs of CPU a message."""
    auditor, at, seen = Auditor(database), b"", 0
    began = time.process_time()
    for _ in range(slices):
        page = await auditor.audit_page(at, limit=_SLICE)
        judge(page)
        seen += len(page.messages)
        if page.upto is None:
            break
        at = page.upto
    spent = time.process_time() - began
    await auditor.close()
    return spent / seen * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="50,000 messages")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=100.0)
    options = parser.parse_args()
    messages: int = 50_000 if options.quick else options.messages
    with FarEnd() as sink:
        service = Service(sink.port, signing="unsigned")
        try:
            database = service.folder / "d" / "everpost.db"
            fill(database, messages)
            print(
                f"CPython {platform.python_version()}, {os.cpu_count()} cores, "
                f"SQLite {apsw.sqlite_lib_version()}, {database.stat().st_size / 1e9:.1f} GB"
            )
            print(f"{'':22}{'messages':>10}{'s':>9}{'messages/s':>12}{'CPU µs':>10}{'MB':>9}")
            print(f"{'one process':22}{_verify(service, 1)}")
            print(f"{'two processes':22}{_verify(service, 2)}")
            alone = _load(service, options.rate)
            during: dict[str, Any] = {}
            posting = threading.Thread(target=lambda: during.update(_load(service, options.rate)))
            posting.start()
            line = _verify(service, 2)
            posting.join()
            print(f"{f'two, {options.rate:.0f}/s served':22}{line}   {_latency(during)}")
            print(f"{'the same load alone':62}   {_latency(alone)}")
            spent = asyncio.run(_patrol(database, 200))
            print(f"{'patrol':22}{'':>31}{spent:>10.1f}")
        finally:
            service.close()


if __name__ == "__main__":
    main()
