"""A slow disk, told from one commit that had to wait."""

from everpost.store.pace import Pace


def _after(*seconds: float) -> bool:
    pace = Pace()
    for each in seconds:
        pace.seen(each)
    return pace.slow


def test_commits_that_have_to_wait_now_and_then() -> None:
    assert not _after(0.9, 0.9, 0.01, 0.9, 0.9)
    assert _after(0.9, 0.9, 0.9)


def test_a_slow_disk_that_is_quick_now_and_then() -> None:
    assert _after(0.9, 0.9, 0.9, 0.01, 0.01, 0.9, 0.01, 0.01)
    assert not _after(0.9, 0.9, 0.9, 0.01, 0.01, 0.01)
