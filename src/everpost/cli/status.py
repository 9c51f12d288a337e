"""`everpost status`: the node at a glance, or one message with every attempt."""

import time
from collections.abc import Mapping
from typing import Any

import click

from everpost.cli.client import Api, connected, path_of
from everpost.cli.message import attempts_table, recipients_table
from everpost.cli.nodes import nodes_table, store_fields
from everpost.cli.root import Command
from everpost.cli.show import Printer, duration, moment, without

__all__ = ["command"]


@click.command(cls=Command, name="status")
@click.argument("message", required=False, metavar="[MESSAGE_ID]")
@click.option("--watch", is_flag=True, help="Look again every two seconds, until interrupted.")
@connected
def command(api: Api, out: Printer, *, message: str | None, watch: bool) -> None:
    """Show the queue, relays, alarms, nodes and dispatchers (the processes that deliver mail); or
    one message, its recipients and every attempt with the mail server's own answer."""
    while True:
        if watch and not out.as_json:
            click.clear()
        if message is None:
            _node(api, out)
        else:
            _message(api, out, message)
        if not watch:
            return
        time.sleep(2)


def _message(api: Api, out: Printer, id_: str) -> None:
    email = api.get(path_of("emails", id_))
    rows = list(api.get(path_of("emails", id_, "recipients")).get("data") or [])
    if out.as_json:
        out.json({**email, "recipients": rows})
        return
    out.fields(
        {
            "id": email.get("id"),
            "from": email.get("from"),
            "subject": email.get("subject"),
            "created": moment(email.get("created_at")),
            "scheduled": moment(email.get("scheduled_at")),
            "status": email.get("status") or email.get("last_event"),
        }
    )
    out.line()
    recipients_table(out, rows)
    out.line()
    attempts_table(out, rows)


def _node(api: Api, out: Printer) -> None:
    status = api.get("/status")
    relays = [without(row, "password") for row in api.rows("/relays")]
    if out.as_json:
        out.json({**status, "relays": relays})
        return
    states = status.get("states")
    oldest = status.get("oldest_due_seconds")
    out.fields(
        {
            "ready": "yes" if status.get("ready") else "no",
            "durability": status.get("durability"),
            "accepted": status.get("accepted"),
            "due now": status.get("due"),
            "oldest due": duration(float(oldest)) if oldest else None,
            "alarms": ", ".join(map(str, status.get("alarms") or [])) or "none",
        }
    )
    out.line()
    out.table(
        ["state", "recipients"],
        states.items() if isinstance(states, Mapping) else (),
        empty="Nothing was accepted yet.",
    )
    out.line()
    out.table(
        ["relay", "host", "port", "state"],
        ([r.get("name"), r.get("host"), r.get("port"), r.get("state")] for r in relays),
        empty="There are no relays.",
    )
    if nodes := list(status.get("nodes") or []):
        out.line()
        out.fields(store_fields(status))
        out.line()
        nodes_table(out, nodes)
    out.line()
    out.table(
        ["dispatcher", "since"],
        (
            [_process(each), moment(each.get("started_at"))]
            for each in status.get("dispatchers") or []
        ),
        empty="No dispatcher is running: mail waits.",
    )


def _process(dispatcher: Mapping[str, Any]) -> str:
    node = dispatcher.get("node")
    return f"pid {dispatcher.get('pid')}" + (f" on {node}" if node else "")
