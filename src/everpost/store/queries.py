"""Named queries: `-- name: x` begins one in a `.sql` file; the engines' twin files use the same
names. What stands before the first name, and whole-line comments, is for readers only.

A query that takes any number of rows writes one row's placeholders behind the mark `/*rows*/`:
`INSERT INTO t (a, b) VALUES /*rows*/ (?, ?)`. It is valid SQL as it stands, for one row; `Rows`
repeats the placeholders.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["CHUNK", "Rows", "load", "sizes"]

_NAME = re.compile(r"^--\s*name:\s*([a-z][a-z0-9_]*)\s*$", re.MULTILINE)
_ROWS = re.compile(r"/\*rows\*/\s*(\([^()]*\))")

CHUNK = 64
"""Most rows of one statement; what is above goes into a further statement."""

_STEP = 8


def load(folder: Path) -> Mapping[str, str]:
    """Every named query of a folder's `.sql` files. Raises ValueError when a name comes twice."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.sql")):
        pieces = _NAME.split(path.read_text(encoding="utf-8"))
        for name, body in zip(pieces[1::2], pieces[2::2], strict=True):
            if name in found:
                raise ValueError(f"the query {name} is defined twice ({path.name})")
            found[name] = _trimmed(body)
    return found


def _trimmed(body: str) -> str:
    lines = (line.strip() for line in body.splitlines())
    kept = " ".join(line for line in lines if line and not line.startswith("--"))
    return kept.rstrip(";").rstrip()


def sizes(n: int) -> Iterator[int]:
    """How `n` rows are cut into statements: as few as possible, of so few different sizes (1 to 8,
    then multiples of 8 to 64) that every one of them stays prepared."""
    while n >= CHUNK:
        yield CHUNK
        n -= CHUNK
    if n >= _STEP:
        yield n - n % _STEP
    if n % _STEP:
        yield n % _STEP


class Rows:
    """A query with a `/*rows*/` mark. `width` is how many values one row has."""

    __slots__ = ("_head", "_row", "_tail", "_texts", "width")

    def __init__(self, query: str) -> None:
        found = _ROWS.search(query)
        if found is None:
            raise ValueError(f"no /*rows*/ mark in {query!r}")
        self._head, self._row, self._tail = query[: found.start()], found[1], query[found.end() :]
        self.width = self._row.count("?")
        self._texts: dict[int, str] = {}

    def text(self, n: int) -> str:
        """The query for `n` rows."""
        text = self._texts.get(n)
        if text is None:
            text = self._head + ", ".join([self._row] * n) + self._tail
            self._texts[n] = text
        return text
