"""F88: a configuration is read again while the server runs. One with an error, one that asks for
what takes a restart, and one that a process does not start with leave the old one in force, say
why, and raise an alarm; a good one replaces every process and is in force. A process that dies at
each start is started less and less often, with an alarm, until it lives.

Invariants: I16.
"""

import os
import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from everpost.recovery.children import Children, ReloadState, read_children
from tests.support.house import House
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def dies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """How often a process that delivers dies at its start."""
    return tmp_path_factory.mktemp("dies") / "times"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, dies: Path) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("reload") / "d"
    folder.mkdir()
    _write(folder)
    with House(
        folder,
        settings={"DIES": str(dies)},
        processes=None,
        admin=False,
        inside=("tests.support.inside.no_start",),
    ) as house:
        yield house


def _write(data: Path, more: str = "", *, processes: int = 1, port: int = 0) -> None:
    text = f'[node]\nprocesses = {processes}\n[http]\nadmin_listen = "127.0.0.1:{port}"\n{more}'
    (data / "everpost.toml").write_text(text, encoding="utf-8")


def _children(house: House) -> Children:
    facts = read_children(house.data / "run" / "children.json")
    assert facts is not None
    return facts


def _pids(house: House) -> dict[str, int]:
    return {child.name: child.pid for child in _children(house).children}


def _reload(house: House, more: str = "", *, processes: int = 1) -> None:
    """A good one."""
    _write(house.data, more, processes=processes)
    done = house.cli("config", "reload")
    assert done.returncode == 0, (done, house.tail())


def test_a_reload_with_an_error_is_half_applied(house: House) -> None:
    before = _pids(house)
    _write(house.data, "[dispatch]\nwindow = -1\n")
    done = house.cli("config", "reload")
    assert done.returncode == 2, done
    assert "dispatch.window" in done.stderr
    os.kill(house.pid, signal.SIGHUP)
    house.wait_alarm("config_refused")
    assert _pids(house) == before
    _reload(house, "[dispatch]\nwindow = 700\n")
    assert not set(_pids(house).values()) & set(before.values())
    house.wait_alarm("config_refused", stands=False)


def test_a_reload_changes_what_takes_a_restart(house: House) -> None:
    before = _pids(house)
    _write(house.data, "[dispatch]\nwindow = 700\n", port=1)
    done = house.cli("config", "reload")
    assert done.returncode == 2, (done, house.tail())
    assert "http.admin_listen cannot change while the server runs" in done.stderr
    assert _children(house).reload.state is ReloadState.REFUSED
    assert _pids(house) == before


@pytest.mark.long
def test_a_reload_cannot_change_how_many_processes_deliver(house: House) -> None:
    _reload(house, processes=2)
    assert _pids(house).keys() == {"api", "dispatch-1", "dispatch-2"}
    assert len(house.children("dispatch")) == 2
    _reload(house, processes=1)
    assert _pids(house).keys() == {"api", "dispatch-1"}
    wait_until(
        lambda: len(house.children("dispatch")) == 1, seconds=20, what="the second to have ended"
    )


@pytest.mark.long
def test_a_process_that_does_not_start_leaves_half_of_a_reload_in_force(house: House) -> None:
    before = _pids(house)
    _write(house.data, "[dispatch]\nwindow = 666\n")
    done = house.cli("config", "reload")
    assert done.returncode == 1, (done, house.tail())
    assert "dispatch-1 did not start" in done.stderr
    assert "The old configuration is in force" in done.stderr
    after = _pids(house)
    assert after["dispatch-1"] == before["dispatch-1"]
    assert after["api"] != before["api"]  # replaced, and replaced back
    house.wait_alarm("config_refused")
    assert b"EVERPOST_DISPATCH_WINDOW=666" not in _environment(after["api"])
    _reload(house)
    house.wait_alarm("config_refused", stands=False)


def _environment(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def test_a_process_that_dies_at_each_start_is_started_without_an_alarm(
    house: House, dies: Path
) -> None:
    def restarts() -> int:
        found = re.search(rb"metrics +(http://\S+)", house.said)
        assert found is not None
        with urllib.request.urlopen(found[1].decode(), timeout=10) as answer:
            text = answer.read().decode()
        count = re.search(r'^everpost_restarts_total{name="dispatch-1"} (\S+)$', text, re.MULTILINE)
        return int(float(count[1])) if count else 0

    before = restarts()
    dies.write_text("2", encoding="ascii")
    house.kill_role("dispatch")
    house.wait_alarm("crash_loop")
    house.wait_status(house.send(), "delivered")
    assert dies.read_text(encoding="ascii") == "0"
    assert restarts() == before + 3
