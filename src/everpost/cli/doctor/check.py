"""`everpost doctor`: gathers facts of machine and network, judges them, prints a table."""

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from everpost.assembly.naming import many_nodes, node_name
from everpost.cli.client import json_option
from everpost.cli.doctor.facts import ClusterFacts, Egress, Facts, NameFacts, ResolverFacts
from everpost.cli.doctor.finding import Finding, Verdict
from everpost.cli.doctor.judge import judge
from everpost.cli.exits import FAILED, Wrong
from everpost.cli.root import Command
from everpost.cli.setup import node_options, settings_of
from everpost.cli.show import Printer
from everpost.config import Settings

__all__ = ["command"]


@click.command(cls=Command, name="doctor")
@node_options
@click.option(
    "--probe-host",
    multiple=True,
    metavar="HOST[:PORT]",
    help="A mail server or domain (then its MX) to greet, besides the relays. May be repeated.",
)
@click.option(
    "--address",
    multiple=True,
    metavar="IP",
    help="Public address that mail leaves from, where this machine does not know it (NAT).",
)
@click.option("--offline", is_flag=True, help="Leave the network alone.")
@json_option
def command(
    *,
    config: Path | None,
    data: Path | None,
    probe_host: tuple[str, ...],
    address: tuple[str, ...],
    offline: bool,
    as_json: bool,
) -> None:
    """Check this machine and its network for what Everpost needs; the exit code is 1 if a check
    fails.

    Mail servers are only connected to and left after their greeting; nothing is sent.
    """
    settings = settings_of(config, os.environ, {"node.data": data})
    hosts = [_host(given) for given in probe_host]
    facts = _gather(settings, hosts, sources=[_ip(text) for text in address], offline=offline)
    findings = judge(facts)
    _print(Printer(as_json=as_json), findings)
    if any(finding.verdict is Verdict.FAIL for finding in findings):
        click.get_current_context().exit(FAILED)


def _print(out: Printer, findings: Sequence[Finding]) -> None:
    if out.as_json:
        out.json({"object": "list", "data": [asdict(finding) for finding in findings]})
        return
    out.table(
        ["check", "verdict", "found", "advice"],
        ([f.check, f.verdict, f.says, f.advice] for f in findings),
    )


def _gather(
    settings: Settings,
    hosts: Sequence[tuple[str, int | None]],
    *,
    sources: Sequence[str],
    offline: bool,
) -> Facts:
    from everpost.cli.doctor import machine
    from everpost.clock import SystemClock

    cluster = _cluster(settings, offline=offline)
    resolver: ResolverFacts | None = None
    name: NameFacts | None = None
    egress: tuple[Egress, ...] | None = None
    if not offline:
        resolver, name, egress = asyncio.run(_ask(settings, hosts, sources, cluster))
    return Facts(
        program=machine.program(),
        disk=machine.disk(settings.node.data, SystemClock()),
        clock=machine.clock(),
        resolver=resolver,
        name=name,
        egress=egress,
        need_bytes=settings.limits.free_bytes,
        cluster=cluster,
    )


def _cluster(settings: Settings, *, offline: bool) -> ClusterFacts | None:
    """The database is asked even where the network is not: without it there is nothing to say."""
    if not many_nodes(settings):
        return None
    from everpost.cli.doctor import database

    found = database.database(settings)
    peers = None
    if not offline:
        peers = asyncio.run(database.peers(found.nodes, but=node_name(settings)))
    return ClusterFacts(found, database.secret(settings), peers)


async def _ask(
    settings: Settings,
    hosts: Sequence[tuple[str, int | None]],
    sources: Sequence[str],
    cluster: ClusterFacts | None,
) -> tuple[ResolverFacts, NameFacts, tuple[Egress, ...]]:
    from everpost.assembly.dns import resolver_for
    from everpost.assembly.places import Places
    from everpost.cli.doctor import network
    from everpost.cli.doctor.relays import relays_in, relays_of
    from everpost.clock import SystemClock

    ask = resolver_for(settings, SystemClock())
    if cluster is not None:
        known = relays_of(cluster.database.relays)
    else:
        known = relays_in(Places(settings.node.data).store)
    found = await network.targets(ask, hosts)
    hostname = settings.node.hostname or socket.getfqdn()  # as assembly does
    return (
        await network.resolver(ask),
        await network.host_names(ask, hostname, sources or known.sources),
        await network.egress([*known.targets, *found]),
    )


def _host(given: str) -> tuple[str, int | None]:
    """Host, and port where one was given."""
    from everpost.net.listener import Endpoint

    try:
        where = Endpoint.parse(given, port=0)
    except ValueError as error:
        raise Wrong(f"--probe-host: {error}") from error
    if not where.host:
        raise Wrong(f"--probe-host {given}: expected HOST or HOST:PORT")
    return (_ip(where.host) if ":" in where.host else where.host), where.port or None


def _ip(text: str) -> str:
    import ipaddress

    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise Wrong(f"{text}: expected an IP address") from error
