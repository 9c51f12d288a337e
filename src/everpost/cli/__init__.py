"""The command line: noun, then verb; a file a command.

Promises: human tables by default and `--json` everywhere; exit codes as `cli.exits` documents;
remote text never reaches the terminal raw; a secret is printed once, when it is made. Commands that
manage go through the API, over `--url` and `--key` or the local operator's socket; only `db` and
`doctor` may open the store. No policy lives here, and nothing heavy is imported before a command
needs it: `everpost --help` stays quick and `everpost run` carries no terminal library.
"""

from everpost.cli.root import main

__all__ = ["main"]
