"""`everpost domains`: sending domains, their DKIM keys and the DNS records they need."""

from typing import Any

import click

from everpost.cli.client import Api, connected, path_of
from everpost.cli.exits import FAILED
from everpost.cli.root import Group
from everpost.cli.show import Printer, moment
from everpost.model.address import parse_domain
from everpost.model.errors import Invalid

__all__ = ["command", "find_domain"]

ALGORITHMS = {
    "both": ["rsa-sha256", "ed25519-sha256"],
    "rsa": ["rsa-sha256"],
    "ed25519": ["ed25519-sha256"],
}


def find_domain(api: Api, wanted: str) -> dict[str, Any]:
    """The domain whose id or name is `wanted`, in any spelling of the name. Raises Failed."""
    try:
        wanted = parse_domain(wanted.lower(), field="domain")
    except Invalid:
        wanted = wanted.lower()  # an id
    return api.find("/domains", wanted, noun="domain")


@click.group(cls=Group, name="domains")
def command() -> None:
    """Sending domains and their DKIM records."""


@command.command("add")
@click.argument("name")
@click.option("--trust", is_flag=True, help="Send at once, without the records being looked up.")
@click.option("--unsigned", is_flag=True, help="Do not sign this domain's mail.")
@click.option(
    "--algorithm",
    type=click.Choice(list(ALGORITHMS)),
    default="both",
    show_default=True,
    help="The DKIM keys to make.",
)
@click.option("--selector", metavar="LABEL", help="The DKIM selector to begin with.")
@connected
def add(
    api: Api,
    out: Printer,
    *,
    name: str,
    trust: bool,
    unsigned: bool,
    algorithm: str,
    selector: str | None,
) -> None:
    """Add the domain NAME, make its DKIM keys and print the DNS records to publish."""
    body: dict[str, Any] = {"name": name}
    if trust:
        body["trust"] = True
    if unsigned:
        body["signing"] = "unsigned"
    else:
        body["algorithms"] = ALGORITHMS[algorithm]
        if selector is not None:
            body["selector"] = selector
    made = api.post("/domains", body)
    if out.as_json:
        out.json(made)
        return
    out.line(f"Added {made['name']} ({made['id']}), {made.get('status')}.")
    _records(out, made)
    if made.get("records") and made.get("status") != "verified":
        out.line()
        out.line(f"When they are published: everpost domains verify {made['name']}")


def _records(out: Printer, row: dict[str, Any]) -> None:
    """Each record whole, so that it can be copied: a DKIM key is too long for a table."""
    for record in row.get("records") or []:
        status = f"  [{record['status']}]" if record.get("status") else ""
        out.line()
        out.line(f"{record.get('name')}  {record.get('type')}{status}")
        priority = f"{record['priority']} " if record.get("priority") is not None else ""
        out.line(f"  {priority}{record.get('value')}")


@command.command("list")
@connected
def list_(api: Api, out: Printer) -> None:
    """List the domains."""
    rows = list(api.rows("/domains"))
    if out.as_json:
        out.json(rows)
        return
    out.table(
        ["id", "name", "status", "signing", "created"],
        (
            [
                r.get("id"),
                r.get("name"),
                r.get("status"),
                r.get("signing"),
                moment(r.get("created_at")),
            ]
            for r in rows
        ),
        empty="There are no domains. With no relay either, mail is captured in the sandbox.",
    )


@command.command("show")
@click.argument("domain")
@connected
def show(api: Api, out: Printer, domain: str) -> None:
    """Show DOMAIN (its id or name) and its DNS records."""
    row = api.get(path_of("domains", find_domain(api, domain)["id"]))
    if out.as_json:
        out.json(row)
        return
    out.fields({name: value for name, value in row.items() if name not in {"object", "records"}})
    _records(out, row)


@command.command("verify")
@click.argument("domain")
@connected
def verify(api: Api, out: Printer, domain: str) -> None:
    """Look DOMAIN's records up in the DNS; the exit code is 0 when they are all in place."""
    id_ = find_domain(api, domain)["id"]
    row = api.post(path_of("domains", id_, "verify"))
    if out.as_json:
        out.json(row)
    else:
        out.line(f"{row.get('name')}: {row.get('status')}")
        _records(out, row)
    if row.get("status") != "verified":
        click.get_current_context().exit(FAILED)


@command.command("remove")
@click.argument("domain")
@connected
def remove(api: Api, out: Printer, domain: str) -> None:
    """Remove DOMAIN and its DKIM keys. Nothing can be sent from it any more."""
    row = find_domain(api, domain)
    answer = api.delete(path_of("domains", row["id"]))
    if out.as_json:
        out.json(answer)
    out.line(f"Removed {row['name']}.")
