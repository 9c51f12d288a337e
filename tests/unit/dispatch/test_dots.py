"""The dot log: what a dead process may have delivered."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from everpost.dispatch.dots import Dot, DotLog, DotsUnreadableError, Step, is_alive, read_dots


def _dot(n: int) -> Dot:
    return (n.to_bytes(16, "big"), n, n + 1)


def test_a_mark_is_there_after_the_process_is_gone(tmp_path: Path) -> None:
    code = (
        "import os,sys,pathlib\n"
        "from everpost.dispatch.dots import DotLog, Step\n"
        "log = DotLog(pathlib.Path(sys.argv[1]))\n"
        "log.mark(Step.COMPOSING, [(b'a' * 16, 1, 2), (b'b' * 16, 1, 2)])\n"
        "log.mark(Step.DOT, [(b'a' * 16, 1, 2)])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    path = tmp_path / "dots.log"
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert read_dots(path) == {
        (b"a" * 16, 1, 2): Step.DOT,
        (b"b" * 16, 1, 2): Step.COMPOSING,
    }
    assert not is_alive(path)


def test_a_process_that_dies_in_the_middle_of_a_record_leaves_no_dot(tmp_path: Path) -> None:
    """The step is stored last: without it, what lies there is no record."""
    path = tmp_path / "dots.log"
    log = DotLog(path)
    log.mark(Step.DOT, [_dot(1), _dot(2)])
    log.close(remove=False)
    with path.open("r+b") as file:
        file.seek(25)  # the second record's step
        file.write(b"\0")
    assert read_dots(path) == {_dot(1): Step.DOT}


def test_a_log_that_was_cut_short_keeps_its_whole_records(tmp_path: Path) -> None:
    path = tmp_path / "dots.log"
    log = DotLog(path)
    log.mark(Step.DOT, [_dot(1), _dot(2)])
    log.close(remove=False)
    os.truncate(path, 2 * 25 - 1)
    assert read_dots(path) == {_dot(1): Step.DOT}


def test_a_log_with_an_unknown_step_proves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "dots.log"
    path.write_bytes(b"\x09" + bytes(24))
    with pytest.raises(DotsUnreadableError):
        read_dots(path)


def test_a_missing_log_proves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DotsUnreadableError):
        read_dots(tmp_path / "gone.log")


def test_a_living_process_holds_its_log(tmp_path: Path) -> None:
    path = tmp_path / "dots.log"
    log = DotLog(path)
    assert is_alive(path)
    log.close(remove=True)
    assert not is_alive(path)
    assert not path.exists()


def test_rotation_keeps_what_is_outstanding_and_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "dots.log"
    log = DotLog(path)
    for n in range(60_000):
        log.mark(Step.DOT, [_dot(n)])
        if n >= 10:
            log.settled([_dot(n - 10)])
    assert path.stat().st_size < 1_100_000
    assert {_dot(n) for n in range(59_990, 60_000)} <= set(read_dots(path))
    assert is_alive(path)
    log.close(remove=True)


def test_a_living_process_that_rotates_its_log_is_declared_dead(tmp_path: Path) -> None:
    """Between a checker's open and its lock the owner may put a fresh file in the log's place."""
    path = tmp_path / "dots.log"
    log = DotLog(path)
    ended = threading.Event()

    def rotate() -> None:
        while not ended.is_set():
            log._rotate(0)

    owner = threading.Thread(target=rotate)
    owner.start()
    try:
        assert all(is_alive(path) for _ in range(3_000))
    finally:
        ended.set()
        owner.join()
    log.close(remove=True)


@pytest.mark.parametrize("fails", ["posix_fallocate", "rename"])
def test_a_full_disk_refuses_the_mark_and_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    path = tmp_path / "dots.log"
    log = DotLog(path)
    capacity = (1 << 20) // 25
    log.mark(Step.DOT, [_dot(n) for n in range(capacity)])

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    if fails == "posix_fallocate":
        monkeypatch.setattr(os, fails, full)
    else:
        monkeypatch.setattr(Path, fails, full)
    with pytest.raises(OSError, match="No space"):
        log.mark(Step.DOT, [_dot(capacity)])
    assert is_alive(path)
    monkeypatch.undo()
    log.mark(Step.DOT, [_dot(capacity)])
    assert set(read_dots(path)) == {_dot(n) for n in range(capacity + 1)}
    log.close(remove=True)


def test_more_outstanding_than_one_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "dots.log"
    log = DotLog(path)
    log.mark(Step.CARRYING, [_dot(n) for n in range(100_000)])
    log.mark(Step.DOT, [_dot(0)])
    found = read_dots(path)
    assert len(found) == 100_000
    assert found[_dot(0)] is Step.DOT
    log.close(remove=True)
