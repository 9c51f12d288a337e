"""`everpost projects`: the tenants of this server, and their weight."""

import click

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
        ["id", "name", "weight", "sandbox", "created"],
        (
            [r.get("id"), r.get("name"), r.get("weight"), "yes" if r.get("sandbox") else "no",
             moment(r.get("created_at"))]
            for r in rows
        ),
    )  # fmt: skip


@command.command("set")
@click.argument("project")
@click.option(
    "--weight",
    type=click.IntRange(min=1),
    required=True,
    help="Share of the queue beside other projects.",
)
@connected
def set_(api: Api, out: Printer, *, project: str, weight: int) -> None:
    """Change PROJECT (its id or name)."""
    for row in api.get("/projects").get("data") or []:
        if project in (str(row.get("id")), row.get("name")):
            break
    else:
        raise Failed(f"there is no project {project}")
    changed = api.patch(path_of("projects", str(row["id"])), {"weight": weight})
    if out.as_json:
        out.json(changed)
        return
    out.line(f"Changed project {changed.get('name')}.")
