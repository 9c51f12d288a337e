"""`everpost projects`: the tenants of this server, and their weight."""

from typing import Any

import click

from everpost.cli.changes import changes
from everpost.cli.client import Api, connected, path_of
from everpost.cli.exits import Failed
from everpost.cli.root import Group
from everpost.cli.show import Printer, moment

__all__ = ["command"]


@click.group(cls=Group, name="projects")
def command() -> None:
    """Projects: the tenants of this server."""


@command.command("list")
@connected
def list_(api: Api, out: Printer) -> None:
    """List the projects."""
    rows = list(api.get("/projects").get("data") or [])
    if out.as_json:
        out.json(rows)
        return
    out.table(
        ["id", "name", "weight", "sandbox", "durability", "created"],
        (
            [r.get("id"), r.get("name"), r.get("weight"), "yes" if r.get("sandbox") else "no",
             r.get("durability"), moment(r.get("created_at"))]
            for r in rows
        ),
    )  # fmt: skip


@command.command("set")
@click.argument("project")
@click.option(
    "--weight",
    type=click.IntRange(min=1),
    help="Share of the queue beside other projects.",
)
@click.option(
    "--durability",
    type=click.Choice(["replicated", "committed"]),
    help="The least that accepting its mail must mean.",
)
@click.option("--no-durability", is_flag=True, help="It demands nothing.")
@connected
def set_(api: Api, out: Printer, *, project: str, no_durability: bool, **given: Any) -> None:
    """Change PROJECT (its id or name)."""
    said = {name: value for name, value in given.items() if value is not None}
    body = changes(said, unset=["durability"] if no_durability else (), clash="taken away")
    for row in api.get("/projects").get("data") or []:
        if project in (str(row.get("id")), row.get("name")):
            break
    else:
        raise Failed(f"there is no project {project}")
    changed = api.patch(path_of("projects", str(row["id"])), body)
    if out.as_json:
        out.json(changed)
        return
    out.line(f"Changed project {changed.get('name')}.")
