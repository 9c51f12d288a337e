"""What commands that change or remove things have in common."""

from collections.abc import Iterable, Mapping
from typing import Any

from everpost.cli.client import Api, path_of
from everpost.cli.exits import Wrong
from everpost.cli.show import Printer

__all__ = ["changes", "remove"]


def changes(
    given: Mapping[str, Any], *, unset: Iterable[str] = (), clash: str = ""
) -> dict[str, Any]:
    """The body of a PATCH: the fields that are `given`, null for those that are `unset` (words of
    options). Raises Wrong where there is nothing, or where one is both: `clash` says what that is.
    """
    cleared = dict.fromkeys(name.replace("-", "_") for name in unset)
    for name in sorted(cleared.keys() & given.keys()):
        raise Wrong(f"{name} is given a value and {clash}")
    body = {**given, **cleared}
    if not body:
        raise Wrong("say what to change")
    return body


def remove(api: Api, out: Printer, row: Mapping[str, Any], *, noun: str) -> None:
    """Remove a row of the list of these nouns, and say so."""
    answer = api.delete(path_of(f"{noun}s", row["id"]))
    if out.as_json:
        out.json(answer)
    out.line(f"Removed {noun} {row['name']}.")
