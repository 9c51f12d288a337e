"""A house is told to end while one of its processes is still starting."""

import os
import signal
import subprocess
import sys
from pathlib import Path

HOUSE = """
import sys
from pathlib import Path
from everpost import telemetry
from everpost.recovery.reloading import Plan, Reader
from everpost.recovery.spawning import Child
from everpost.recovery.supervisor import Report, Supervisor
from everpost.recovery.watching import Patience

telemetry.set_log(sys.stderr)
folder = Path(sys.argv[1])
child = Child("api", [sys.executable, "-c", (folder / "child").read_text(), str(folder / "go")], {})
plan = Plan((child,), drain_s=5.0, patience=Patience(hung_s=0.0, start_s=60.0), linger_s=20.0)
nothing = lambda *_: None
report = Report(folder / "children", (None, {}), lambda: 0, nothing, nothing, nothing, nothing)
sys.exit(Supervisor(plan, reader=Reader([], {}, lambda _: plan), report=report).run())
"""

CHILD = """
import os, signal, sys
notify = next(int(word.rpartition("=")[2]) for word in sys.argv if "=notify=" in word)
open(sys.argv[1]).close()  # until somebody opens the other end
left, told = os.pipe()
signal.signal(signal.SIGUSR1, lambda *_: os.write(told, b"left"))
os.write(notify, b"R")
print(os.read(left, 4).decode(), flush=True)
os.kill(os.getppid(), signal.SIGTERM)  # a second time: that was all
signal.pause()
"""


def test_who_serves_only_then_is_told_as_well(tmp_path: Path) -> None:
    """Else it would call itself ready, and a load balancer send it what nobody answers."""
    (tmp_path / "child").write_text(CHILD, encoding="utf-8")
    os.mkfifo(tmp_path / "go")
    house = subprocess.Popen(
        [sys.executable, "-c", HOUSE, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert house.stdout is not None
    assert house.stderr is not None
    try:
        while not (tmp_path / "children").exists():
            assert house.poll() is None
            os.sched_yield()
        house.send_signal(signal.SIGTERM)
        for line in house.stderr:
            if "supervisor.leaving" in line:
                break
        with (tmp_path / "go").open("w", encoding="ascii"):
            assert house.stdout.readline() == "left\n"
        assert house.wait(timeout=10) == 0
    finally:
        house.kill()
        house.wait()
        house.stdout.close()
        house.stderr.close()
