"""What a testbed leaves behind: a namespace, a process, a rule; or one that ends itself."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cluster.hosts import Programs
from tests.cluster.network import Namespace, Network, free_prefix
from tests.support.waiting import wait_until

NAME = f"ept{os.getpid():x}"


def _there(name: str) -> bool:
    return (Path("/run/netns") / name).exists()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_network_stays_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Network(NAME, free_prefix(1)) as network:  # noqa: PT012
        host = network.host("a", 1)
        process = Programs(host, tmp_path).start("sleep", ["sleep", "60"])
        assert host.pids() == [process.pid]
        raise RuntimeError
    assert process.wait(timeout=5) == -signal.SIGKILL
    assert not _there(host.name)
    assert not _there(f"{NAME}-sw")


def test_a_thread_does_not_come_back_from_a_namespace() -> None:
    before = os.readlink("/proc/thread-self/ns/net")
    with Network(NAME, free_prefix(2)) as network:
        host = network.host("a", 1)
        with pytest.raises(KeyError), host.inside():
            raise KeyError(os.readlink("/proc/thread-self/ns/net"))
        assert os.readlink("/proc/thread-self/ns/net") == before
        with host.inside():
            assert os.getpid() not in host.pids()


def _wait_states(*pids: int, still: bool) -> None:
    wait_until(
        lambda: all((_state(pid) == "T") == still for pid in pids),
        seconds=5,
        what=f"all to stand still: {still}",
    )


def test_a_frozen_host_goes_on_or_a_thawed_one_does_not(tmp_path: Path) -> None:
    with Network(NAME, free_prefix(3)) as network:
        host = network.host("a", 1)
        programs = Programs(host, tmp_path)
        one, other = (programs.start("sleep", ["sleep", "60"]) for _ in range(2))
        host.stop_all()
        _wait_states(one.pid, other.pid, still=True)
        host.go_on()
        _wait_states(one.pid, other.pid, still=False)
        host.stop_all()
        assert programs.kill() == sorted((one.pid, other.pid))
        assert host.pids() == []


def _reaches(host: Namespace, address: str) -> bool:
    """Nobody listens there: a refusal comes if packets do."""
    with host.inside():
        done = subprocess.run(
            ["bash", "-c", f"exec timeout 0.3 bash -c '</dev/tcp/{address}/9'"],
            capture_output=True,
            check=False,
        )
    return b"refused" in done.stderr


def test_a_cut_link_carries_or_a_healed_one_does_not() -> None:
    with Network(NAME, free_prefix(4)) as network:
        one, other = network.host("a", 1), network.host("b", 2)
        assert _reaches(one, other.address)
        other.rules("cut", [f"in ip saddr {one.address} drop"])
        other.rules("more", ["out tcp sport 5432 drop"])
        assert not _reaches(one, other.address)
        other.rules("cut", [])
        assert _reaches(one, other.address)
