"""Processes of a run: their CPU and memory, read from /proc; ports; an orderly end."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["Usage", "await_port", "cpu_s", "end", "finish", "free_port", "measure", "tree"]

_TICK = os.sysconf("SC_CLK_TCK")


class Usage:
    """`cpu_s`: seconds used by the trees, ended children included. `peak_mb`: the highest sum of
    proportional set sizes seen (shared pages counted once)."""

    def __init__(self) -> None:
        self.cpu_s = 0.0
        self.peak_mb = 0.0


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def tree(roots: Sequence[int]) -> list[int]:
    """The processes of these trees that live now."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parents[int(entry)] = int(_stat(int(entry))[1])
    found = set(roots) & set(parents)
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return sorted(found)
        found |= more


def cpu_s(roots: Sequence[int]) -> float:
    """Seconds of CPU these trees have used so far, ended children included."""
    total = 0
    for pid in tree(roots):
        with contextlib.suppress(OSError, IndexError):
            stat = _stat(pid)
            total += sum(int(stat[n]) for n in (11, 12, 13, 14))  # own and waited-for children
    return total / _TICK


def _memory_mb(pids: Sequence[int]) -> float:
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024


@contextlib.contextmanager
def measure(roots: Sequence[int]) -> Iterator[Usage]:
    """Measure these process trees while the block runs."""
    usage = Usage()
    before = cpu_s(roots)
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.25):
            usage.peak_mb = max(usage.peak_mb, _memory_mb(tree(roots)))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield usage
    finally:
        ended.set()
        watcher.join()
        usage.peak_mb = max(usage.peak_mb, _memory_mb(tree(roots)))
        usage.cpu_s = cpu_s(roots) - before


def finish(command: Sequence[str], *, seconds: float, cwd: str | Path = "/") -> tuple[str, float]:
    """Run a program to its end: what it printed, and the seconds of CPU it used. RuntimeError with
    its last words when it fails or takes too long."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=seconds, cwd=cwd
        )
    except subprocess.CalledProcessError as error:
        words = (error.stderr or error.stdout or "").strip().splitlines()
        last = words[-1] if words else "no word"
        raise RuntimeError(f"{command[0]} ended with {error.returncode}: {last}") from error
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{command[0]} did not end within {seconds:g} s") from error
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, used


def end(process: subprocess.Popen[bytes], seconds: float = 30.0) -> None:
    """Ask a process to stop and wait for it. What is left of its tree then is ended by pid."""
    started = {pid: _started(pid) for pid in tree([process.pid])}
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    for pid, when in started.items():
        if when is not None and _started(pid) == when:  # not another one under the same number
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait(10)


def _started(pid: int) -> str | None:
    with contextlib.suppress(OSError, IndexError):
        return _stat(pid)[19]
    return None


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def await_port(port: int, seconds: float = 20.0) -> None:
    """Wait until something listens on 127.0.0.1:`port`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.02)
    raise RuntimeError(f"nothing listened on port {port} within {seconds:g} s")
