"""`everpost run`: single roles, as the supervisor starts them or an operator does by hand."""

import os
from collections.abc import Sequence
from pathlib import Path

import click

from everpost.assembly import ROLES, run_roles
from everpost.cli.exits import Wrong
from everpost.cli.root import Command
from everpost.cli.setup import node_options, settings_of

__all__ = ["command"]


@click.command(cls=Command, name="run")
@click.argument("roles", nargs=-1, required=True, metavar="ROLE...", type=click.Choice(ROLES))
@node_options
@click.option("--inherit", multiple=True, hidden=True, metavar="NAME=FD")
@click.option("--parent-pipe", type=click.IntRange(min=0), hidden=True, metavar="FD")
@click.option("--name", hidden=True, help="Tells this process from others of its kind, in metrics.")
@click.pass_context
def command(
    ctx: click.Context,
    *,
    roles: tuple[str, ...],
    config: Path | None,
    data: Path | None,
    inherit: tuple[str, ...],
    parent_pipe: int | None,
    name: str | None,
) -> None:
    """Run the given roles (api, dispatch, upkeep) in one process, until SIGTERM ends it after the
    work in hand.

    The store is the one that `postgres.url` names, which any number of nodes may share, or the
    embedded one in --data. `everpost serve` runs all roles of a machine under a supervisor. The log
    says `role.ready` when it serves; metrics and health are at `http.admin_listen`, whatever the
    roles. EVERPOST_FIRST_API_KEY becomes the first API key of a new cluster.
    """
    settings = settings_of(config, os.environ, {"node.data": data})
    inherited = _descriptors(inherit)
    ctx.exit(run_roles(settings, list(dict.fromkeys(roles)), inherited, parent_pipe, name))


def _descriptors(given: Sequence[str]) -> dict[str, int]:
    """`NAME=FD` each: sockets that the supervisor has bound for us."""
    found: dict[str, int] = {}
    for pair in given:
        name, _, number = pair.partition("=")
        if not name or not number.isascii() or not number.isdigit():
            raise Wrong(f"--inherit {pair}: expected NAME=FD")
        found[name] = int(number)
    return found
