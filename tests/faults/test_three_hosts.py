"""Three hosts that do not come up, lose what they acknowledged when their primary dies, or leave
something on the machine that made them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


def run(folder: Path, *words: str, seconds: float = 240) -> "subprocess.CompletedProcess[str]":
    """A program of tests.cluster, in a process of its own: it works outside loopback."""
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def left_behind() -> list[str]:
    """Namespaces, mounts and folders of clusters whose maker has ended."""
    found = [
        name
        for name in (p.name for p in Path("/run/netns").glob("ep*-h1"))
        if not Path(f"/proc/{int(name.removeprefix('ep').partition('-')[0], 16)}").exists()
    ]
    mounts = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    return found + [line for line in mounts if "everpost-cluster-" in line and "deleted" in line]


@pytest.mark.long
def test_the_primary_and_a_balancer_are_killed_and_a_row_is_lost(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        *("tests.cluster.chaos", "--subject", "sql", "--seed", "5", "--minutes", "0.4", "--json"),
        *("--faults", "pgkill,lbkill,commitcut"),
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result["faults"]["pgkill"] >= 1
    assert result["verdict"]["acknowledged"] > 100
    assert 0.2 < result["accept"]["seconds"] < 20
    assert not left_behind()
    (kept,) = (tmp_path / "chaos-runs").iterdir()
    assert {"history.jsonl", "result.json", "summary.txt", "picture.svg"} <= {
        each.name for each in kept.iterdir()
    }
    assert (kept / "logs/h1-patroni.log").stat().st_size > 0


@pytest.mark.long
def test_three_nodes_do_not_deliver_what_they_accept(tmp_path: Path) -> None:
    done = run(tmp_path, "tests.cluster", "--check", "20", "--logs", str(tmp_path))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "20 arrived, 0 of them twice; verify: 0 findings" in done.stdout
    assert not left_behind()
