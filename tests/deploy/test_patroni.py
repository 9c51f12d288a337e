"""The Patroni configuration: what Everpost's promise of `replicated` stands on is in it."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.deployed import DEPLOY

FOLDER = DEPLOY / "patroni"
DOCUMENT: dict[str, Any] = yaml.safe_load((FOLDER / "patroni.yml").read_text(encoding="utf-8"))
DCS: dict[str, Any] = DOCUMENT["bootstrap"]["dcs"]


def test_a_commit_is_on_one_machine_only() -> None:
    assert DCS["synchronous_mode"] is True
    assert DCS["synchronous_mode_strict"] is True
    assert DCS["failsafe_mode"] is True
    parameters = DCS["postgresql"]["parameters"]
    assert {parameters[name] for name in ("fsync", "full_page_writes", "synchronous_commit")} == {
        "on"
    }


def test_times_that_patroni_would_correct() -> None:
    assert (DCS["ttl"], DCS["loop_wait"], DCS["retry_timeout"]) == (20, 2, 3)
    assert DCS["ttl"] >= DCS["loop_wait"] + 2 * DCS["retry_timeout"]
    assert DOCUMENT["watchdog"]["safety_margin"] < DCS["ttl"]


def test_patroni_that_loses_rows_after_a_pause_is_installed() -> None:
    (version,) = re.findall(
        r"^patroni==(\d+)\.(\d+)", (FOLDER / "requirements.lock").read_text(), re.MULTILINE
    )
    assert tuple(map(int, version)) >= (4, 1)
    dockerfile = (DEPLOY / "docker" / "etcd.Dockerfile").read_text(encoding="utf-8")
    assert "ge 3.5.13" in dockerfile


def test_password_in_a_file_stands_in_the_environment(tmp_path: Path) -> None:
    """`start` reads NAME_FILE into NAME, and the first line only."""
    patroni = tmp_path / "patroni"
    patroni.write_text(
        '#!/bin/sh\necho "$1 $PATRONI_SUPERUSER_PASSWORD $EVERPOST_DATABASE_PASSWORD"\n'
    )
    patroni.chmod(0o755)
    script = (FOLDER / "start").read_text(encoding="utf-8")
    start = tmp_path / "start"
    start.write_text(script.replace("/opt/patroni/bin/patroni", str(patroni)), encoding="utf-8")
    (tmp_path / "one").write_text("pa$$ word\nsecond line\n")
    done = subprocess.run(
        ["sh", str(start)],
        env={
            **os.environ,
            "PATRONI_SUPERUSER_PASSWORD_FILE": str(tmp_path / "one"),
            "EVERPOST_DATABASE_PASSWORD": "given",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "/etc/patroni/patroni.yml pa$$ word given\n"


@pytest.mark.parametrize("name", ["first-start", "start"])
def test_script_that_cannot_be_run(name: str) -> None:
    assert os.access(FOLDER / name, os.X_OK)
    subprocess.run(["sh", "-n", str(FOLDER / name)], check=True)
