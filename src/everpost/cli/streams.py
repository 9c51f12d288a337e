"""`everpost streams`: a project's streams, their weight, pool and policies."""

from typing import Any

import click

from everpost.cli.changes import changes
from everpost.cli.client import Api, connected, path_of
from everpost.cli.root import Group
from everpost.cli.show import Printer, duration

__all__ = ["command"]


@click.group(cls=Group, name="streams")
def command() -> None:
    """Streams: how their mail is weighed, tried again, and where it goes."""


@command.command("list")
@connected
def list_(api: Api, out: Printer) -> None:
    """List the project's streams."""
    rows = list(api.get("/streams").get("data") or [])
    if out.as_json:
        out.json(rows)
        return
    out.table(
        ["name", "priority", "weight", "pool", "first retry", "then at most", "lifetime",
         "in doubt", "durability"],
        (
            [r.get("name"), r.get("priority"), r.get("weight"), r.get("pool"),
             *(duration(float(r.get(n) or 0)) for n in ("retry_first", "retry_cap", "lifetime")),
             r.get("in_doubt"), r.get("durability")]
            for r in rows
        ),
        empty="There are no streams.",
    )  # fmt: skip


@command.command("set")
@click.argument("stream")
@click.option("--weight", type=click.IntRange(min=1), help="Share of the queue. Default: 1.")
@click.option("--pool", metavar="ID|NAME", help="Where its mail goes if no route fits.")
@click.option("--no-pool", is_flag=True, help="Its mail goes to default if no route fits.")
@click.option("--retry-first", type=int, metavar="SECONDS", help="Until the second attempt.")
@click.option("--retry-cap", type=int, metavar="SECONDS", help="Most between two attempts.")
@click.option("--lifetime", type=int, metavar="SECONDS", help="For which a message is tried.")
@click.option(
    "--in-doubt",
    type=click.Choice(["resend", "hold", "fail"]),
    help="What follows an attempt that may have delivered.",
)
@click.option(
    "--durability",
    type=click.Choice(["replicated", "committed"]),
    help="The least that accepting its mail must mean.",
)
@click.option("--no-durability", is_flag=True, help="It demands nothing.")
@connected
def set_(
    api: Api, out: Printer, *, stream: str, no_pool: bool, no_durability: bool, **given: Any
) -> None:
    """Change STREAM (its name)."""
    said = {name: value for name, value in given.items() if value is not None}
    taken = {"pool": no_pool, "durability": no_durability}
    unset = [name for name, away in taken.items() if away]
    body = changes(said, unset=unset, clash="taken away")
    changed = api.patch(path_of("streams", stream), body)
    if out.as_json:
        out.json(changed)
        return
    out.line(f"Changed stream {changed.get('name')}.")
