"""Reading rows whose text the disk has changed: what is not UTF-8 any more is shown with U+FFFD
in its place, and the alarm `row_corrupt` is raised. Only for showing; nothing is sent by it."""

from collections.abc import Sequence
from typing import Any

import apsw
import apsw.ext

from everpost import telemetry
from everpost.store.queries import Rows
from everpost.store.sqlite.work import fetch_all, fetch_rows

__all__ = ["show_all", "show_rows"]


def show_all(
    db: apsw.Connection, query: str, values: "apsw.Bindings | None" = None
) -> list[tuple[Any, ...]]:
    """As `fetch_all`, damaged text included."""
    try:
        return fetch_all(db, query, values)
    except UnicodeDecodeError as error:
        _alarm(error)
        return [_as_text(row) for row in fetch_all(db, _as_bytes(db, query), values)]


def show_rows(db: apsw.Connection, query: Rows, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    """As `fetch_rows`, damaged text included."""
    try:
        return fetch_rows(db, query, values)
    except UnicodeDecodeError as error:
        _alarm(error)
        width, one = query.width, _as_bytes(db, query.text(1))
        return [
            _as_text(row)
            for at in range(0, len(values), width)
            for row in fetch_all(db, one, tuple(values[at : at + width]))
        ]


def _alarm(error: Exception) -> None:
    telemetry.alarm("row_corrupt").raise_(error=str(error))


def _as_bytes(db: apsw.Connection, query: str) -> str:
    """The query with each column as its type and its value, text as bytes."""
    columns = range(len(apsw.ext.query_info(db, query).description))
    names = ", ".join(f"c{n}" for n in columns)
    shown = ", ".join(
        f"typeof(c{n}), iif(typeof(c{n}) = 'text', CAST(c{n} AS BLOB), c{n})" for n in columns
    )
    return f"WITH shown ({names}) AS ({query}) SELECT {shown} FROM shown"


def _as_text(row: Sequence[Any]) -> tuple[Any, ...]:
    pairs = zip(row[::2], row[1::2], strict=True)
    return tuple(
        value.decode("utf-8", "replace") if kind == "text" else value for kind, value in pairs
    )
