"""`everpost nodes`: who is there."""

from collections.abc import Iterable, Mapping
from typing import Any

import click

from everpost.cli.client import Api, connected, path_of
from everpost.cli.root import Group
from everpost.cli.show import Printer, moment

__all__ = ["command", "nodes_table", "store_fields"]


@click.group(cls=Group, name="nodes")
def command() -> None:
    """The nodes of this service: machines or containers that share a PostgreSQL store."""


@command.command("list")
@connected
def list_(api: Api, out: Printer) -> None:
    """List the nodes with their last sign of life. The leader does what one does for all."""
    rows = list(api.get("/nodes").get("data") or [])
    if out.as_json:
        out.json(rows)
        return
    nodes_table(out, rows)


@command.command("forget")
@click.argument("node")
@connected
def forget(api: Api, out: Printer, node: str) -> None:
    """Take NODE, which is gone for good, off the list. (One that ends as it should does so itself;
    any other is taken off after a day.)"""
    gone = api.delete(path_of("nodes", node))
    if out.as_json:
        out.json(gone)
        return
    out.line(f"Forgot node {node}.")


def nodes_table(out: Printer, rows: Iterable[Mapping[str, Any]]) -> None:
    """One line a node."""
    out.table(
        ["node", "state", "site", "version", "roles", "seen", "clock", "leads"],
        (
            [
                row.get("name"),
                row.get("state"),
                row.get("site"),
                row.get("version"),
                ", ".join(map(str, row.get("roles") or [])),
                moment(row.get("last_seen_at")),
                f"{float(row.get('clock_skew_seconds') or 0):+.3f} s",
                "yes" if row.get("leader") else "",
            ]
            for row in rows
        ),
        empty="There are no other nodes: the store is embedded.",
    )


def store_fields(status: Mapping[str, Any]) -> dict[str, object]:
    """How the store stands, of what /status answers."""
    found = status.get("store")
    store: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    return {
        "store": store.get("engine"),
        "reachable": "yes" if store.get("reachable") else "no",
        "durable": "yes" if store.get("durable") else "no",
        "timeline": store.get("timeline"),
        "standbys": store.get("standbys"),
        "problems": "; ".join(map(str, store.get("problems") or [])) or None,
    }
