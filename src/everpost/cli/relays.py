"""`everpost relays`: the mail servers that mail is handed to."""

import time
from typing import Any

import click

from everpost.cli.changes import changes, remove
from everpost.cli.client import Api, connected, path_of
from everpost.cli.relay_options import FIELDS, body_of, relay_options
from everpost.cli.relay_test import try_relay
from everpost.cli.root import Group
from everpost.cli.show import Printer, without
from everpost.cli.standing import details, standing_table

__all__ = ["command"]


@click.group(cls=Group, name="relays")
def command() -> None:
    """Mail servers that mail is handed to."""


@command.command("add")
@click.argument("url", metavar="URL")
@relay_options
@connected
def add(api: Api, out: Printer, *, url: str, **given: Any) -> None:
    """Add the relay at URL: smtp://[USER[:PASSWORD]@]HOST[:PORT], or smtps:// for TLS from the
    first byte. The URL mx delivers straight to the MX hosts of each destination.

    A password in URL is seen by other users of this machine; --password-file and
    --password-prompt keep it from them.
    """
    made = without(api.post("/relays", {"url": url, **body_of(**given)}), "password")
    if out.as_json:
        out.json(made)
        return
    out.line(f"Added relay {made.get('name') or _address(made)} ({made.get('id')}).")


@command.command("set")
@click.argument("relay")
@click.option(
    "--address",
    metavar="URL",
    help="Another URL. A password is to be given again for another host or user.",
)
@relay_options
@click.option(
    "--default",
    "defaults",
    multiple=True,
    type=click.Choice([field.replace("_", "-") for field in FIELDS]),
    help="Give this setting its default again. May be repeated.",
)
@connected
def set_(
    api: Api,
    out: Printer,
    *,
    relay: str,
    address: str | None,
    defaults: tuple[str, ...],
    **given: Any,
) -> None:
    """Change RELAY's settings (its id or name). They take effect within two seconds."""
    body = body_of(**given)
    if address is not None:
        body["url"] = address
    body = changes(body, unset=defaults, clash="its default")
    row = api.find("/relays", relay, noun="relay")
    changed = without(api.patch(path_of("relays", row["id"]), body), "password")
    if out.as_json:
        out.json(changed)
        return
    out.line(f"Changed relay {changed.get('name')}.")


def _address(row: dict[str, Any]) -> str:
    if row.get("kind") == "mx":
        return "mx" if row.get("port") == 25 else f"mx, port {row.get('port')}"
    host = str(row.get("host", ""))
    host = f"[{host}]" if ":" in host else host
    return f"{'smtps' if row.get('implicit_tls') else 'smtp'}://{host}:{row.get('port')}"


@command.command("list")
@connected
def list_(api: Api, out: Printer) -> None:
    """List the relays."""
    rows = [without(row, "password") for row in api.rows("/relays")]
    if out.as_json:
        out.json(rows)
        return
    names = ("id", "name", "tls", "username", "weight", "state")
    out.table(
        ["id", "name", "address", "tls", "user", "weight", "state"],
        ([row.get(n) for n in names[:2]] + [_address(row)] + [row.get(n) for n in names[2:]]
         for row in rows),
        empty="There are no relays. With no domain either, mail is captured in the sandbox.",
    )  # fmt: skip


@command.command("show")
@click.argument("relay")
@connected
def show(api: Api, out: Printer, relay: str) -> None:
    """Show RELAY (its id or name): its settings, and how it does."""
    row = api.find("/relays", relay, noun="relay")
    answer = without(api.get(path_of("relays", row["id"])), "password")
    if out.as_json:
        out.json(answer)
        return
    status = answer.pop("status", None)
    out.fields(answer)
    if isinstance(status, dict):
        out.line()
        details(out, status)


@command.command("status")
@click.argument("relay", required=False)
@click.option("--watch", is_flag=True, help="Look again every two seconds, until interrupted.")
@connected
def status(api: Api, out: Printer, *, relay: str | None, watch: bool) -> None:
    """Show how the relays do, or RELAY (its id or name) alone and in detail: its circuit and why,
    success, latency, share of the mail, connections, probes, cool-downs."""
    while True:
        rows = list(api.get("/relays/status").get("data") or [])
        if relay is not None:
            rows = [row for row in rows if relay in (row.get("id"), row.get("name"))]
            if not rows:
                api.find("/relays", relay, noun="relay")
        if watch and not out.as_json:
            click.clear()
        if out.as_json:
            (out.json_line if watch else out.json)(rows)
        elif relay is not None:
            for row in rows:
                details(out, row)
        else:
            standing_table(out, rows)
        if not watch:
            return
        time.sleep(2)


def _move(api: Api, out: Printer, relay: str, *, state: str, said: str) -> None:
    row = api.find("/relays", relay, noun="relay")
    answer = without(api.patch(path_of("relays", row["id"]), {"state": state}), "password")
    if out.as_json:
        out.json(answer)
    out.line(f"Relay {row['name']} {said}.")


@command.command("enable")
@click.argument("relay")
@connected
def enable(api: Api, out: Printer, relay: str) -> None:
    """Hand mail to RELAY again."""
    _move(api, out, relay, state="enabled", said="is enabled")


@command.command("disable")
@click.argument("relay")
@connected
def disable(api: Api, out: Printer, relay: str) -> None:
    """Hand no more mail to RELAY, from now on."""
    _move(api, out, relay, state="disabled", said="is disabled")


@command.command("drain")
@click.argument("relay")
@connected
def drain(api: Api, out: Printer, relay: str) -> None:
    """Let RELAY finish what it has in hand, and give it nothing new."""
    _move(api, out, relay, state="draining", said="is draining")


@command.command("undrain")
@click.argument("relay")
@connected
def undrain(api: Api, out: Printer, relay: str) -> None:
    """Hand mail to RELAY again after a drain."""
    _move(api, out, relay, state="enabled", said="is enabled")


@command.command("test")
@click.argument("relay")
@click.option("--to", required=True, metavar="ADDRESS", help="Who gets the message.")
@click.option(
    "--from",
    "sender",
    metavar="ADDRESS",
    help="The sender. Default: postmaster at the first verified domain.",
)
@click.option(
    "--wait-s",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Wait at most so many seconds for the attempt.",
)
@click.option("--poll-s", type=click.FloatRange(min=0.001), default=0.25, hidden=True)
@connected
def test(
    api: Api, out: Printer, *, relay: str, to: str, sender: str | None, wait_s: float, poll_s: float
) -> None:
    """Send one real message through RELAY (its id or name) alone, whatever its state, and show what
    the mail server said.

    The exit code is 0 only when the message was delivered.
    """
    row = api.find("/relays", relay, noun="relay")
    body = {"to": to} if sender is None else {"to": to, "from": sender}
    made = api.post(path_of("relays", row["id"], "test"), body)
    try_relay(api, out, str(made["id"]), deadline_s=wait_s, poll_s=poll_s)


@command.command("remove")
@click.argument("relay")
@connected
def remove_(api: Api, out: Printer, relay: str) -> None:
    """Forget RELAY. Mail that waits for it goes to the others."""
    remove(api, out, api.find("/relays", relay, noun="relay"), noun="relay")
