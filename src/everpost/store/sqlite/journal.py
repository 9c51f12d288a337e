"""A node's accept journal as a SQLite file: each entry flushed before `write` returns, entries of
many callers in one flush; each body under a checksum of its own.

A file that SQLite finds damaged at the start is set aside, and whatever of it can be read goes into
a new one: a node must be able to take mail, and what it took before must reach the store. Indexes
are compared with their tables for that: one flipped bit there hides entries without a word.
"""

import asyncio
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import apsw

from everpost import telemetry
from everpost.clock import Clock
from everpost.model.message import Durability
from everpost.store.checksums import checksum
from everpost.store.interface import StoreUnavailable
from everpost.store.journal_rows import JournalRow, JournalSize, NewJournalRow
from everpost.store.queries import load
from everpost.store.sqlite.connection import as_store_error, connect, create_file, integer
from everpost.store.sqlite.lock import WriteLock
from everpost.store.sqlite.reader import Reader
from everpost.store.sqlite.work import Single, Transaction, Work
from everpost.store.sqlite.writer import Writer

__all__ = ["JournalFile"]

T = TypeVar("T")

_SQL: Mapping[str, str] = load(Path(__file__).parent)
_ADD, _ADD_BODY = _SQL["add_entry"], _SQL["add_body"]

_CHECKPOINT_PAGES = 4_000
_SLICE_OCTETS = 16 << 20
"""Bodies that one look at what is pending brings at most, beside the first."""
_MOST_DROPPED = 500
_WIDEST_HOLE = 1_000_000
"""Numbers that are asked for one by one where a damaged file cannot be walked."""

_Body = tuple[int, bytes, int, bytes, bytes, bytes]


