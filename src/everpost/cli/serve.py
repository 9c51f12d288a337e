"""`everpost serve`: the supervisor and its processes on this machine."""

import os
from pathlib import Path

import click

from everpost.assembly import serve
from everpost.cli.exits import EPILOG
from everpost.cli.root import Command
from everpost.cli.setup import node_options, settings_of
from everpost.config import Origin

__all__ = ["command"]


@click.command(
    cls=Command, name="serve", epilog=f"{EPILOG} 4 a server has this data directory already."
)
@node_options
@click.option("--listen", metavar="HOST:PORT", help="Where the API listens.")
@click.option(
    "--admin-listen", metavar="HOST:PORT", help="Where metrics are served; empty: nowhere."
)
@click.option(
    "--durability",
    type=click.Choice(["committed", "relaxed"]),
    help="What an answer of success means.",
)
@click.option("--processes", type=int, metavar="N", help="Dispatch processes; 0: one a core.")
@click.pass_context
def command(
    ctx: click.Context,
    *,
    config: Path | None,
    data: Path | None,
    listen: str | None,
    admin_listen: str | None,
    durability: str | None,
    processes: int | None,
) -> None:
    """Run everything on this machine: with the embedded store in --data, or as one node of many
    where `postgres.url` is set.

    The first start makes an API key and prints it once; EVERPOST_FIRST_API_KEY sets it instead.
    Options win over the environment (EVERPOST_SECTION_SETTING), that over the configuration file.

    SIGTERM ends it after the work in hand; SIGHUP reads the configuration again, as `everpost
    config reload` does.
    """
    options: dict[str, str | int | None] = {
        "node.data": None if data is None else str(data.absolute()),
        "http.listen": listen,
        "http.admin_listen": admin_listen,
        "store.durability": durability,
        "node.processes": processes,
    }
    settings = settings_of(config, os.environ, options)
    given = {name: value for name, value in options.items() if value is not None}
    ctx.exit(serve(settings, Origin(None if config is None else config.absolute(), given)))
