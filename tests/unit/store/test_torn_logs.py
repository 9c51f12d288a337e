"""F10: what is found in real write-ahead logs that were cut, zeroed or flipped, and in those that
a killed process leaves."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from everpost.store.sqlite.torn import Torn, judge, scan

WIDTH = 24 + 4096
HEAD = 32

_DIES = """
import os, signal, sys
import apsw
db = apsw.Connection(sys.argv[1])
db.pragma("journal_mode", "wal")
db.pragma("wal_autocheckpoint", 0)
db.pragma("cache_size", 5)
db.execute("CREATE TABLE t (x)")
for n in range(9):
    db.execute("INSERT INTO t VALUES (randomblob(3000))")
if sys.argv[2:]:
    db.execute("BEGIN")
    for n in range(200):  # more than the cache: some of it goes into the log
        db.execute("INSERT INTO t VALUES (randomblob(3000))")
os.kill(os.getpid(), signal.SIGKILL)
"""


def crashed(folder: Path, *words: str) -> Path:
    """A database whose process was killed, and its log."""
    path = folder / "x.db"
    subprocess.run([sys.executable, "-c", _DIES, str(path), *words], check=False, timeout=60)
    assert Path(f"{path}-wal").stat().st_size > 9 * WIDTH
    return path


def found(path: Path) -> Torn | None:
    """What the judge says after SQLite's own recovery."""
    log = scan(Path(f"{path}-wal"))
    assert log is not None
    db = apsw.Connection(str(path))
    db.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    recovered, _ = db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
    torn = judge(log, recovered=max(recovered, 0))
    db.close()
    return torn


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    return crashed(tmp_path)


@pytest.mark.parametrize("words", [(), ("in a transaction",)])
def test_a_process_was_killed(tmp_path: Path, words: tuple[str, ...]) -> None:
    path = crashed(tmp_path, *words)
    log = scan(Path(f"{path}-wal"))
    assert log is not None
    assert (log.commits[-1] < log.current[-1]) is bool(words)
    assert found(path) is None


def test_a_process_was_killed_between_a_frames_header_and_its_page(killed: Path) -> None:
    wal = Path(f"{killed}-wal")
    os.truncate(wal, HEAD + (wal.stat().st_size - HEAD) // WIDTH * WIDTH - 4096)
    assert found(killed) is None


def test_there_is_no_log(tmp_path: Path) -> None:
    assert scan(tmp_path / "x") is None
    (tmp_path / "x").touch()
    assert scan(tmp_path / "x") is None


def test_older_frames_behind_the_newest_are_no_loss(killed: Path) -> None:
    """The log began anew: what stands behind its end is of the round before."""
    db = apsw.Connection(str(killed))
    db.pragma("wal_autocheckpoint", 0)
    db.execute("SELECT count(*) FROM t").fetchall()
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
    db.execute("INSERT INTO t VALUES (1)")
    copy = killed.with_name("copy.db")
    shutil.copy(killed, copy)
    shutil.copy(f"{killed}-wal", f"{copy}-wal")
    db.close()
    log = scan(Path(f"{copy}-wal"))
    assert log is not None
    assert len(log.current) < log.frames
    assert found(copy) is None


def cut(by: int) -> Callable[[bytearray], None]:
    def change(wal: bytearray) -> None:
        del wal[-by:]

    return change


def zeroed(wal: bytearray) -> None:
    wal[-3 * WIDTH :] = bytes(3 * WIDTH)


def flipped(wal: bytearray) -> None:
    wal[HEAD + 8 * WIDTH + 500] ^= 1


def header_flipped(wal: bytearray) -> None:
    wal[17] ^= 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (cut(512), "cut off after 3608 bytes"),
        (cut(3 * WIDTH - 100), "cut off after 100 bytes"),
        (zeroed, "3 were zeros"),
        (flipped, "transactions, did not"),
        (header_flipped, "header is damaged"),
    ],
)
def test_the_end_of_a_log_is_lost(
    killed: Path, change: Callable[[bytearray], None], says: str
) -> None:
    wal = Path(f"{killed}-wal")
    stored = bytearray(wal.read_bytes())
    change(stored)
    wal.write_bytes(stored)
    torn = found(killed)
    assert torn is not None
    assert says in torn.said
    assert torn.dropped > 0


def test_a_large_log_is_looked_at_without_reading_it(killed: Path) -> None:
    """Work counted: 24 bytes of each frame."""
    wal = Path(f"{killed}-wal")
    log = scan(wal)
    assert log is not None
    with wal.open("r+b") as file:
        file.truncate(HEAD + 16_000 * WIDTH)
    larger = scan(wal)
    assert larger is not None
    assert larger.frames == 16_000
    assert larger.current == log.current
    assert len(larger.empty) == 16_000 - log.frames
