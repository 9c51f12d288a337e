"""A server that does not come up, or a disk that cannot be made, outlives its test."""

from pathlib import Path

import pytest

from tests.support.house import House
from tests.support.power import Host


def test_a_server_that_never_says_it_is_ready_lives_on(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    silent = ("sh", "-c", f"echo $$ > '{told}'; exec sleep 60 >&-")
    with (
        pytest.raises(AssertionError, match="ended at start"),
        House(tmp_path / "d", prefix=silent),
    ):
        pass
    assert not Path(f"/proc/{told.read_text().strip()}").exists()


def test_a_disk_that_cannot_be_made_leaves_its_folder_mounted(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="mkfs"), Host(tmp_path, mib=0):
        pass
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


def test_a_disk_that_somebody_still_uses_stays_mounted(tmp_path: Path) -> None:
    with Host(tmp_path, mib=16) as host:
        host.data.mkdir()
        file = (host.data / "open").open("wb")
    with file:
        assert str(tmp_path) not in Path("/proc/mounts").read_text()
