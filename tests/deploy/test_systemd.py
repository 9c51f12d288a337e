"""The systemd units: read by systemd's own checker, fit to what Everpost does, and hardened only as
far as it still runs. No systemd runs here."""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from everpost.assembly import ROLES
from everpost.cli.root import root
from everpost.config import load
from tests.support.deployed import DEPLOY
from tests.support.far_end import FarEnd
from tests.support.house import House

FOLDER = DEPLOY / "systemd"
UNITS = sorted(file.name for file in FOLDER.glob("*.service"))
PROGRAM = "/opt/everpost/bin/everpost"

WITHOUT_NEW_CODE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(65, 1, 0, 0, 0) == 0, os.strerror(ctypes.get_errno())  # PR_SET_MDWE
os.execv(sys.argv[1], sys.argv[1:])
"""


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _value(name: str, key: str) -> str:
    (found,) = re.findall(rf"^{key}=(.*)$", _text(name), re.MULTILINE)
    return str(found)


def test_there_is_one_unit_for_all_and_one_for_each() -> None:
    assert UNITS == ["everpost.service", "everpost@.service"]


@pytest.mark.parametrize("name", UNITS)
def test_systemd_does_not_understand_a_line(name: str, tmp_path: Path) -> None:
    """With the program where the unit says, as far as the checker can tell."""
    unit = tmp_path / name
    unit.write_text(_text(name).replace(PROGRAM, sys.executable), encoding="utf-8")
    done = subprocess.run(
        ["/usr/bin/systemd-analyze", "verify", "--man=no", "--generators=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", UNITS)
def test_unit_is_exposed(name: str, tmp_path: Path) -> None:
    unit = tmp_path / name
    unit.write_text(_text(name), encoding="utf-8")
    done = subprocess.run(
        ["/usr/bin/systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-400:]


@pytest.mark.parametrize("name", UNITS)
def test_unit_runs_a_command_that_is_none(name: str) -> None:
    command = _value(name, "ExecStart")
    assert command.startswith(f"{PROGRAM} ")
    words = command.split()[1:]
    for role in ROLES:
        found = root.get_command(click.Context(root), words[0])
        assert found is not None
        said = [role if word == "%i" else word for word in words[1:]]
        with found.make_context(words[0], said):
            """Parsed: what is wrong raises."""
    assert {"serve": "everpost.service", "run": "everpost@.service"}[words[0]] == name


@pytest.mark.parametrize("name", UNITS)
def test_systemd_kills_before_the_drain_is_over(name: str) -> None:
    """Or kills the children beside the supervisor, which has told them nothing yet."""
    assert _value(name, "KillMode") == "mixed"
    settings = load(None, {}, {})
    most = 30 + settings.node.drain_s + 15  # http.linger_s is a few seconds behind a balancer
    assert float(_value(name, "TimeoutStopSec")) >= most
    assert float(_value(name, "TimeoutStartSec")) > settings.node.start_s
    assert f"EVERPOST_NODE_DATA=/var/lib/{_value(name, 'StateDirectory')}" in _text(name)


def test_units_differ_in_hardening() -> None:
    def hardening(name: str) -> list[str]:
        return re.findall(
            r"^((?:Protect|Private|Restrict|System|Lock|Memory|NoNew|Remove|Keyring|Cap|Amb).*)$",
            _text(name),
            re.MULTILINE,
        )

    assert hardening(UNITS[0]) == hardening(UNITS[1])
    assert len(hardening(UNITS[0])) > 20


def test_hardening_keeps_it_from_running(tmp_path: Path) -> None:
    """MemoryDenyWriteExecute, as the kernel enforces it."""
    prefix = [sys.executable, "-c", WITHOUT_NEW_CODE]
    with FarEnd() as far, House(tmp_path / "d", processes=1, prefix=prefix) as house:
        house.relay(far.url, tls="none")
        house.domain()
        house.wait_status(house.send(), "delivered")
        assert b"DKIM-Signature" in far.taken[0].data
        assert house.stop() == 0
