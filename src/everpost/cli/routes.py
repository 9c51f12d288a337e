"""`everpost routes`: which mail goes to which pool."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from everpost.cli.changes import changes, remove
from everpost.cli.client import Api, connected, path_of
from everpost.cli.root import Group
from everpost.cli.show import Printer

__all__ = ["command"]

R = TypeVar("R")

_CONDITIONS = ("project", "stream", "sender_domain", "recipient_domain", "tag")


def _conditions(command: Callable[..., R]) -> Callable[..., R]:
    for option in reversed(
        (
            click.option("--project", metavar="ID|NAME", help="Only mail of this project."),
            click.option("--stream", metavar="NAME", help="Only mail of streams of this name."),
            click.option(
                "--sender-domain", metavar="DOMAIN", help="Only mail from it; *.DOMAIN: below it."
            ),
            click.option(
                "--recipient-domain", metavar="DOMAIN", help="Only mail to it; *.DOMAIN: below it."
            ),
            click.option("--tag", metavar="NAME[=VALUE]", help="Only mail with this tag."),
        )
    ):
        command = option(command)
    return command


@click.group(cls=Group, name="routes")
def command() -> None:
    """Routes: which mail goes to which pool. The first that fits decides."""


def _find(api: Api, wanted: str) -> dict[str, Any]:
    return api.find("/routes", wanted, noun="route", cursor="position")


def _body(**own: Any) -> dict[str, Any]:
    body = {name: value for name, value in own.items() if value is not None}
    if str(body.get("project", "")).isdecimal():
        body["project"] = int(body["project"])
    return body


def _told(out: Printer, row: dict[str, Any], done: str) -> None:
    if out.as_json:
        out.json(row)
        return
    out.line(f"{done} route {row.get('name')}, at position {row.get('position')}.")


@command.command("add")
@click.argument("name")
@click.option("--pool", required=True, metavar="ID|NAME", help="Where its mail goes.")
@click.option("--position", type=click.IntRange(min=1), help="Default: the end.")
@_conditions
@connected
def add(api: Api, out: Printer, **given: Any) -> None:
    """Make the route NAME. It fits mail that fits in all that is said here."""
    _told(out, api.post("/routes", _body(**given)), "Made")


@command.command("list")
@connected
def list_(api: Api, out: Printer) -> None:
    """List the routes, in the order in which they are tried."""
    rows = list(api.rows("/routes", cursor="position"))
    if out.as_json:
        out.json(rows)
        return
    out.table(
        ["position", "name", "fits", "pool"],
        ([r.get("position"), r.get("name"), _fits(r), r.get("pool")] for r in rows),
        empty="There are no routes: mail goes to its stream's pool, else to default.",
    )


def _fits(row: dict[str, Any]) -> str:
    said = [f"{name} {row[name]}" for name in _CONDITIONS if row.get(name) is not None]
    return ", ".join(said) or "all mail"


@command.command("show")
@click.argument("route")
@connected
def show(api: Api, out: Printer, route: str) -> None:
    """Show ROUTE (its id or name)."""
    answer = api.get(path_of("routes", _find(api, route)["id"]))
    if out.as_json:
        out.json(answer)
        return
    out.fields(answer)


@command.command("set")
@click.argument("route")
@click.option("--name", help="Another name.")
@click.option("--pool", metavar="ID|NAME", help="Where its mail goes.")
@_conditions
@click.option(
    "--any",
    "anything",
    multiple=True,
    type=click.Choice([name.replace("_", "-") for name in _CONDITIONS]),
    help="Take this condition away. May be repeated.",
)
@connected
def set_(api: Api, out: Printer, *, route: str, anything: tuple[str, ...], **given: Any) -> None:
    """Change ROUTE (its id or name)."""
    body = changes(_body(**given), unset=anything, clash="taken away")
    _told(out, api.patch(path_of("routes", _find(api, route)["id"]), body), "Changed")


@command.command("move")
@click.argument("route")
@click.option("--to", "position", type=click.IntRange(min=1), required=True, help="From 1.")
@connected
def move(api: Api, out: Printer, *, route: str, position: int) -> None:
    """Give ROUTE (its id or name) another place in the list."""
    id_ = _find(api, route)["id"]
    _told(out, api.patch(path_of("routes", id_), {"position": position}), "Moved")


@command.command("remove")
@click.argument("route")
@connected
def remove_(api: Api, out: Printer, route: str) -> None:
    """Forget ROUTE. Its mail goes by the next that fits."""
    remove(api, out, _find(api, route), noun="route")


@command.command("explain")
@click.option("--from", "sender", required=True, metavar="ADDRESS", help="The mail's sender.")
@click.option("--to", required=True, metavar="ADDRESS", help="One of its recipients.")
@click.option("--project", metavar="ID|NAME", help="Default: the caller's.")
@click.option("--stream", metavar="NAME", help="Default: transactional.")
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="May be repeated.")
@connected
def explain(api: Api, out: Printer, *, sender: str, tags: tuple[str, ...], **given: Any) -> None:
    """Say which pool a mail would go to now, and why. Nothing is sent."""
    body = {"from": sender, **_body(**given)}
    if tags:
        pairs = (tag.partition("=") for tag in tags)
        body["tags"] = [{"name": name, "value": value} for name, _, value in pairs]
    found = api.post("/routes/explain", body)
    if out.as_json:
        out.json(found)
        return
    why = {"route": f"route {found.get('route')}", "stream": "its stream's own pool"}
    out.fields(
        {
            "pool": found.get("pool"),
            "because": why.get(str(found.get("because")), "no route fits"),
            "relays": " > ".join(", ".join(map(str, tier)) for tier in found.get("tiers") or [])
            or "none: its mail waits",
        }
    )
