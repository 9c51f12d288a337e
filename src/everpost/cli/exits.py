"""How a command ends: the exit codes, and the errors that lead to them."""

import json
from typing import IO, Any

import click

__all__ = ["EPILOG", "FAILED", "OK", "UNREACHABLE", "USAGE", "Failed", "NotReached", "Wrong"]

OK = 0
FAILED = 1
USAGE = 2
UNREACHABLE = 3

EPILOG = (
    "Exit codes: 0 done; 1 refused or failed; 2 wrong usage or configuration; "
    "3 no server could be reached; 130 interrupted."
)


class Failed(click.ClickException):
    """Refused, or gone wrong: exit code 1. `as_json` set: shown as JSON, still on stderr."""

    exit_code = FAILED
    as_json = False

    def show(self, file: IO[Any] | None = None) -> None:
        from everpost.cli.show import visible

        if self.as_json:
            told = {"error": self.message, "exit_code": self.exit_code}
            click.echo(json.dumps(told, ensure_ascii=True), file=file, err=file is None)
            return
        for line in self.message.splitlines():
            click.echo(f"everpost: {visible(line)}", file=file, err=file is None)


class Wrong(Failed):
    """Wrong usage or configuration: exit code 2."""

    exit_code = USAGE


class NotReached(Failed):
    """No server answered: exit code 3. `advice` says what to do."""

    exit_code = UNREACHABLE
