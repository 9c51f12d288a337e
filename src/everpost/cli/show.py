"""What commands print: tables for people, JSON for programs. Remote text is made harmless here."""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import click

__all__ = ["Printer", "bytes_text", "duration", "moment", "visible", "without"]

_HARMFUL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
"""Controls (C0, C1), line separators, and marks that turn the direction of what is read."""


def visible(text: object) -> str:
    r"""Text of a stranger for a terminal: control characters as `\x1b`, others as `\u202e`."""
    return _HARMFUL.sub(_escape, "" if text is None else str(text))


def _escape(match: "re.Match[str]") -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def without(row: Mapping[str, Any], *secret: str) -> dict[str, Any]:
    """Belt and braces: a row without fields that are never printed, whatever the server sends."""
    return {name: value for name, value in row.items() if name not in secret}


def moment(value: object) -> str:
    """A time of the API (ISO 8601, always UTC) to the second; other values as text."""
    text = str(value or "")
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%SZ")
    except ValueError:
        return text


def duration(seconds: float) -> str:
    """`850 ms`, `12 s`, `3 min`, `5 h`, `2 d`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def bytes_text(count: float) -> str:
    """`512 B`, `3.4 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


class Printer:
    """Prints one command's result to standard output: as JSON, or for people."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def json(self, value: object) -> None:
        """One JSON document, ASCII only, so that nothing in it reaches the terminal raw."""
        click.echo(json.dumps(value, indent=2, ensure_ascii=True, default=str))

    def json_line(self, value: object) -> None:
        """One JSON document on a line of its own, for output that goes on."""
        click.echo(json.dumps(value, ensure_ascii=True, default=str))

    def line(self, text: str = "") -> None:
        """A line for people; silent with `--json`."""
        if not self.as_json:
            click.echo(visible(text))

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = ""
    ) -> None:
        """A table. Cells that are None stay empty; `empty` is printed when there are no rows."""
        cells = [[visible(cell) for cell in row] for row in rows]
        if not cells and empty:
            self.line(empty)
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
        for column in columns:
            table.add_column(Text(column), overflow="fold")
        for row in cells:
            table.add_row(*(Text(cell) for cell in row))
        # What is no terminal has no width: a column is never cut for a pipe.
        width = None if sys.stdout.isatty() else 10_000
        console = Console(file=sys.stdout, markup=False, highlight=False, emoji=False, width=width)
        for line in _lines(console, table):
            click.echo(line)

    def fields(self, pairs: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
        """Names and values below each other, names aligned; empty values are left out."""
        items = list(pairs.items()) if isinstance(pairs, Mapping) else list(pairs)
        shown = [(name, visible(value)) for name, value in items if value not in (None, "", [], {})]
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            click.echo(f"{name:<{width}}  {value}")


def _lines(console: Any, renderable: Any) -> Iterable[str]:
    """What rich would print, without the blanks that it pads lines with."""
    with console.capture() as capture:
        console.print(renderable)
    return [line.rstrip() for line in capture.get().splitlines()]
