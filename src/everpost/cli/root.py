"""The `everpost` command and the groups below it. A command's file is imported when it is used."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import click

from everpost.cli.exits import EPILOG

__all__ = ["COMMANDS", "Command", "Group", "main", "root"]

COMMANDS: Mapping[str, tuple[str, str]] = {
    "serve": ("serve", "Run everything on this machine."),
    "run": ("run", "Run single roles."),
    "send": ("send", "Send a message."),
    "status": ("status", "The queue, relays, alarms and dispatchers; or one message."),
    "nodes": ("nodes", "The nodes of this service."),
    "keys": ("keys", "API keys."),
    "domains": ("domains", "Sending domains and their DKIM records."),
    "relays": ("relays", "Mail servers that mail is handed to."),
    "pools": ("pools", "Pools of relays, in tiers."),
    "routes": ("routes", "Which mail goes to which pool."),
    "streams": ("streams", "Streams: weight, pool, retries."),
    "projects": ("projects", "The tenants of this server."),
    "apply": ("apply", "Make what there is what a file says."),
    "sandbox": ("sandbox", "Read mail that was captured, not sent."),
    "config": ("config", "Show, check, explain and reload the settings."),
    "db": ("db", "The store itself."),
    "verify": ("verify", "Check that nothing accepted is lost, and mend what is safe."),
    "doctor": ("doctor", "Check this machine and its network."),
    "loadtest": ("loadtest", "Find out what a server bears."),
    "sink": ("sink", "A mail server that swallows mail, for tests."),
}
"""Command: its file in this package, which holds it as `command`, and a line on what it is for."""


class Command(click.Command):
    """A command whose help ends with the exit codes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("epilog", EPILOG)
        super().__init__(*args, **kwargs)


class Group(click.Group):
    """A group of such commands."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("epilog", EPILOG)
        super().__init__(*args, **kwargs)


class _Root(Group):
    """Knows its commands by name and imports the one that is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f"everpost.cli.{COMMANDS[cmd_name][0]}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(
    cls=_Root,
    name="everpost",
    help="Everpost: an email-sending API that stays up.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="everpost", message="%(prog)s %(version)s")
def root() -> None:
    pass


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    try:
        result = root.main(args, prog_name="everpost", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("everpost: stopped", err=True)
        return 130
    return result if isinstance(result, int) else 0
