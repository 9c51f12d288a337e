"""`make cluster`: three hosts with Everpost on them, to look at and to break; Ctrl-C ends it all.

`--check N`: sends N messages by way of the balancers, sees them delivered, and ends.
"""

import argparse
import shutil
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.chaos.sink import Sink
from tests.cluster import configuration
from tests.cluster.cluster import Cluster
from tests.cluster.configuration import API, PATRONI, PRIMARY
from tests.cluster.nodes import Nodes

__all__ = ["main"]

_DELIVERED_S = 60.0


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make cluster")
    parser.add_argument("--check", type=int, default=0, metavar="N", help="send N messages and end")
    parser.add_argument("--disks", action="store_true", help="disks whose power can be cut")
    parser.add_argument("--pgbouncer", action="store_true", help="by way of PgBouncer")
    parser.add_argument("--database", action="store_true", help="without Everpost")
    parser.add_argument("--logs", type=Path, help="keep the logs in this folder")
    given = parser.parse_args(words)
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _end(asked))
    began = time.monotonic()
    with ExitStack() as stack:
        try:
            _say("starting etcd, Patroni and PostgreSQL on three hosts …")
            cluster = stack.enter_context(
                Cluster(disks=given.disks, doorway=not given.check, keep=given.logs)
            )
            _say(f"healthy after {time.monotonic() - began:.1f} s")
            if given.database:
                _say(_table(cluster, None))
                asked.wait()
                return 0
            sink = stack.enter_context(_sink(cluster))
            nodes = Nodes(cluster, pooled=given.pgbouncer)
            nodes.start({"sink": sink.url})
            _say(f"Everpost is ready on three hosts after {time.monotonic() - began:.1f} s")
            if given.check:
                return _check(nodes, sink, given.check)
            _say(_table(cluster, nodes, sink))
            asked.wait()
        except KeyboardInterrupt:
            pass  # while it was starting
        finally:
            _say("taking it down …")
    return 0


def _end(asked: threading.Event) -> None:
    """Once: the wait ends, or what is being started is left."""
    if asked.is_set():
        return
    asked.set()
    raise KeyboardInterrupt


def _sink(cluster: Cluster) -> Sink:
    with cluster.clients.inside():
        return Sink(cluster.folder, "sink", host=cluster.clients.address)


def _check(nodes: Nodes, sink: Sink, count: int) -> int:
    """0 when all arrived once."""
    sent = {f"m{n}@receiver.test" for n in range(count)}
    ids = [nodes.front.send(to=[address]) for address in sorted(sent)]
    _say(f"{count} messages accepted by way of the balancers")
    for id_ in ids:
        nodes.front.wait_status(id_, "delivered", seconds=_DELIVERED_S)
    sink.close()  # its journal is whole then
    arrived = [to for taken in sink.taken() for to in taken.recipients]
    twice = len(arrived) - len(set(arrived))
    found = nodes.findings()
    _say(f"{len(set(arrived))} arrived, {twice} of them twice; verify: {len(found)} findings")
    for each in found:
        _say(f"  {each}")
    return 1 if twice or found or set(arrived) != sent else 0


def _table(cluster: Cluster, nodes: Nodes | None, sink: Sink | None = None) -> str:
    """What is where, and what can be done with it."""
    members = {m.name: m.role for m in cluster.members()}
    lines = ["", f"{'host':<9}{'address':<15}{'PostgreSQL':<14}network namespace"]
    lines += [
        f"{h.name:<9}{h.address:<15}{members.get(h.name, ''):<14}{h.namespace.name}"
        for h in cluster.hosts
    ]
    lines += [
        f"{b.name:<9}{b.address:<15}{'HAProxy':<14}{b.programs.namespace.name}"
        for b in cluster.balancers
    ]
    clients = cluster.clients
    lines.append(f"{'clients':<9}{clients.address:<15}{'SMTP sink':<14}{clients.name}")
    one, front, host = cluster.hosts[0], cluster.balancers[0], cluster.hosts[0].name
    switch = cluster.network.switch.name
    pids = "$(ip netns pids " + one.namespace.name + ")"
    lines += [
        "",
        f"the primary       {configuration.primary_url(cluster.layout)}",
        f"Patroni           curl -s http://{one.address}:{PATRONI}/cluster",
        f"etcd              etcdctl --endpoints=http://{one.address}:2379 endpoint status",
        f"logs              {cluster.folder / 'logs'}",
    ]
    if nodes is not None and sink is not None:
        url = f"http://{front.address}:{API}"
        body = '{"from":"a@example.test","to":["b@receiver.test"],"subject":"Hi","text":"Hello"}'
        lines += [
            f"API               {url}  (or {cluster.balancers[1].address}; PostgreSQL: {PRIMARY})",
            f"key               {nodes.front.key}",
            f"what arrived      tail -f {sink.journal}",
            "",
            "send a message:",
            f"  curl -s {url}/emails -H 'Authorization: Bearer {nodes.front.key}' \\",
            f"    -H 'Content-Type: application/json' -H 'Idempotency-Key: one' -d '{body}'",
            "look at it:",
            f"  everpost nodes list --url {url} --key {nodes.front.key}",
            f"  everpost status --url {url} --key {nodes.front.key}",
        ]
    lines += [
        "break things:",
        f"  kill -STOP {pids}; kill -CONT {pids}    # pause {host}, wake it",
        f"  ip -n {switch} link set p-{host} down; ip -n {switch} link set p-{host} up    # cable",
        f"  kill -9 $(ip netns pids {front.programs.namespace.name})    # a balancer",
        "",
        "Ctrl-C takes everything down.",
    ]
    return "\n".join(lines)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _programs() -> None:
    """What `make` could not put there."""
    for program in ("ip", "nft", "etcd", "etcdctl", "haproxy", "pgbouncer"):
        assert shutil.which(program), f"{program} is missing: tests/support/requirements.py"


if __name__ == "__main__":
    _programs()
    sys.exit(main())
