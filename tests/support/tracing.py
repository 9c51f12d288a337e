"""System calls of a running process that fail, come late or kill, by strace's injection."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["injecting"]


@contextmanager
def injecting(
    pid: int | Sequence[int],
    *injections: str,
    trace: str = "",
    paths: Sequence[Path] = (),
    threads: bool = True,
) -> Iterator[None]:
    """In the block, the process (or each of several) and its threads (or its first one alone) meet
    `injections`, such as `fdatasync:error=EIO:when=6` or `pwrite64:error=EROFS`. `trace`: which
    calls are looked at at all, where that is not plain from these; `paths`: only calls on these
    files."""
    strace = shutil.which("strace")
    pids = [pid] if isinstance(pid, int) else pid
    assert strace, "this test needs strace: apt-get install strace"
    calls = trace or ",".join(dict.fromkeys(each.split(":")[0] for each in injections))
    tracer = subprocess.Popen(
        [
            *(strace, *(["-f"] if threads else [])),
            *(word for each in pids for word in ("-p", str(each))),
            *("-e", f"trace={calls}", "-e", "signal=none"),
            *(word for each in injections for word in ("-e", f"inject={each}")),
            *(word for each in paths for word in ("-P", str(each))),
            *("--output", "/dev/null"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    try:
        while "attached" not in (line := tracer.stderr.readline()):
            assert line, "strace could not attach"
        yield
    finally:
        _end(tracer)
        tracer.stderr.close()


def _end(tracer: subprocess.Popen[str]) -> None:
    """A process that was killed ends strace, too. Told to detach while it dies, strace waits for
    ever for its first thread, and that one for the others, which wait for strace: then only a kill
    sets them free."""
    tracer.terminate()
    try:
        tracer.wait(timeout=2)
    except subprocess.TimeoutExpired:
        tracer.kill()
        tracer.wait(timeout=20)
