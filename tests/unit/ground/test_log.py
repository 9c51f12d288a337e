"""The log's writer: lines are whole, or dropped and counted."""

import fcntl
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

_SAY = """
import sys
from pathlib import Path
from everpost import telemetry
if len(sys.argv) > 1:
    telemetry.set_log(Path(sys.argv[1]))
for n in range(200):
    telemetry.event("said", n=n, filler="x" * 1000)
writer = telemetry._writer
with writer._ready:
    assert writer._ready.wait_for(lambda: not writer._lines, 20)
"""


def test_somebody_made_its_pipe_non_blocking() -> None:
    """A slow reader gets every line, as from a pipe that blocks."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(write, False)
    process = subprocess.Popen([sys.executable, "-c", _SAY], stderr=write)
    os.close(write)
    with os.fdopen(read) as lines:
        seen = [json.loads(line)["n"] for line in lines]
    assert process.wait(timeout=20) == 0
    assert seen == list(range(200))


def test_a_file_that_may_not_grow_has_one_torn_line_at_most(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = f"import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n{_SAY}"
    subprocess.run(
        [sys.executable, "-c", code, str(log)],
        check=True,
        timeout=20,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_500, 50_500)),
    )
    lines = log.read_text().splitlines()
    assert [json.loads(line)["n"] for line in lines[:-1]] == list(range(len(lines) - 1))
    assert len(lines) in (48, 49)
