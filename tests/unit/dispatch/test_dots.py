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


def test_a_torn_last_record_is_no_dot(tmp_path: Path) -> None:
    path = tmp_path / "dots.log"
    log = DotLog(path)
    log.mark(Step.DOT, [_dot(1), _dot(2)])
    log.close(remove=False)
    os.truncate(path, path.stat().st_size - 1)
    assert read_dots(path) == {_dot(1): Step.DOT}


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
            log._rotate()

    owner = threading.Thread(target=rotate)
    owner.start()
    try:
        assert all(is_alive(path) for _ in range(3_000))
    finally:
        ended.set()
        owner.join()
    log.close(remove=True)


def test_a_record_that_was_torn_hides_those_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "dots.log"
    log = DotLog(path)
    log.mark(Step.DOT, [_dot(1)])
    whole = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: whole(fd, data[:7]))
    with pytest.raises(OSError, match="only a part"):
        log.mark(Step.DOT, [_dot(2)])
    monkeypatch.undo()
    log.mark(Step.DOT, [_dot(3)])
    log.close(remove=False)
    assert read_dots(path) == {_dot(1): Step.DOT, _dot(3): Step.DOT}


def test_a_rotation_that_fails_stops_settling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "dots.log"
    log = DotLog(path)
    for n in range(45_000):
        log.mark(Step.DOT, [_dot(n)])

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    log.settled([_dot(1)])
    monkeypatch.undo()
    assert read_dots(path)[_dot(2)] is Step.DOT
    log.close(remove=True)
