"""What every command has in common: help, exit codes, a quick and light start."""

import subprocess
import sys
from collections.abc import Callable, Iterator

import click
import pytest
from click.testing import Result

from everpost.cli.exits import EPILOG
from everpost.cli.root import COMMANDS, root
from everpost.cli.show import bytes_text, duration, visible

Run = Callable[..., Result]


def _commands() -> Iterator[tuple[str, ...]]:
    context = click.Context(root)
    for name in COMMANDS:
        command = root.get_command(context, name)
        yield (name,)
        if isinstance(command, click.Group):
            yield from ((name, verb) for verb in command.list_commands(context))


@pytest.mark.parametrize("path", [(), *_commands()], ids=" ".join)
def test_every_help_tells_the_exit_codes(run: Run, path: tuple[str, ...]) -> None:
    result = run(*path, "--help")
    assert result.exit_code == 0
    assert EPILOG in " ".join(result.stdout.split())


@pytest.mark.parametrize("path", list(_commands()), ids=" ".join)
def test_every_command_that_answers_can_answer_in_json(run: Run, path: tuple[str, ...]) -> None:
    without = {("serve",), ("run",), ("config", "sample"), ("db", "path")}
    command = root.get_command(click.Context(root), path[0])
    if isinstance(command, click.Group) and len(path) == 1:
        return
    assert ("--json" in run(*path, "--help").stdout) == (path not in without)


@pytest.mark.parametrize(("path", "code"), [(("nonsense",), 2), (("keys", "nonsense"), 2)])
def test_an_unknown_command_is_wrong_usage(run: Run, path: tuple[str, ...], code: int) -> None:
    assert run(*path).exit_code == code


def _loaded(arguments: str) -> set[str]:
    """The modules that are loaded once the command line `arguments` has run."""
    script = (
        "import sys; from everpost.cli import main\n"
        "import everpost.cli.run as run; run.run_roles = lambda *_: 0\n"
        f"code = main({arguments!r}.split())\n"
        "print(); print(*sys.modules, sep='\\n'); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines())


def test_a_role_carries_no_terminal_library_and_help_nothing_heavy() -> None:
    heavy = {"rich", "apsw", "dns", "cryptography", "uvicorn", "starlette", "uvloop", "asyncio"}
    assert not heavy & _loaded("--version")
    assert not {"rich", "http.client", "email"} & _loaded("run api")


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "everpost", "keys", "nonsense"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, "Usage: everpost keys" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünicode 漢字 😀", "plain ünicode 漢字 😀"),
        ("\x00\x1b\x7f\x9b\n\t", "\\x00\\x1b\\x7f\\x9b\\x0a\\x09"),
        ("\u202e\u2028\u200f\ufeff", "\\u202e\\u2028\\u200f\\ufeff"),
        ("\ud800", "\\ud800"),
        (None, ""),
        (0, "0"),
    ],
)
def test_text_of_strangers_is_shown_not_obeyed(text: object, shown: str) -> None:
    assert visible(text) == shown


def test_numbers_for_people() -> None:
    assert [duration(s) for s in (0.0004, 0.25, 1, 119, 120, 7200, 200_000)] == [
        "0 ms", "250 ms", "1 s", "119 s", "2 min", "2 h", "2 d",
    ]  # fmt: skip
    assert [bytes_text(n) for n in (0, 1023, 1536, 5 << 30, 3 << 40)] == [
        "0 B", "1023 B", "1.5 KiB", "5.0 GiB", "3.0 TiB",
    ]  # fmt: skip
