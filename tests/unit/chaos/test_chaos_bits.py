"""A flip that changes nothing, that changes more than one bit, or that hits a message which is no
longer waiting."""

import itertools
from pathlib import Path

import apsw
import pytest

from everpost.ids import text
from tests.chaos.bits import flip_one

_TABLES = """
CREATE TABLE contents (n INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, sealed BLOB NOT NULL);
CREATE TABLE messages (
  n INTEGER PRIMARY KEY, id BLOB NOT NULL, project INTEGER NOT NULL, content BLOB NOT NULL
);
CREATE TABLE recipients (
  message BLOB, n INTEGER, project INTEGER, address TEXT, state TEXT, PRIMARY KEY (message, n)
);
"""


def _id(n: int) -> bytes:
    return n.to_bytes(16, "big")


def _sealed(n: int) -> bytes:
    return bytes((n * 7 + i * 13) % 251 for i in range(400 + n))


def _made(path: Path, states: dict[int, tuple[str, ...]]) -> apsw.Connection:
    """Still open, with all of it in the write-ahead log."""
    db = apsw.Connection(str(path))
    db.pragma("journal_mode", "wal")
    db.execute(_TABLES)
    for n, ends in states.items():
        db.execute("INSERT INTO contents VALUES (NULL, ?, ?)", (_id(n), _sealed(n)))
        db.execute("INSERT INTO messages VALUES (NULL, ?, 1, ?)", (_id(n), _id(n)))
        for r, state in enumerate(ends, 1):
            row = (_id(n), r, f"c{n}.{r}@receiver.test", state)
            db.execute("INSERT INTO recipients VALUES (?, ?, 1, ?, ?)", row)
    return db


def _contents(path: Path) -> dict[bytes, bytes]:
    db = apsw.Connection(str(path))
    found = dict(list(db.execute("SELECT id, sealed FROM contents")))
    assert list(db.execute("PRAGMA integrity_check")) == [("ok",)]
    db.close()
    return found


@pytest.mark.parametrize("pick", [0.0, 0.4, 0.999])
def test_more_or_less_than_one_bit_changes(tmp_path: Path, pick: float) -> None:
    path = tmp_path / "db"
    _made(path, dict.fromkeys(range(1, 9), ("queued", "queued"))).close()
    before = _contents(path)
    flipped = flip_one(path, pick=pick)
    assert flipped is not None
    after = _contents(path)
    (hit,) = (id_ for id_ in before if before[id_] != after[id_])
    assert flipped.id == text(hit)
    n = int.from_bytes(hit, "big")
    assert flipped.elements == (f"c{n}.1", f"c{n}.2")
    changed = int.from_bytes(before[hit], "big") ^ int.from_bytes(after[hit], "big")
    assert changed.bit_count() == 1


def test_an_old_copy_in_free_space_is_hit(tmp_path: Path) -> None:
    """Rows that grew and moved leave their bytes behind; all of them but one are dead."""
    path = tmp_path / "db"
    db = _made(path, {1: ("queued",)})
    db.pragma("secure_delete", False)
    for n in itertools.chain(range(2, 40), range(2, 40, 3)):
        db.execute("INSERT OR REPLACE INTO contents VALUES (?, ?, ?)", (n, _id(n), _sealed(1)))
    db.execute("DELETE FROM contents WHERE n > 1")
    db.close()
    assert path.read_bytes().count(_sealed(1)) > 1
    size = path.stat().st_size
    before = path.read_bytes()
    assert flip_one(path, pick=0.5) is not None
    after = path.read_bytes()
    assert path.stat().st_size == size
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 1
    assert _contents(path)[_id(1)] != _sealed(1)


@pytest.mark.parametrize(
    "states", [("delivered",), ("claimed",), ("queued", "delivered"), ("held",)]
)
def test_a_message_is_hit_that_does_not_wait(tmp_path: Path, states: tuple[str, ...]) -> None:
    path = tmp_path / "db"
    _made(path, {1: states}).close()
    before = _contents(path)
    assert flip_one(path, pick=0.5) is None
    assert _contents(path) == before
