"""`everpost relays`: the mail servers that mail is handed to."""

from typing import IO, Any

import click

from everpost.cli.client import Api, connected, path_of
from everpost.cli.root import Group
from everpost.cli.show import Printer, without
from everpost.model.relay import TlsPolicy

__all__ = ["command"]


@click.group(cls=Group, name="relays")
def command() -> None:
    """Mail servers that mail is handed to."""


@command.command("add")
@click.argument("url", metavar="URL")
@click.option("--name", help="Default: the host's name.")
@click.option("--username", help="In place of the one in URL.")
@click.option(
    "--password-file",
    type=click.File("r", encoding="utf-8"),
    help="File whose first line is the password; - is stdin.",
)
@click.option("--password-prompt", is_flag=True, help="Ask for the password.")
@click.option(
    "--tls",
    type=click.Choice([p.value for p in TlsPolicy]),
    help="What TLS it must have. Default: verify with smtps:// or a login across a network, none "
    "with a login on this machine, else opportunistic. require takes any certificate.",
)
@click.option("--auth", metavar="MECHANISM", help="Only log in with PLAIN, LOGIN or XOAUTH2.")
@click.option("--helo", metavar="NAME", help="Name given in EHLO to this relay.")
@click.option("--connections", type=click.IntRange(min=1), help="Most at once from one process.")
@click.option("--weight", type=click.IntRange(min=0), help="Share of the mail.")
@click.option("--site", metavar="NAME", help="The site of nodes that should prefer it.")
@click.option(
    "--signed-header",
    "signed_headers",
    multiple=True,
    metavar="NAME",
    help="DKIM signs these headers only, for a provider that rewrites others. May be repeated.",
)
@click.option(
    "--source",
    multiple=True,
    metavar="IP",
    help="Address of this machine to connect from; one IPv4 and one IPv6 at most.",
)
@click.option("--port", type=click.IntRange(1, 65535), help="mx only: the MX hosts' port, not 25.")
@click.option(
    "--destination-connections",
    type=click.IntRange(min=1),
    help="mx only: most at once to one destination from one process.",
)
@click.option(
    "--allow-private",
    is_flag=True,
    default=None,
    help="mx only: also connect to addresses that are not public.",
)
@click.option("--eight-bit", is_flag=True, default=None, help="Send 8-bit bodies where offered.")
@connected
def add(
    api: Api,
    out: Printer,
    *,
    url: str,
    password_file: IO[str] | None,
    password_prompt: bool,
    signed_headers: tuple[str, ...],
    source: tuple[str, ...],
    **own: Any,
) -> None:
    """Add the relay at URL: smtp://[USER[:PASSWORD]@]HOST[:PORT], or smtps:// for TLS from the
    first byte. The URL mx delivers straight to the MX hosts of each destination.

    A password in URL is seen by other users of this machine; --password-file and
    --password-prompt keep it from them.
    """
    body = {"url": url} | {name: value for name, value in own.items() if value is not None}
    if password_file is not None:
        body["password"] = password_file.readline().rstrip("\r\n")
    elif password_prompt:
        body["password"] = click.prompt("Password", hide_input=True, err=True)
    if signed_headers:
        body["signed_headers"] = list(signed_headers)
    if source:
        body["source"] = list(source)
    made = without(api.post("/relays", body), "password")
    if out.as_json:
        out.json(made)
        return
    out.line(f"Added relay {made.get('name') or _address(made)} ({made.get('id')}).")


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
    out.table(
        ["id", "name", "address", "tls", "user", "state"],
        (
            [
                r.get("id"),
                r.get("name"),
                _address(r),
                r.get("tls"),
                r.get("username"),
                r.get("state"),
            ]
            for r in rows
        ),
        empty="There are no relays. With no domain either, mail is captured in the sandbox.",
    )


@command.command("show")
@click.argument("relay")
@connected
def show(api: Api, out: Printer, relay: str) -> None:
    """Show RELAY (its id or name)."""
    row = api.find("/relays", relay, noun="relay")
    answer = without(api.get(path_of("relays", row["id"])), "password")
    if out.as_json:
        out.json(answer)
        return
    out.fields(answer)


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


@command.command("remove")
@click.argument("relay")
@connected
def remove(api: Api, out: Printer, relay: str) -> None:
    """Forget RELAY. Mail that waits for it goes to the others."""
    row = api.find("/relays", relay, noun="relay")
    answer = api.delete(path_of("relays", row["id"]))
    if out.as_json:
        out.json(answer)
    out.line(f"Removed relay {row['name']}.")
