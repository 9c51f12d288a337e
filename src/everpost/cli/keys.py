"""`everpost keys`: API keys. A key's secret is shown once, when it is made."""

from typing import Any

import click

from everpost.cli.client import Api, connected, path_of
from everpost.cli.domains import find_domain
from everpost.cli.root import Group
from everpost.cli.show import Printer, moment, without

__all__ = ["command"]


@click.group(cls=Group, name="keys")
def command() -> None:
    """API keys."""


@command.command("create")
@click.argument("name")
@click.option(
    "--permission",
    type=click.Choice(["full_access", "sending_access"]),
    default="full_access",
    show_default=True,
    help="What the key may do.",
)
@click.option("--domain", metavar="NAME", help="Only send from this domain.")
@click.option("--sandbox", is_flag=True, help="Capture its mail, never send it.")
@connected
def create(
    api: Api, out: Printer, *, name: str, permission: str, domain: str | None, sandbox: bool
) -> None:
    """Make a key called NAME and print it: it is not shown again."""
    body: dict[str, Any] = {"name": name, "permission": permission}
    if sandbox:
        body["sandbox"] = True
    if domain is not None:
        body["domain_id"] = find_domain(api, domain)["id"]
    made = api.post("/api-keys", body)
    if out.as_json:
        out.json(made)
        return
    out.line(str(made["token"]))
    click.echo(f"Key {made['id']}. Keep it now: it is not shown again.", err=True)


@command.command("list")
@connected
def list_(api: Api, out: Printer) -> None:
    """List keys, without their secrets."""
    rows = [without(row, "token", "secret", "hash") for row in api.rows("/api-keys")]
    if out.as_json:
        out.json(rows)
        return
    out.table(
        ["id", "name", "permission", "created"],
        (
            [r.get("id"), r.get("name"), r.get("permission"), moment(r.get("created_at"))]
            for r in rows
        ),
        empty="There are no keys.",
    )


@command.command("revoke")
@click.argument("key")
@connected
def revoke(api: Api, out: Printer, key: str) -> None:
    """Revoke KEY (its id or name) at once."""
    row = api.find("/api-keys", key, noun="key")
    answer = api.delete(path_of("api-keys", row["id"]))
    if out.as_json:
        out.json(answer)
    out.line(f"Revoked {row.get('name') or row['id']}.")
