"""One bit of a database file, in the stored content of a message that waits to be sent."""

import hashlib
import mmap
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import apsw

from everpost.ids import Id, text

__all__ = ["Flipped", "flip_one"]

_CANDIDATES = """
SELECT m.id, c.n, c.sealed FROM recipients AS r
JOIN messages AS m ON m.id = r.message AND m.project = r.project
JOIN contents AS c ON c.id = m.content
WHERE r.state = 'queued' AND length(c.sealed) < 3000
  AND NOT EXISTS (SELECT 1 FROM recipients AS o WHERE o.message = r.message AND o.state <> 'queued')
GROUP BY m.id ORDER BY m.n DESC LIMIT 50
"""
_SEALED = "SELECT sealed FROM contents WHERE n = ?"
_ADDRESSES = "SELECT address FROM recipients WHERE message = ? ORDER BY n"


@dataclass(frozen=True, slots=True)
class Flipped:
    """`id` as the API shows it; `elements`: local parts of its recipients; `offset` in the file."""

    id: str
    elements: tuple[str, ...]
    offset: int


def flip_one(database: Path, *, pick: float) -> Flipped | None:
    """Flip a bit, chosen by `pick` in [0, 1), of one content whose recipients are all queued,
    and nothing else. None when no such message waits. Nobody may have the database open."""
    with closing(apsw.Connection(str(database))) as db:
        db.pragma("wal_checkpoint(TRUNCATE)")
        found = list(db.execute(_CANDIDATES))
    if not found:
        return None
    id_, n, sealed = found[int(pick * len(found))]
    bit = int.from_bytes(hashlib.sha256(sealed).digest()[:4], "big") % (len(sealed) * 8)
    for offset in _places(database, sealed):
        _flip(database, offset + bit // 8, 1 << bit % 8)
        with closing(apsw.Connection(str(database))) as db:
            if db.execute(_SEALED, (n,)).get != sealed:
                addresses = [address for (address,) in db.execute(_ADDRESSES, (id_,))]
                elements = tuple(address.rpartition("@")[0] for address in addresses)
                return Flipped(text(Id(id_)), elements, offset + bit // 8)
        # It was an old copy in a page's free space.
        _flip(database, offset + bit // 8, 1 << bit % 8)
    raise AssertionError("the content is not in the file as one piece")


def _places(database: Path, sealed: bytes) -> Iterator[int]:
    with database.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as all_:
        at = all_.find(sealed)
        places = []
        while at >= 0:
            places.append(at)
            at = all_.find(sealed, at + 1)
    yield from places


def _flip(database: Path, offset: int, mask: int) -> None:
    with database.open("r+b") as file:
        file.seek(offset)
        (was,) = file.read(1)
        file.seek(offset)
        file.write(bytes((was ^ mask,)))