class JournalFile:
    """The file at `path`. Several processes may have it open; each sees what the others wrote.

    Alarms: `journal_unavailable` while it cannot be written, `journal_slow`, `journal_damaged`.
    Errors are the store's.
    """

    def __init__(self, path: Path, *, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._writer: Writer | None = None
        self._reader: Reader | None = None

    async def open(self) -> None:
        """Raises StoreError."""
        try:
            await asyncio.to_thread(_prepare, self._path)
            lock = WriteLock(self._path)
        except apsw.Error as error:
            raise as_store_error(error) from error
        except OSError as error:
            raise StoreUnavailable(f"{self._path}: {error}") from error
        self._writer = Writer(
            partial(_connect, self._path),
            lock,
            clock=self._clock,
            unavailable="journal_unavailable",
            slow="journal_slow",
            told=_as_journal_error,
        )
        read = partial(connect, self._path, Durability.COMMITTED, read_only=True)
        self._reader = Reader(read, told=_as_journal_error)
        self._writer.start()
        self._reader.start()

    async def close(self) -> None:
        """Write what is pending, then close."""
        if self._writer is not None:
            await self._writer.close()
        if self._reader is not None:
            await self._reader.close()

    # -- writing -----------------------------------------------------------------------------------

    async def write(self, rows: Sequence[NewJournalRow]) -> Sequence[int]:
        """Flushed when it returns; their numbers, 0 for one that was there."""
        return await self._open_writer().do(_Write(rows))

    async def copied(self, number: int) -> None:
        """A peer has it, too."""
        await self._do(lambda tx: _each(tx, "mark_copied", [(number,)]))

    async def drained(self, numbers: Sequence[int], *, at: int, timeline: int) -> None:
        """The store has them, since `at`, on that timeline or a later one."""
        values = [{"number": n, "at": at, "timeline": timeline} for n in numbers]
        await self._do(lambda tx: _each(tx, "mark_drained", values))

    async def damaged(self, numbers: Sequence[int]) -> None:
        """They cannot be read; they stay as they are, for whoever looks."""
        await self._do(lambda tx: _each(tx, "mark_damaged", [(n,) for n in numbers]))

    async def drain_again(self, timeline: int) -> None:
        """What was drained on an older timeline is pending once more."""
        await self._do(lambda tx: _each(tx, "drain_again", [(timeline,)]))

    async def drop(self, *, before: int, most: int = _MOST_DROPPED) -> int:
        """Remove at most so many that were drained before then; how many."""
        return await self._do(lambda tx: _drop(tx, before, most))

    async def remember(self, nodes: Mapping[str, bytes]) -> None:
        """Replace what is known of the other nodes, by name."""
        await self._do(lambda tx: _remember(tx, nodes))

    # -- reading -----------------------------------------------------------------------------------

    async def pending(self, *, after: int, most: int) -> Sequence[JournalRow]:
        """Of what no store is known to have, by number; fewer where they are large."""
        return await self._read(lambda db: _pending(db, after, most))

    async def row(self, number: int) -> JournalRow | None:
        return await self._read(lambda db: _row(db, number))

    async def still_pending(self, numbers: Sequence[int]) -> Sequence[int]:
        """Of these the ones that no store is known to have, by the entries themselves."""
        return await self._read(lambda db: _still_pending(db, numbers))

    async def size(self) -> JournalSize:
        return await self._read(_size)

    async def remembered(self) -> Sequence[bytes]:
        return await self._read(
            lambda db: [cast(bytes, row[0]) for row in db.execute(_SQL["remembered_nodes"])]
        )

    def _read(self, read: Callable[[apsw.Connection], T]) -> "asyncio.Future[T]":
        if self._reader is None:
            raise StoreUnavailable("the journal is not open")
        return self._reader.do(read)

    def _do(self, do: Callable[[Transaction], T]) -> "asyncio.Future[T]":
        return self._open_writer().do(Single(do))

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise StoreUnavailable("the journal is not open")
        return self._writer


def _as_journal_error(error: BaseException) -> BaseException:
    """As `as_store_error`, but for damage: it is of this file, and says nothing of the store."""
    if not isinstance(error, apsw.CorruptError | apsw.NotADBError | apsw.FormatError):
        return as_store_error(error)
    telemetry.alarm("journal_damaged").raise_(error=str(error), mended_by="a restart")
    told = StoreUnavailable(f"the journal is damaged: {error}")
    told.__cause__ = error
    return told


class _Write(Work[list[int]]):
    """One call of `write`; checksums are made in the caller's thread."""

    __slots__ = ("rows",)
    merged: ClassVar[bool] = True
    verb: ClassVar[str] = "journal"

    def __init__(self, rows: Sequence[NewJournalRow]) -> None:
        super().__init__()
        self.rows = [(row, checksum(row.body)) for row in rows]

    @classmethod
    def run(cls, tx: Transaction, works: "Sequence[_Write]") -> list[list[int]]:
        return [[_add(tx.db, row, sum_) for row, sum_ in work.rows] for work in works]


def _add(db: apsw.Connection, row: NewJournalRow, sum_: bytes) -> int:
    values = (row.first, row.origin, row.at, len(row.body))
    added = db.execute(_ADD, values).fetchall()
    if not added:
        return 0
    number = cast(int, added[0][0])
    db.execute(_ADD_BODY, (number, row.origin, row.at, row.first, row.body, sum_))
    return number


def _each(tx: Transaction, query: str, values: Sequence[Any]) -> None:
    tx.db.executemany(_SQL[query], values)


def _drop(tx: Transaction, before: int, most: int) -> int:
    over = tx.db.execute(_SQL["over_entries"], {"before": before, "most": most}).fetchall()
    tx.db.executemany(_SQL["drop_entry"], over)
    tx.db.executemany(_SQL["drop_body"], over)
    return len(over)


def _remember(tx: Transaction, nodes: Mapping[str, bytes]) -> None:
    tx.db.execute(_SQL["forget_nodes"])
    tx.db.executemany(_SQL["remember_node"], list(nodes.items()))


# --- reading --------------------------------------------------------------------------------------


def _pending(db: apsw.Connection, after: int, most: int) -> Sequence[JournalRow]:
    found: list[JournalRow] = []
    octets = 0
    entries = db.execute(_SQL["pending_entries"], {"after": after, "most": most}).fetchall()
    for entry in entries:
        octets += cast(int, entry[3])
        if found and octets > _SLICE_OCTETS:
            break
        found.append(_with_body(db, entry))
    return found


def _row(db: apsw.Connection, number: int) -> JournalRow | None:
    entries = db.execute(_SQL["entry"], (number,)).fetchall()
    return _with_body(db, entries[0]) if entries else None


def _with_body(db: apsw.Connection, entry: Sequence[Any]) -> JournalRow:
    number, at, copied, _ = entry
    return JournalRow(number, at, bool(copied), _body(db, number))


def _still_pending(db: apsw.Connection, numbers: Sequence[int]) -> Sequence[int]:
    asked = ((n, db.execute(_SQL["entry_state"], (n,)).fetchall()) for n in numbers)
    return [number for number, rows in asked if rows and rows[0][0] == "pending"]


def _body(db: apsw.Connection, number: int) -> bytes | None:
    try:
        rows = db.execute(_SQL["body"], (number,)).fetchall()
    except apsw.CorruptError:
        return None
    if not rows or checksum(cast(bytes, rows[0][0])) != rows[0][1]:
        return None
    return cast(bytes, rows[0][0])


def _size(db: apsw.Connection) -> JournalSize:
    pending = entries = octets = damaged = 0
    oldest = None
    for state, count, since, size in db.execute(_SQL["journal_size"]):
        entries += cast(int, count)
        octets += cast(int, size)
        if state == "pending":
            pending, oldest = cast(int, count), cast(int, since)
        elif state == "damaged":
            damaged = cast(int, count)
    return JournalSize(pending, oldest, entries, octets, damaged)


# --- the file -------------------------------------------------------------------------------------


def _connect(path: Path) -> apsw.Connection:
    db = connect(path, Durability.COMMITTED)
    db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    return db


def _prepare(path: Path) -> None:
    """There is a sound file afterwards."""
    rescued = path.with_name(path.name + ".rescued")
    if rescued.exists():  # we were killed after it was whole: the other is old, or half gone
        _replace(path, rescued)
    if not path.exists():
        _make(path)
        return
    wrong = _wrong(path)
    if wrong is None:
        return
    fresh = path.with_name(path.name + ".new")
    for each in _files(fresh):
        each.unlink(missing_ok=True)
    found = _readable(path)
    _make(fresh, found)
    _move(fresh, rescued)
    aside = _replace(path, rescued)
    telemetry.alarm("journal_damaged").raise_(error=wrong, set_aside=aside.name, entries=len(found))


def _replace(path: Path, rescued: Path) -> Path:
    """Put what was rescued in the place of the damaged file; where that went."""
    aside = _free_name(path)
    _move(path, aside)
    _move(rescued, path)
    return aside


def _make(path: Path, bodies: Sequence[_Body] = ()) -> None:
    create_file(path)
    db = _connect(path)
    try:
        with db:
            if not integer(db, "PRAGMA user_version"):
                db.execute(_SQL["journal_schema"]).fetchall()
            for _, origin, at, first, body, _sum in bodies:
                row = NewJournalRow(first, origin.decode(errors="replace"), at, body)
                _add(db, row, checksum(body))
    finally:
        db.close()


def _wrong(path: Path) -> str | None:
    """What SQLite says of a file; None: it is sound, or was made and never used."""
    try:
        db = _connect(path)
        try:
            if not integer(db, "PRAGMA user_version"):
                _make(path)
            said = [str(row[0]) for row in db.execute("PRAGMA integrity_check(5)")]
        finally:
            db.close(force=True)
    except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError) as error:
        return str(error)
    return None if said == ["ok"] else "; ".join(said)


