"""`everpost pools`: relays in tiers that carry the same mail."""

from typing import Any

import click

from everpost.cli.changes import changes, remove
from everpost.cli.client import Api, connected, path_of
from everpost.cli.exits import Wrong
from everpost.cli.root import Group
from everpost.cli.show import Printer, without

__all__ = ["command"]

_TIER = click.option(
    "--tier",
    "tiers",
    multiple=True,
    metavar="RELAY,RELAY…",
    help="Relays by name or id. The first tier carries the mail, the next one helps.",
)
_SPILL = click.option(
    "--spill-below",
    type=click.FloatRange(0, 1),
    help="The next tier helps while less than this share of a tier is healthy. Default: 0.5.",
)
_FLOOR = click.option(
    "--floor",
    type=click.IntRange(min=0),
    help="So many stay in service however poor they look beside others. Default: 1.",
)


@click.group(cls=Group, name="pools")
def command() -> None:
    """Pools of relays, in tiers."""


def _body(*, tiers: tuple[str, ...], **own: Any) -> dict[str, Any]:
    body = {name: value for name, value in own.items() if value is not None}
    if tiers:
        body["tiers"] = [[name.strip() for name in tier.split(",")] for tier in tiers]
    return body


@command.command("add")
@click.argument("name")
@_TIER
@_SPILL
@_FLOOR
@connected
def add(api: Api, out: Printer, *, name: str, **given: Any) -> None:
    """Make the pool NAME. One named default takes what no route and no stream sends elsewhere;
    until there is one, a pool of that name holds every relay."""
    body = _body(**given)
    if "tiers" not in body:
        raise Wrong("give it at least one --tier")
    made = api.post("/pools", {"name": name, **body})
    if out.as_json:
        out.json(made)
        return
    out.line(f"Made pool {made.get('name')} ({made.get('id')}).")


@command.command("list")
@connected
def list_(api: Api, out: Printer) -> None:
    """List the pools."""
    rows = list(api.rows("/pools"))
    if out.as_json:
        out.json(rows)
        return
    out.table(
        ["id", "name", "tiers", "spill below", "floor"],
        (
            [r.get("id"), r.get("name"), _tiers(r), r.get("spill_below"), r.get("floor")]
            for r in rows
        ),
        empty="There are no pools: all relays are in one, named default.",
    )


def _tiers(row: dict[str, Any]) -> str:
    return " > ".join(", ".join(map(str, tier)) for tier in row.get("tiers") or [])


@command.command("show")
@click.argument("pool")
@connected
def show(api: Api, out: Printer, pool: str) -> None:
    """Show POOL (its id or name)."""
    row = api.find("/pools", pool, noun="pool")
    answer = api.get(path_of("pools", row["id"]))
    if out.as_json:
        out.json(answer)
        return
    out.fields({**without(answer, "object"), "tiers": _tiers(answer)})


@command.command("set")
@click.argument("pool")
@click.option("--name", help="Another name; routes and streams follow.")
@_TIER
@_SPILL
@_FLOOR
@connected
def set_(api: Api, out: Printer, *, pool: str, **given: Any) -> None:
    """Change POOL (its id or name). With --tier all tiers are given anew."""
    body = changes(_body(**given))
    row = api.find("/pools", pool, noun="pool")
    changed = api.patch(path_of("pools", row["id"]), body)
    if out.as_json:
        out.json(changed)
        return
    out.line(f"Changed pool {changed.get('name')}.")


@command.command("remove")
@click.argument("pool")
@connected
def remove_(api: Api, out: Printer, pool: str) -> None:
    """Forget POOL; its relays stay."""
    remove(api, out, api.find("/pools", pool, noun="pool"), noun="pool")
