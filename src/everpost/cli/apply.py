"""`everpost apply`: makes what there is what a file says."""

import os
import tomllib
from collections.abc import Mapping
from datetime import date, time
from pathlib import Path
from typing import Any

import click

from everpost.cli.client import Api, connected
from everpost.cli.exits import Wrong
from everpost.cli.root import Command
from everpost.cli.show import Printer

__all__ = ["command"]

_SIGNS = {"added": "+", "changed": "~", "removed": "-"}


@click.command(cls=Command, name="apply")
@click.option(
    "-f",
    "--file",
    "path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A TOML file with [[relays]], [[pools]], [[routes]], [[streams]], [[projects]].",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be different.")
@click.option(
    "--prune",
    is_flag=True,
    help="Remove relays, pools and routes that the file does not name; a kind that it does not "
    "mention at all stays.",
)
@connected
def command(api: Api, out: Printer, *, path: Path, dry_run: bool, prune: bool) -> None:
    """Make what there is what FILE says, all of it or nothing, and show what is different. Applied
    again, it changes nothing.

    No password stands in the file: password_file names a file (beside FILE, unless the path is
    absolute) whose first line it is, password_env a variable.
    """
    body = _read(path) | {"dry_run": dry_run, "prune": prune}
    answer = api.post("/apply", body)
    if out.as_json:
        out.json(answer)
        return
    found = [item for item in answer.get("data") or [] if isinstance(item, dict)]
    for item in found:
        _show(out, item)
    out.line(_sum(found, dry_run=dry_run))


def _read(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Wrong(f"{path}: {error}") from error
    for name in ("dry_run", "prune"):
        if name in document:
            raise Wrong(f"{path}: {name} is an option of the command, not of the file")
    relays = document.get("relays")
    if isinstance(relays, list):
        document["relays"] = [
            _with_password(relay, f"relays[{n}]", path.parent) for n, relay in enumerate(relays)
        ]
    plain: dict[str, Any] = _plain(document)
    return plain


def _with_password(relay: Any, place: str, folder: Path) -> Any:
    """The relay with the password that it refers to."""
    if not isinstance(relay, dict):
        return relay
    if "password" in relay or _has_password(str(relay.get("url", ""))):
        raise Wrong(
            f"{place}: no password in the file itself; name it by password_file or password_env"
        )
    body = dict(relay)
    file, variable = body.pop("password_file", None), body.pop("password_env", None)
    if file is not None and variable is not None:
        raise Wrong(f"{place}: password_file and password_env exclude each other")
    if file is not None:
        try:
            text = (folder / str(file)).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Wrong(f"{place}.password_file: {error}") from error
        body["password"] = text.split("\n", 1)[0].rstrip("\r")
    elif variable is not None:
        if str(variable) not in os.environ:
            raise Wrong(f"{place}.password_env: {variable} is not set")
        body["password"] = os.environ[str(variable)]
    if body.get("password") == "":
        raise Wrong(f"{place}: the password that it names is empty")
    return body


def _has_password(url: str) -> bool:
    user, at, _ = url.rpartition("@")
    return bool(at) and ":" in user.rpartition("//")[2]


def _plain(value: Any) -> Any:
    """TOML's dates as text."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.isoformat() if isinstance(value, date | time) else value


def _show(out: Printer, item: Mapping[str, Any]) -> None:
    change = str(item.get("change"))
    out.line(f"{_SIGNS.get(change, '?')} {item.get('kind')} {item.get('name')}")
    for field in item.get("fields") or []:
        was, now = _word(field.get("was")), _word(field.get("now"))
        arrow = now if change == "added" else f"{was} -> {now}"
        out.line(f"    {field.get('field')}: {arrow}")


def _word(value: Any) -> str:
    if value is None:
        return "(default)"
    if isinstance(value, list):
        return " > ".join(map(_word, value)) if any(map(_is_list, value)) else _joined(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _joined(values: list[Any]) -> str:
    return ", ".join(map(str, values))


def _sum(found: list[dict[str, Any]], *, dry_run: bool) -> str:
    if not found:
        return "Nothing is different."
    counts = {kind: sum(item.get("change") == kind for item in found) for kind in _SIGNS}
    said = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    return f"{said}{': nothing was changed yet' if dry_run else ''}."
