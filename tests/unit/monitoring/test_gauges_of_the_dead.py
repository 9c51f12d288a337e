"""The supervisor removes the gauges of a process that ended."""

import errno
from pathlib import Path

import pytest

from everpost.assembly.places import Places


def _gauges(data: Path) -> set[str]:
    return {path.name for path in (data / "run" / "metrics").iterdir()}


def _filled(data: Path) -> Places:
    places = Places(data)
    places.make()
    for name in ("gauge_livesum_api.db", "counter_api.db", "gauge_livesum_api-b.db"):
        (places.metrics / name).touch()
    return places


def test_a_process_ends_and_its_gauges_with_it(tmp_path: Path) -> None:
    _filled(tmp_path).forget_gauges("api")
    assert _gauges(tmp_path) == {"counter_api.db", "gauge_livesum_api-b.db"}


def test_a_process_ends_while_the_disk_is_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F7: the supervisor does not end with it."""
    places = _filled(tmp_path)

    def refused(path: Path, *, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refused)
    places.forget_gauges("api")
    assert "gauge_livesum_api.db" in _gauges(tmp_path)
