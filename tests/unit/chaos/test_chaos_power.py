"""The power of one host is cut while a server of another host runs, which was started when the
disk of the first was mounted."""

import signal
import subprocess
from pathlib import Path
from typing import cast

from tests.support.house import House
from tests.support.power import Host
from tests.support.waiting import wait_until


class _Server:
    """In the place of a house."""

    def __init__(self, host: Host) -> None:
        self._process = subprocess.Popen([*host.prefix, "sleep", "60"])
        self.pid = self._process.pid
        name = Path(f"/proc/{self.pid}/comm")
        wait_until(lambda: name.read_text() == "sleep\n", seconds=10, what="the server")

    def children(self) -> list[int]:
        return []

    def kill(self) -> int:
        self._process.kill()
        return self._process.wait(timeout=10)


def test_a_server_elsewhere_keeps_the_dead_disk(tmp_path: Path) -> None:
    with Host(tmp_path / "a", mib=16) as one, Host(tmp_path / "b", mib=16) as other:
        server, elsewhere = _Server(one), _Server(other)
        one.data.mkdir()
        (one.data / "file").write_text("not flushed")
        one.cut(cast(House, server))
        assert not (one.data / "file").exists()
        one.data.mkdir(exist_ok=True)  # it can be written to again
        assert elsewhere.kill() == -signal.SIGKILL
