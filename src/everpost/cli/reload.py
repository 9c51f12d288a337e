"""`everpost config reload`: the running server reads its configuration again."""

import os
import time
from pathlib import Path

import click

from everpost.assembly.reload import Server
from everpost.cli.client import json_option
from everpost.cli.exits import Failed, NotReached, Wrong
from everpost.cli.root import Command
from everpost.cli.show import Printer
from everpost.config import ConfigError, Settings, trace
from everpost.recovery.children import Reload, ReloadState

__all__ = ["command"]

_LOOK_S = 0.1


@click.command(cls=Command, name="reload")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="The server's data directory. Default: EVERPOST_NODE_DATA, then the file, then ./data.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the outcome.",
)
@json_option
def command(data: Path | None, *, timeout: float, as_json: bool) -> None:
    """Make the running server read its configuration again, without a request refused.

    A configuration with an error changes nothing. Each process is replaced once another serves in
    its place; where one does not start, the old configuration is in force again.
    """
    server = Server(data or _data())
    if server.pid is None:
        raise NotReached(f"No server runs on {data or _data()}.")
    try:
        outcome = _reload(server, timeout)
    except ConfigError as error:
        raise Wrong(f"{error}\nNothing was changed.") from error
    except OSError as error:
        raise Failed(f"Process {server.pid} cannot be told: {error}.") from error
    if outcome is None:
        raise Failed(
            f"The server has not finished within {timeout:g} s; `everpost status` shows on."
        )
    if outcome.state is ReloadState.REFUSED:
        raise Wrong("\n".join((*outcome.why, "Nothing was changed.")))
    if outcome.state is ReloadState.FAILED:
        raise Failed("\n".join((*outcome.why, "The old configuration is in force.")))
    out = Printer(as_json=as_json)
    if as_json:
        out.json({"ok": True, "number": outcome.number})
    else:
        out.line("Applied: every process runs with it.")


def _reload(server: Server, timeout: float) -> Reload | None:
    facts = server.facts()
    if facts is None:
        raise Failed("The server is starting; try again.")
    server.judge(facts)
    server.reload()
    deadline = time.monotonic() + timeout
    while (outcome := server.outcome(after=facts.reload.number)) is None:
        if time.monotonic() > deadline:
            return None
        time.sleep(_LOOK_S)
    return outcome


def _data() -> Path:
    try:
        return trace(None, os.environ, {}).settings.node.data
    except ConfigError:
        return Path(os.environ.get("EVERPOST_NODE_DATA") or Settings().node.data)