def _readable(path: Path) -> list[_Body]:
    """What a damaged file still holds, of which each body fits its checksum."""
    found: dict[int, _Body] = {}
    try:
        db = connect(path, Durability.COMMITTED)
    except (apsw.Error, OSError):
        return []
    try:
        for query in ("bodies_upward", "bodies_downward"):
            for row in _until_damage(db, _SQL[query]):
                if row[0] in found:
                    break
                found[row[0]] = row
        for number in _hole(found):
            for row in _until_damage(db, _SQL["body_as_it_is"], (number,)):
                found[number] = row
    finally:
        db.close(force=True)
    return [row for _, row in sorted(found.items()) if checksum(row[4]) == row[5]]


def _until_damage(db: apsw.Connection, query: str, values: tuple[int, ...] = ()) -> Iterator[_Body]:
    try:
        for row in db.execute(query, values):
            yield cast(_Body, row)
    except apsw.Error:
        return


def _hole(found: Mapping[int, _Body]) -> range:
    """The numbers between what was found from the one side and from the other."""
    numbers = sorted(found)
    widest = max(itertools.pairwise(numbers), key=lambda p: p[1] - p[0], default=(0, 0))
    return range(widest[0] + 1, min(widest[1], widest[0] + _WIDEST_HOLE))


def _files(path: Path) -> Sequence[Path]:
    return [path.with_name(path.name + tail) for tail in ("", "-wal", "-shm")]


def _free_name(path: Path) -> Path:
    n = 1
    while (free := path.with_name(f"{path.name}.damaged-{n}")).exists():
        n += 1
    return free


def _move(path: Path, to: Path) -> None:
    """With its log, and durably; the log goes first, the file itself says that it is there."""
    for was, then in reversed(list(zip(_files(path), _files(to), strict=True))):
        if was.exists():
            os.rename(was, then)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
